"""Who drives: frames in, masks out. Directly, with engines in this process, or over ROS (``ssada_ros.drive``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.annotation.submit import SubmitResult
from ssada_core.data.samples import Array
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.replay.recording import DriveFrame
from ssada_core.store.pool import FrameRecord

Answerer = Callable[[FrameRecord], Array | None]
"""Gives the label of a frame that was asked for, or None to leave the query open."""


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


class RosDriver(Driver, Protocol):
    """A driver over ROS, which may lose frames.

    Attributes:
        published: frames played onto the topics.
        dropped: of these, how many got no mask.
        longest_gap_s: longest time between two masks; None before the second.
        seen: what the nodes said of themselves.
    """

    published: int
    dropped: int
    longest_gap_s: float | None
    seen: RosLog


@dataclass
class RosLog:
    """What was seen of the nodes from outside. Times are seconds of the drive.

    Attributes:
        models: by their ``~/model`` messages, in order: version, and the stamp of its first mask by camera.
        arrivals: by camera: stamp of each mask, and when it arrived, seconds of a monotonic clock.
        queries: id of each query, and when it came.
        results: what became of each answer, by the query's id.
        rounds: when each round began and ended, and the decision.
        promotions: version, time and reason of each announcement but the first, which says what is in use.
    """

    models: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    arrivals: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    queries: dict[str, float] = field(default_factory=dict)
    results: dict[str, SubmitResult] = field(default_factory=dict)
    rounds: list[tuple[float, float, dict[str, Any]]] = field(default_factory=list)
    promotions: list[tuple[str, float, str]] = field(default_factory=list)

    def version_at(self, camera: str, stamp_ns: int, first: str) -> str:
        """The model that made a mask; ``first`` before any message."""
        version = first
        for name, stamps in self.models:
            if stamps.get(camera, stamp_ns + 1) <= stamp_ns:
                version = name
        return version

    def swap_gaps_s(self) -> list[float]:
        """Time without a mask at every swap, from the old model's last to the new one's first; the longest camera's."""
        gaps: dict[int, float] = {}
        swap, before = 0, ""
        for name, stamps in self.models:
            swap += bool(before) and name != before
            before = name
            for camera, first_ns in stamps.items() if swap else ():
                masks = self.arrivals.get(camera, [])
                index = next((number for number, (stamp_ns, _) in enumerate(masks) if stamp_ns >= first_ns), 0)
                if index:
                    gaps[swap] = max(gaps.get(swap, 0.0), masks[index][1] - masks[index - 1][1])
        return list(gaps.values())


@dataclass(frozen=True)
class RosRequest:
    """What a driver over ROS needs.

    Attributes:
        out: folder for parameters and logs.
        model_dir: the deployed model.
        version: its version.
        cameras: name of each camera, and whether it sends ``CompressedImage``.
        engine: how the node runs the model.
        speed: of the replay; 1 is the recording's own pace.
        reliability: with which the node subscribes to the cameras.
        log: gets a line for what takes a while.
        adaptation: settings of an adaptation node beside it; None for none.
        answer: gives the label of a frame that was asked for.
    """

    out: Path
    model_dir: Path
    version: str
    cameras: Mapping[str, bool]
    engine: EngineSettings
    speed: float
    reliability: Literal["best_effort", "reliable"]
    log: Callable[[str], None]
    adaptation: AdaptationSettings | None = None
    answer: Answerer | None = None


OpenRos = Callable[[RosRequest], RosDriver]
"""Starts the nodes; ``ssada_ros`` brings it, because this package knows no ROS."""


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
