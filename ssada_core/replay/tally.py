"""The sums of a replay: per stretch of the drive and series, in memory that hardly grows with the drive."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssada_core.evaluation.metrics import Matrix, confusion, iou, miou, pixel_accuracy
from ssada_core.replay.driver import Served

_NANOSECONDS = 1_000_000_000


@dataclass
class Curve:
    """Points over the drive, one per frame: seconds and value."""

    seconds: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, seconds: float, value: float) -> None:
        """Append a point."""
        self.seconds.append(seconds)
        self.values.append(value)

    def points(self) -> list[tuple[float, float]]:
        """As pairs."""
        return list(zip(self.seconds, self.values, strict=True))

    def mean(self) -> float | None:
        """Mean value; None without points."""
        return float(np.mean(self.values)) if self.values else None

    def __bool__(self) -> bool:
        return bool(self.values)


class Series:
    """What one series of answers amounts to.

    Attributes:
        stretches: summed confusion matrices by stretch number.
        confidence: mean confidence of each frame.
        uncertainty: mean uncertainty of each frame.
        latency: milliseconds of each frame.
        miou: mIoU of each labelled frame on its own, percent.
        versions: frames answered by each model version, in the order of their first.
    """

    def __init__(self, num_classes: int) -> None:
        self._zero = np.zeros((num_classes, num_classes), np.int64)
        self.stretches: dict[int, Matrix] = {}
        self.confidence, self.uncertainty, self.latency, self.miou = Curve(), Curve(), Curve(), Curve()
        self.versions: dict[str, int] = {}

    @property
    def matrix(self) -> Matrix:
        """The confusion matrix of all labelled frames."""
        return np.asarray(sum(self.stretches.values(), start=self._zero))

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU per class in [0, 1]; NaN where a class is absent."""
        return iou(self.matrix)

    def mean_iou(self) -> float | None:
        """MIoU in percent; None without ground truth."""
        return finite(miou(self.matrix))

    def accuracy(self) -> float | None:
        """Share of labelled pixels that are right, in percent; None without ground truth."""
        return finite(pixel_accuracy(self.matrix))

    def add(self, stretch: int, matrix: Matrix) -> None:
        """Add a labelled frame's confusion matrix."""
        self.stretches[stretch] = self.stretches.get(stretch, self._zero) + matrix


@dataclass(frozen=True)
class Row:
    """One frame as it stands in ``frames.csv``."""

    camera: str
    stamp_ns: int
    series: str
    version: str
    miou: float | None
    confidence: float | None
    uncertainty: float | None
    mask_crc32: int

    HEADER = "camera,stamp_ns,series,version,miou,confidence,uncertainty,mask_crc32"

    def line(self) -> str:
        """Comma-separated; empty where a value is not known."""
        values = ["" if value is None else f"{value:.6f}" for value in (self.miou, self.confidence, self.uncertainty)]
        return ",".join([self.camera, str(self.stamp_ns), self.series, self.version, *values, str(self.mask_crc32)])


class Tally:
    """Adds up what is served.

    Attributes:
        series: by name, in order.
        frames: frames per stretch.
        labelled: frames with ground truth per stretch.
    """

    def __init__(self, names: Sequence[str], num_classes: int, stretch_s: float) -> None:
        self.series = {name: Series(num_classes) for name in names}
        self._classes = num_classes
        self._stretch_ns = max(1, round(stretch_s * _NANOSECONDS))
        self.frames: dict[int, int] = {}
        self.labelled: dict[int, int] = {}

    def stretch_of(self, stamp_ns: int, first_ns: int) -> int:
        """The stretch that a stamp lies in: a grid of equal stretches from the recording's first frame on."""
        return (stamp_ns - first_ns) // self._stretch_ns

    def add(self, served: Served, first_ns: int) -> list[Row]:
        """Add a frame's answers; returns its rows."""
        frame = served.frame
        stretch, seconds = self.stretch_of(frame.stamp_ns, first_ns), (frame.stamp_ns - first_ns) / 1e9
        self.frames[stretch] = self.frames.get(stretch, 0) + 1
        if frame.label is not None:
            self.labelled[stretch] = self.labelled.get(stretch, 0) + 1
        return list(self._rows(served, stretch, seconds))

    def _rows(self, served: Served, stretch: int, seconds: float) -> Iterator[Row]:
        frame = served.frame
        for (name, series), answer in zip(self.series.items(), served.answers, strict=True):
            series.versions[answer.version] = series.versions.get(answer.version, 0) + 1
            series.latency.add(seconds, answer.seconds * 1e3)
            if answer.confidence is not None:
                series.confidence.add(seconds, answer.confidence)
            if answer.uncertainty is not None:
                series.uncertainty.add(seconds, answer.uncertainty)
            own = None
            if frame.label is not None:
                matrix = confusion(answer.label, frame.label, self._classes)
                series.add(stretch, matrix)
                own = finite(miou(matrix))
                if own is not None:
                    series.miou.add(seconds, own)
            crc = zlib.crc32(np.ascontiguousarray(answer.label).data)
            yield Row(
                frame.camera, frame.stamp_ns, name, answer.version, own, answer.confidence, answer.uncertainty, crc
            )


def finite(value: float) -> float | None:
    """The value, or None where it is not a number."""
    return float(value) if np.isfinite(value) else None
