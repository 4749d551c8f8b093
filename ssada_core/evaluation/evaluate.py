"""Run a model over labelled frames and keep what it did on each of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssada_core.data.resized import resize_label
from ssada_core.data.samples import Array, Samples, check_sizes
from ssada_core.errors import EngineError
from ssada_core.evaluation.metrics import Matrix, confusion, iou, miou, pixel_accuracy
from ssada_core.inference.engine import Engine, Prediction
from ssada_core.labels import LabelSpace

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


@dataclass(frozen=True)
class Evaluation:
    """What a model did on N labelled frames, in the drive's order.

    Attributes:
        names: the frames' names, N of them.
        matrices: int64 ``[N, C, C]``, one confusion matrix per frame (rows ground truth).
        histograms: int64 ``[N, C]``, predicted pixels per class, unlabelled pixels included.
        latencies_s: float64 ``[N]``, seconds of each ``infer`` call on one frame.
        finite: whether every uncertainty was a finite number (NaN logits show there).
        skipped: frames without a label, which were not run.
    """

    names: tuple[str, ...]
    matrices: Matrix
    histograms: Matrix
    latencies_s: NDArray[np.float64]
    finite: bool
    skipped: int

    @property
    def matrix(self) -> Matrix:
        """The confusion matrix of the whole set, int64 ``[C, C]``."""
        return np.asarray(self.matrices.sum(axis=0))

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU per class in [0, 1], float64 ``[C]``; NaN where the class is absent from the ground truth."""
        return iou(self.matrix)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes present in the ground truth, in percent (METHOD §9)."""
        return miou(self.matrix)

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels that are right, in percent."""
        return pixel_accuracy(self.matrix)

    def summary(self, label_space: LabelSpace) -> dict[str, Any]:
        """Plain figures for JSON: percent throughout, None where there is nothing to measure."""
        latency = np.percentile(self.latencies_s * 1e3, [50, 99]) if self.latencies_s.size else [np.nan, np.nan]
        return {
            "frames": len(self.names),
            "skipped": self.skipped,
            "miou": _plain(self.miou),
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "iou": {name: _plain(100 * value) for name, value in zip(label_space.classes, self.iou, strict=True)},
            "latency_ms": {"p50": _plain(latency[0]), "p99": _plain(latency[1])},
            "finite": self.finite,
        }


def evaluate(engine: Engine, samples: Samples, num_classes: int, *, on_progress: Progress | None = None) -> Evaluation:
    """Compare an engine's labels with the ground truth, frame by frame, at the frame's own size.

    An engine that answers at the network's size has its labels enlarged by nearest neighbour, so that
    the ground truth is never resampled.

    Args:
        engine: a loaded model.
        samples: frames; those without a label are skipped and counted.
        num_classes: C of the label space.
        on_progress: called after every frame.

    Raises:
        DataError: if a frame or label cannot be read, or their sizes differ.
        EngineError: if the engine fails or answers with another number of predictions.
        LabelError: if a predicted or true id is outside ``[0, C)``.
    """
    names: list[str] = []
    matrices: list[Matrix] = []
    histograms: list[Matrix] = []
    latencies: list[float] = []
    finite = True
    for index in range(len(samples)):
        target = samples.label(index)
        if target is not None:
            image, name = samples.image(index), samples.name(index)
            check_sizes(name, image, target)
            prediction, seconds = _timed_infer(engine, image)
            label = resize_label(prediction.label, target.shape[:2])
            names.append(name)
            matrices.append(confusion(label, target, num_classes))
            histograms.append(np.bincount(label.ravel(), minlength=num_classes))
            latencies.append(seconds)
            finite = finite and bool(np.isfinite(prediction.uncertainty))
        if on_progress is not None:
            on_progress(index + 1, len(samples))
    return Evaluation(
        names=tuple(names),
        matrices=np.asarray(matrices, np.int64).reshape(-1, num_classes, num_classes),
        histograms=np.asarray([counts[:num_classes] for counts in histograms], np.int64).reshape(-1, num_classes),
        latencies_s=np.asarray(latencies, np.float64),
        finite=finite,
        skipped=len(samples) - len(names),
    )


def _timed_infer(engine: Engine, image: Array) -> tuple[Prediction, float]:
    start = time.perf_counter()
    predictions = engine.infer([image])
    seconds = time.perf_counter() - start
    if len(predictions) != 1:
        raise EngineError(f"{engine.backend} answered one frame with {len(predictions)} predictions")
    return predictions[0], seconds


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
