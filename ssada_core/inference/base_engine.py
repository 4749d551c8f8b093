"""What all engines share: checking and resizing frames, the life of the model, sizes of the answers."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.data.resized import resize_label
from ssada_core.errors import EngineError
from ssada_core.inference.engine import EngineSettings, Prediction

Array = NDArray[np.uint8]
AREA_FROM = 2.0
"""Frames that shrink by more than this are averaged (INTER_AREA): bilinear would skip pixels."""


class RawOutput(NamedTuple):
    """One frame's outputs as the backend holds them; valid until its next call."""

    label: Array
    confidence: Array
    uncertainty: NDArray[np.float32]
    features: NDArray[np.float32]


class FrameEngine(ABC):
    """Implements :class:`ssada_core.inference.engine.Engine` over one backend's :meth:`_run`."""

    def __init__(self, backend: str, size: tuple[int, int], settings: EngineSettings, *, batch: int = 1) -> None:
        self._backend, self._size = backend, size
        self._precision, self._at_frame_size = settings.precision, settings.output_size == "frame"
        self._lock = threading.Lock()
        self._closed = False
        self._buffer: Array = np.zeros((batch, *size, 3), np.uint8)

    @property
    def backend(self) -> str:
        """Such as ``openvino``."""
        return self._backend

    @property
    def precision(self) -> str:
        """Such as ``fp32``."""
        return self._precision

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width the network runs at."""
        return self._size

    def infer(self, frames: Sequence[Array], *, features: bool = False) -> list[Prediction]:
        """Segment frames, each uint8 H×W×3 BGR of any size, as many at once as the engine takes.

        Results own their memory.

        Raises:
            EngineError: if a frame has another shape or type, or the engine is closed.
            BackendError: if the backend fails.
        """
        with self._lock:
            if self._closed:
                raise EngineError(f"the {self._backend} engine is closed: load the model again")
            at_once = len(self._buffer)
            parts = [frames[start : start + at_once] for start in range(0, len(frames), at_once)]
            return [prediction for part in parts for prediction in self._predict(part, features)]

    def close(self) -> None:
        """Wait for a running ``infer`` and free the model; further calls do nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._release()

    @abstractmethod
    def _run(self, count: int) -> Sequence[RawOutput]:
        """Segment the first ``count`` frames of ``self._buffer``.

        Raises:
            BackendError: if the backend fails.
        """

    @abstractmethod
    def _release(self) -> None:
        """Drop everything that holds the model's memory."""

    def _warm_up(self) -> None:
        """Run once, so that the first frame is not slow, and check what comes out.

        Raises:
            EngineError: if the model's outputs are not those of a deployed graph.
        """
        output = self._run(len(self._buffer))[0]
        expected = self._size
        if output.label.shape != expected or output.confidence.shape != expected or output.features.ndim != 1:
            raise EngineError(
                f"the {self._backend} model answers label {output.label.shape}, confidence {output.confidence.shape}, "
                f"features {output.features.shape}; expected {expected} twice and a vector: export it again"
            )

    def _check_input(self, found: Sequence[object]) -> None:
        expected = [1, *self._size, 3]
        if list(found) != expected:
            raise EngineError(
                f"the {self._backend} model takes {list(found)}, the manifest's network size needs {expected} "
                "(uint8 BGR): export it again"
            )

    def _predict(self, frames: Sequence[Array], features: bool) -> list[Prediction]:
        for frame, place in zip(frames, self._buffer, strict=False):
            check_frame(frame)
            fit(frame, place)
        start = time.perf_counter()
        outputs = self._run(len(frames))
        seconds = (time.perf_counter() - start) / len(frames)
        return [
            Prediction(
                label=self._answer(output.label, frame),
                confidence=self._answer(output.confidence, frame),
                uncertainty=float(np.clip(output.uncertainty, 0.0, 1.0)),
                features=output.features.astype(np.float32) if features else None,
                engine_s=seconds,
            )
            for output, frame in zip(outputs, frames, strict=True)
        ]

    def _answer(self, plane: Array, frame: Array) -> Array:
        """A copy at the size that was asked for; never resized by anything that mixes class ids."""
        if not self._at_frame_size or frame.shape[:2] == self._size:
            return plane.copy()
        return resize_label(plane, (frame.shape[0], frame.shape[1]))


def check_frame(frame: Array) -> None:
    """Refuse what is not a colour image.

    Raises:
        EngineError: naming the shape and type found.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise EngineError(f"a frame is a uint8 array H×W×3 (BGR), got {found}: convert it first")
    if frame.size == 0:
        raise EngineError(f"a frame has no pixels (shape {frame.shape}): check its source")


def fit(frame: Array, buffer: Array) -> None:
    """Write ``frame`` into ``buffer``, both uint8 ·×·×3, resized if the sizes differ."""
    if frame.shape == buffer.shape:
        np.copyto(buffer, frame)
        return
    shrink = max(frame.shape[0] / buffer.shape[0], frame.shape[1] / buffer.shape[1])
    interpolation = cv2.INTER_AREA if shrink > AREA_FROM else cv2.INTER_LINEAR
    cv2.resize(frame, (buffer.shape[1], buffer.shape[0]), dst=buffer, interpolation=interpolation)
