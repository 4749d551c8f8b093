"""Who drives: frames in, masks out. Directly, with engines in this process, or over ROS (``ssada_ros.drive``)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ssada_core.data.samples import Array
from ssada_core.inference.engine import Engine
from ssada_core.replay.recording import DriveFrame


@dataclass(frozen=True)
class Answer:
    """What one model said of a frame.

    Attributes:
        version: the model's version.
        label: uint8 H×W class ids, of the frame's size.
        confidence: mean over the frame of the largest class probability, in [0, 1]; None where it is not known.
        uncertainty: mean normalised entropy, in [0, 1]; None where it is not known.
        seconds: of the inference; over ROS from publishing the frame to receiving its mask.
    """

    version: str
    label: Array
    confidence: float | None
    uncertainty: float | None
    seconds: float


@dataclass(frozen=True)
class Served:
    """A frame with one answer for each series: the models compared, or what was driven and the first model."""

    frame: DriveFrame
    answers: tuple[Answer, ...]


class Driver(Protocol):
    """Takes the frames in order; what it serves may come later than its frame."""

    series: Sequence[str]
    """Names of the series of answers; the last one is what matters, those before it are compared with it."""

    def serve(self, frame: DriveFrame) -> Iterable[Served]:
        """Take a frame; returns what has been served since."""
        ...

    def finish(self) -> Iterable[Served]:
        """The drive is over; returns the rest."""
        ...

    def close(self) -> None:
        """Let go of everything. Closing twice is harmless."""
        ...


@dataclass(frozen=True)
class LoadedModel:
    """An engine with the version it runs."""

    version: str
    engine: Engine

    def answer(self, image: Array) -> Answer:
        """Segment a frame.

        Raises:
            EngineError: if the engine fails.
        """
        start = time.perf_counter()
        (prediction,) = self.engine.infer([image])
        seconds = time.perf_counter() - start
        confidence = float(prediction.confidence.mean()) / 255.0
        return Answer(self.version, prediction.label, confidence, prediction.uncertainty, seconds)


class DirectDriver:
    """Every model on every frame, one frame after another."""

    def __init__(self, names: Sequence[str], models: Sequence[LoadedModel]) -> None:
        """Take over the models; :meth:`close` closes them."""
        self.series: Sequence[str] = list(names)
        self._models = list(models)

    def serve(self, frame: DriveFrame) -> Iterable[Served]:
        """See :class:`Driver`."""
        return [Served(frame, tuple(model.answer(frame.image) for model in self._models))]

    def finish(self) -> Iterable[Served]:
        """See :class:`Driver`."""
        return []

    def close(self) -> None:
        """See :class:`Driver`."""
        for model in self._models:
            model.engine.close()
