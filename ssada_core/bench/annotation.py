"""How many clicks a frame takes: a scripted user corrects predictions until they are as right as asked for.

The user knows the ground truth and always takes the click that puts most pixels right, with the page's own tools:
patches of every size, regions of the prediction, fills, and patches of the clicked class only. So it is the least a
person can hope for; who clicks less cleverly clicks more often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.annotation.segments import superpixels
from ssada_core.data.lists import open_samples
from ssada_core.data.resized import resize_label
from ssada_core.data.samples import Array, Samples
from ssada_core.errors import DataError
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.load import load_engine, read_model
from ssada_core.labels import IGNORE, LabelSpace
from ssada_core.store.models import resolve_model

Parts = NDArray[np.int64]


@dataclass(frozen=True)
class AnnotationBench:
    """What to measure.

    Attributes:
        model: reference of the model whose predictions are corrected.
        data: labelled frames, as for ``ssada evaluate``.
        frames: how many of them, spread evenly.
        target: share of the labelled pixels that must be right in the end.
        most_clicks: when the user gives up.
        backend: inference backend.
    """

    model: str
    data: str
    frames: int = 10
    target: float = 0.95
    most_clicks: int = 300
    backend: str = "auto"


@dataclass(frozen=True)
class Click:
    """One click of the user: with which tool, for which class, and how many pixels more are right."""

    tool: str
    index: int
    gain: int


def run_annotation_bench(
    bench: AnnotationBench, *, log: Callable[[str], None], on_frame: Callable[[int, int], None]
) -> dict[str, Any]:
    """Correct frames one by one.

    Returns:
        Medians, and the figures of each frame.

    Raises:
        ModelError: if there is no such model.
        DataError: if there are no labelled frames.
    """
    folder = resolve_model(bench.model)
    space = read_model(folder)[1].labels()
    samples = open_samples(bench.data, space)
    engine = load_engine(folder, EngineSettings.model_validate({"backend": bench.backend}), log=log)
    rows = []
    try:
        for number, index in enumerate(_spread(len(samples), bench.frames)):
            rows.append(_measure(samples, index, engine, space, bench))
            on_frame(number + 1, bench.frames)
    finally:
        engine.close()
    return {"model": bench.model, "data": bench.data, "target": bench.target, **_summary(rows), "frames": rows}


def _spread(there: int, wanted: int) -> list[int]:
    return sorted({int(index) for index in np.linspace(0, there - 1, min(there, wanted)).round()})


def _measure(samples: Samples, index: int, engine: Engine, space: LabelSpace, bench: AnnotationBench) -> dict[str, Any]:
    image, truth = samples.image(index), samples.label(index)
    if truth is None:
        raise DataError(f"{samples.name(index)} has no label: clicks are counted on labelled frames")
    predicted = resize_label(engine.infer([image])[0].label, (truth.shape[0], truth.shape[1]))
    user = ScriptedUser(predicted, truth, [patches.astype(np.int64) for patches in superpixels(image)], space)
    start, changes, tools, last = user.accuracy, 0, Counter[str](), -1
    while user.accuracy < bench.target and tools.total() < bench.most_clicks:
        click = user.click()
        if click.gain <= 0:
            break
        changes += click.index != last
        last = click.index
        tools[click.tool] += 1
    return {
        "name": samples.name(index),
        "accuracy_before": start,
        "accuracy_after": user.accuracy,
        "clicks": tools.total(),
        "reached": user.accuracy >= bench.target,
        "class_changes": changes,
        "tools": dict(tools.most_common()),
        "best_by_level": user.best_by_level(),
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def median(key: str) -> float:
        return float(np.median([row[key] for row in rows]))

    levels = np.array([row["best_by_level"] for row in rows])
    return {
        "clicks_median": median("clicks"),
        "clicks_most": max(row["clicks"] for row in rows),
        "class_changes_median": median("class_changes"),
        "reached": sum(row["reached"] for row in rows),
        "accuracy_before_median": median("accuracy_before"),
        "accuracy_after_median": median("accuracy_after"),
        "best_by_level_mean": [round(float(value), 4) for value in levels.mean(0)],
    }


class ScriptedUser:
    """Corrects one frame, the most useful click first."""

    def __init__(self, prediction: Array, truth: Array, levels: list[Parts], space: LabelSpace) -> None:
        """Begin with the prediction.

        Args:
            prediction: uint8 H×W class ids.
            truth: uint8 H×W class ids and 255, which counts for nothing.
            levels: patch numbers of each level.
            space: the classes.
        """
        self._base, self._truth, self._levels = prediction, truth, levels
        self._classes = space.num_classes
        self._valid = truth != IGNORE
        self.label = prediction.copy()
        """The label as it is now, uint8 H×W."""

    @property
    def accuracy(self) -> float:
        """Share of the labelled pixels that are right."""
        return float(np.mean(self.label[self._valid] == self._truth[self._valid]))

    def best_by_level(self) -> list[float]:
        """The accuracy that patches of each level allow at all: every patch has the class most of it has."""
        pixels = max(1, int(np.count_nonzero(self._valid)))
        return [round(float(self._histogram(parts).max(1).sum()) / pixels, 4) for parts in self._levels]

    def click(self) -> Click:
        """Make the best click there is; with a gain of 0 nothing was changed."""
        right = self._valid & (self.label == self._truth)
        best, where = Click("none", -1, 0), np.zeros(self.label.shape, np.bool_)
        for tool, parts in self._choices():
            histogram = self._histogram(parts)
            gains = histogram.max(1) - np.bincount(parts[right], minlength=len(histogram))
            number = int(gains.argmax())
            if gains[number] > best.gain:
                best = Click(tool, int(histogram[number].argmax()), int(gains[number]))
                where = parts == number
        self.label[where] = best.index if best.gain else self.label[where]
        return best

    def _choices(self) -> Iterator[tuple[str, Parts]]:
        """What each tool would change where, as a partition of the frame; simple tools first."""
        for level, patches in enumerate(self._levels):
            yield f"patch {level}", patches
        yield "region", _connected(self._base.astype(np.int64) * 256 + self.label)
        yield "fill", _connected(self.label.astype(np.int64))
        for level, patches in enumerate(self._levels):
            yield f"patch {level}, one class", patches * (IGNORE + 1) + self.label

    def _histogram(self, parts: Parts) -> NDArray[np.int64]:
        """Pixels of each class in each part, [parts, C]."""
        count = int(parts.max()) + 1
        keys = parts[self._valid] * self._classes + self._truth[self._valid]
        return np.bincount(keys, minlength=count * self._classes).reshape(count, self._classes)


def _connected(values: Parts) -> Parts:
    """Number the 4-connected parts of equal value."""
    result = np.zeros(values.shape, np.int64)
    total = 0
    for value in np.unique(values):
        count, parts = cv2.connectedComponents((values == value).astype(np.uint8), connectivity=4)
        inside = parts > 0
        result[inside] = parts[inside] - 1 + total
        total += count - 1
    return result
