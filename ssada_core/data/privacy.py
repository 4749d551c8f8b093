"""Hiding faces, plates and whatever else nobody should keep, before a frame is stored.

What finds them is the user's choice: a Python function, a Haar cascade, or a network in ONNX. Where it cannot be loaded
or fails, nothing is kept: a frame that was not looked at is worth less than the promise that it was.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssada_core.data.compressed import decode_compressed, encode_jpeg
from ssada_core.data.samples import Array
from ssada_core.errors import PrivacyError, require
from ssada_core.settings import Settings

Boxes = NDArray[np.float64]
"""``[N, 4]``: left, top, width and height in pixels of the frame."""
Detector = Callable[[Array], Any]

_BLOCKS = 6
"""A hidden box keeps this many blocks along its longer side: enough for a network to see that something is there."""


class PrivacySettings(Settings):
    """What is hidden in frames before they are stored."""

    detectors: list[str] = Field(
        default_factory=list,
        description="What finds faces and plates: module:function, a Haar cascade (FILE.xml) or FILE.onnx. Where one "
        "fails nothing is stored. Empty: frames are stored as they are.",
    )
    method: Literal["pixelate", "blur", "fill"] = Field("pixelate", description="How what was found is hidden.")
    grow: float = Field(0.15, ge=0, le=2, description="Share of its size by which a found box is enlarged, each side.")
    min_score: float = Field(0.3, ge=0, le=1, description="Least score of a box, where a network in ONNX gives scores.")


class Hider:
    """Runs the detectors over frames and hides what they find; safe from several threads, one frame at a time."""

    def __init__(self, settings: PrivacySettings) -> None:
        """Prepare; detectors are loaded with the first frame, and again with the next one where that fails."""
        self._settings = settings
        self._lock = threading.Lock()
        self._detectors: list[Detector] | None = None

    @property
    def active(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._settings.detectors)

    def hide(self, image: Array) -> tuple[Array, int]:
        """Hide what the detectors find in a frame.

        Args:
            image: uint8 H×W×3 BGR; it is not changed.

        Returns:
            The frame to keep (``image`` itself where nothing was found), and how many boxes were hidden.

        Raises:
            PrivacyError: if a detector cannot be loaded or fails; then the frame must not be kept.
        """
        boxes = [box for box in self._find(image) if min(box[2:]) > 0]
        kept = image.copy() if boxes else image
        for box in boxes:
            self._cover(kept, box)
        return kept, len(boxes)

    def hide_jpeg(self, data: bytes, quality: int) -> bytes:
        """The same for a frame as JPEG bytes, which stay as they are where nothing is found.

        Raises:
            PrivacyError: as :meth:`hide`.
            EncodingError: if it cannot be decoded.
        """
        if not self.active:
            return data
        image, found = self.hide(decode_compressed(data))
        return encode_jpeg(image, quality) if found else data

    def _find(self, image: Array) -> Boxes:
        with self._lock:
            if self._detectors is None:
                self._detectors = [load_detector(name, self._settings.min_score) for name in self._settings.detectors]
            found = [
                _boxes(name, detector, image)
                for name, detector in zip(self._settings.detectors, self._detectors, strict=True)
            ]
        return np.concatenate([np.empty((0, 4)), *found])

    def _cover(self, image: Array, box: Boxes) -> None:
        left, top, width, height = box
        grow = self._settings.grow
        x0, x1 = _clip(left - grow * width, left + (1 + grow) * width, image.shape[1])
        y0, y1 = _clip(top - grow * height, top + (1 + grow) * height, image.shape[0])
        part = image[y0:y1, x0:x1]
        if part.size == 0:
            return
        if self._settings.method == "fill":
            part[:] = 0
            return
        longer = max(part.shape[:2])
        shape = tuple(max(1, round(_BLOCKS * side / longer)) for side in (part.shape[1], part.shape[0]))
        # Both throw the details away for good: a blur by a kernel alone can be undone.
        small = cv2.resize(part, shape, interpolation=cv2.INTER_AREA)
        smooth = cv2.INTER_LINEAR if self._settings.method == "blur" else cv2.INTER_NEAREST
        part[:] = cv2.resize(small, (part.shape[1], part.shape[0]), interpolation=smooth)


def load_detector(name: str, min_score: float) -> Detector:
    """Make a detector of what the settings name.

    Raises:
        PrivacyError: if there is no such thing, or it cannot be loaded.
    """
    if name.endswith(".onnx"):
        return _onnx(Path(name), min_score)
    if name.endswith(".xml"):
        return _haar(Path(name))
    module, separator, function = name.partition(":")
    if not separator:
        raise PrivacyError(f"privacy detector '{name}': give module:function, FILE.xml or FILE.onnx")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:
        raise PrivacyError(f"privacy detector '{name}' cannot be imported ({_say(error)}): install it") from error
    if not callable(found):
        raise PrivacyError(f"privacy detector '{name}' is no function: name one that takes a frame")
    detector: Detector = found
    return detector


def _haar(path: Path) -> Detector:
    if not path.is_file():
        raise PrivacyError(f"privacy detector '{path}' does not exist: give a Haar cascade in XML")
    try:
        cascade = cv2.CascadeClassifier(str(path))
    except (cv2.error, SystemError) as error:  # what OpenCV's bindings raise depends on the release
        raise PrivacyError(f"privacy detector '{path}' is no Haar cascade: give another file") from error
    if cascade.empty():
        raise PrivacyError(f"privacy detector '{path}' is no Haar cascade: give another file")

    def detect(image: Array) -> Any:  # noqa: ANN401 (whatever OpenCV gives is checked by the caller)
        return cascade.detectMultiScale(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), scaleFactor=1.1, minNeighbors=3)

    return detect


def _onnx(path: Path, min_score: float) -> Detector:
    """A network: uint8 ``[H, W, 3]`` BGR in; boxes ``[N, 4]`` and, where there are two outputs, scores ``[N]`` out."""
    if not path.is_file():
        raise PrivacyError(f"privacy detector '{path}' does not exist: give a file in ONNX")
    onnxruntime = require("onnxruntime", extra="onnxruntime", purpose="a privacy detector in ONNX")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the other cores are for the masks
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise PrivacyError(f"privacy detector '{path}' cannot be loaded ({_say(error)}): export it again") from error
    (frame,) = session.get_inputs()[:1]
    if "uint8" not in frame.type or len(frame.shape) != 3 or len(session.get_inputs()) != 1:
        raise PrivacyError(f"privacy detector '{path}' takes {frame.type} {frame.shape}: it must take uint8 [H, W, 3]")

    def detect(image: Array) -> Any:  # noqa: ANN401
        boxes, *scores = session.run(None, {frame.name: image})
        return boxes[np.asarray(scores[0]).reshape(-1) >= min_score] if scores else boxes

    return detect


def _boxes(name: str, detector: Detector, image: Array) -> Boxes:
    try:
        found = np.asarray(detector(image), np.float64).reshape(-1, 4)
    except Exception as error:
        raise PrivacyError(f"privacy detector '{name}' failed ({_say(error)}): the frame is not kept") from error
    if not np.isfinite(found).all():
        raise PrivacyError(f"privacy detector '{name}' found boxes that are not finite: the frame is not kept")
    return found


def _clip(low: float, high: float, limit: int) -> tuple[int, int]:
    return max(0, int(np.floor(low))), min(limit, int(np.ceil(high)))


def _say(error: BaseException) -> str:
    words: Sequence[str] = str(error).split()
    return f"{type(error).__name__}: {' '.join(words)[:200]}"
