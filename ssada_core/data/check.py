"""Is a data set complete and sound? Everything is read once; what is wrong is said with its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssada_core.data.file_samples import FileSamples
from ssada_core.data.samples import Samples, Subset, check_sizes
from ssada_core.errors import DataError
from ssada_core.labels import IGNORE, LabelSpace

Progress = Callable[[int, int], None]
MAX_PROBLEMS = 20
"""Problems that are kept word for word; the rest is counted."""


@dataclass
class DataReport:
    """What was found in a data set.

    Attributes:
        frames: how many there are.
        labelled: how many have a label that can be read.
        unlabelled: how many have none.
        sizes: frames by size, "WxH".
        pixels: int64 ``[C]``, labelled pixels per class.
        problems: what must be mended, one line each, the first :data:`MAX_PROBLEMS`.
        problem_count: how many there are.
        notes: what is worth knowing and no error.
    """

    frames: int
    pixels: NDArray[np.int64]
    labelled: int = 0
    unlabelled: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    notes: list[str] = field(default_factory=list)

    def problem(self, words: str) -> None:
        """Count a problem, and keep its words while there are few."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(words)

    def to_dict(self, label_space: LabelSpace) -> dict[str, Any]:
        """Plain values for JSON; the histogram also as shares of the labelled pixels, in percent."""
        total = max(int(self.pixels.sum()), 1)
        return {
            "frames": self.frames,
            "labelled": self.labelled,
            "unlabelled": self.unlabelled,
            "sizes": dict(self.sizes.most_common()),
            "pixels": {name: int(count) for name, count in zip(label_space.classes, self.pixels, strict=True)},
            "percent": {
                name: round(100 * int(count) / total, 3)
                for name, count in zip(label_space.classes, self.pixels, strict=True)
            },
            "problem_count": self.problem_count,
            "problems": self.problems,
            "notes": self.notes,
        }


def check_data(
    samples: Samples, label_space: LabelSpace, *, needs_labels: bool, on_progress: Progress | None = None
) -> DataReport:
    """Read every frame and label of a data set.

    Args:
        samples: the data set.
        label_space: the classes it was opened with.
        needs_labels: whether frames without a label are a problem even where none has one.
        on_progress: called with (frames done, frames in all).
    """
    report = DataReport(len(samples), np.zeros(label_space.num_classes, np.int64))
    seen: set[int] = set()
    for index in range(len(samples)):
        try:
            _check_frame(samples, index, report, seen)
        except DataError as error:
            report.problem(str(error))
        if on_progress is not None:
            on_progress(index + 1, len(samples))
    _judge_labels(report, needs_labels)
    _judge_ids(samples, report, label_space, seen)
    return report


def _check_frame(samples: Samples, index: int, report: DataReport, seen: set[int]) -> None:
    name, image = samples.name(index), samples.image(index)
    report.sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1
    files, number = _origin(samples, index)
    if isinstance(files, FileSamples):
        raw = files.raw_label(number)
        ids = set() if raw is None else {int(value) for value in np.flatnonzero(np.bincount(raw.ravel()))}
        seen |= ids
        wrong = sorted(ids - files.label_space.known_ids)
        if wrong:
            raise DataError(
                f"{name}: its label holds ids {', '.join(map(str, wrong))} that label space "
                f"'{files.label_space.name}' does not know: relabel them, or give the label space the files are in"
            )
    label = samples.label(index)
    if label is None:
        report.unlabelled += 1
        return
    check_sizes(name, image, label)
    report.labelled += 1
    counts, classes = np.bincount(label.ravel(), minlength=256), len(report.pixels)
    report.pixels += counts[:classes]
    outside = [index for index in range(classes, IGNORE) if counts[index]]
    if outside:
        raise DataError(
            f"{name}: its label holds class ids {', '.join(map(str, outside))}, but there are {classes} classes: "
            f"classes count from 0, and {IGNORE} is unlabelled"
        )


def _origin(samples: Samples, index: int) -> tuple[Samples, int]:
    """Where a frame is kept, however many choices of frames lie in between."""
    while isinstance(samples, Subset):
        samples, index = samples.origin(index)
    return samples, index


def _judge_labels(report: DataReport, needs_labels: bool) -> None:
    if report.frames == 0:
        report.problem("there are no frames: check the list or the folder")
    elif report.unlabelled and (report.labelled or needs_labels):
        report.problem(
            f"{report.unlabelled} of {report.frames} frames have no label: unpack the rest of the labels, "
            "or name these frames as data.unlabelled"
        )
    elif report.unlabelled:
        report.notes.append("no frame has a label: good for data.unlabelled only")
    elif report.labelled and not report.pixels.any():
        report.problem("every pixel is unlabelled: the labels are dummies or in another label space")
    if len(report.sizes) > 1:
        report.notes.append(f"frames have {len(report.sizes)} sizes: training resizes all to the network's input size")


def _judge_ids(samples: Samples, report: DataReport, label_space: LabelSpace, seen: set[int]) -> None:
    files = _origin(samples, 0)[0] if len(samples) else samples
    mapped = isinstance(files, FileSamples) and files.label_space.id_map
    if mapped and seen - {255} and max(mapped) >= label_space.num_classes > max(seen - {255}):
        report.notes.append(
            f"no id is above {max(seen - {255})}: if the files hold class ids already (train ids), open them with a "
            "YAML label space without id_map"
        )
    absent = [name for name, count in zip(label_space.classes, report.pixels, strict=True) if not count]
    if report.pixels.any() and absent:
        report.notes.append(f"classes without a pixel: {', '.join(absent)}")
