"""The kinds of frame sources: simulated, recorded (images, video, bag) and a camera of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from ssada_core.data.encodings import decode_compressed, displayed_size
from ssada_core.data.samples import Array
from ssada_core.data.simulated_drive import DOMAINS, SimulatedDrive
from ssada_core.errors import ConfigError, DataError
from ssada_core.settings import nearest


@dataclass
class SourceFrame:
    """One frame.

    Attributes:
        image: uint8 H×W×3 BGR, or None where ``jpeg`` is there.
        jpeg: the source's own JPEG bytes, or None.
        label: class ids and 255, uint8 H×W, or None.
        frame_id: as recorded; empty where the source names none.
    """

    image: Array | None = None
    jpeg: bytes | None = None
    label: Array | None = None
    frame_id: str = ""

    def decoded(self) -> Array:
        """The frame as uint8 H×W×3 BGR, decoded now if it is JPEG.

        Raises:
            DataError: if the JPEG is corrupt, or there is neither.
        """
        if self.image is not None:
            return self.image
        return decode_compressed(self.jpeg or b"")

    def size(self) -> tuple[int, int]:
        """Height and width in pixels, without decoding.

        Raises:
            DataError: if the JPEG is corrupt, or there is neither.
        """
        if self.image is not None:
            return self.image.shape[0], self.image.shape[1]
        return displayed_size(self.jpeg or b"")


class FrameSource(Protocol):
    """Gives frames one after another."""

    @property
    def has_labels(self) -> bool:
        """Whether frames may come with labels."""
        ...

    def next(self) -> SourceFrame | None:
        """The next frame, or None at the end.

        Raises:
            DataError: if it cannot be read.
        """
        ...

    def close(self) -> None:
        """Release what the source holds. Closing twice is harmless."""
        ...


class SimulatedSource:
    """A simulated drive. It never ends; the domain may change on the way."""

    has_labels = True

    def __init__(self, drive: SimulatedDrive, domain: str) -> None:
        """Start at the drive's first frame.

        Raises:
            ConfigError: if there is no such domain.
        """
        self._drive = drive
        self._index = 0
        self.set_domain(domain)

    def set_domain(self, domain: str) -> None:
        """Change light and weather from the next frame on; the drive goes on.

        Raises:
            ConfigError: if there is no such domain.
        """
        if domain not in DOMAINS:
            raise ConfigError(f"simulated drive: unknown domain '{domain}'{nearest(domain, list(DOMAINS))}")
        self.domain = domain

    def next(self) -> SourceFrame:
        """See :class:`FrameSource`."""
        image, label = self._drive.frame(self._index, self.domain)
        self._index += 1
        return SourceFrame(image=image, label=label)

    def close(self) -> None:
        """See :class:`FrameSource`."""


class RecordedSource:
    """Frames that end, played once or again and again."""

    def __init__(
        self, frames: Callable[[], Iterator[SourceFrame]], *, what: str, loop: bool, has_labels: bool = False
    ) -> None:
        """Read the first frame, so that what cannot be played is known at once.

        Args:
            frames: begins a pass over the frames.
            what: names the source in errors.
            loop: begin again at the end.
            has_labels: see :class:`FrameSource`.

        Raises:
            DataError: if the first frame cannot be read or there is none.
        """
        self.has_labels = has_labels
        self._begin = frames
        self._loop = loop
        self._frames = frames()
        self._first = next(self._frames, None)
        if self._first is None:
            raise DataError(f"{what} has no frames")

    def next(self) -> SourceFrame | None:
        """See :class:`FrameSource`."""
        frame, self._first = self._first, None
        if frame is None:
            frame = next(self._frames, None)
        if frame is None and self._loop:
            self._frames = self._begin()
            frame = next(self._frames, None)
        return frame

    def close(self) -> None:
        """See :class:`FrameSource`."""
        self._first, self._loop = None, False
        close = getattr(self._frames, "close", None)  # a generator lets go of its file
        if close is not None:
            close()


class DeviceSource:
    """A camera of this machine. It never ends unless it is unplugged."""

    has_labels = False

    def __init__(self, number: int, *, size: tuple[int, int], rate: float) -> None:
        """Open camera ``number`` and ask it for a size (height, width) and a rate; it may answer with its own.

        Raises:
            DataError: if there is no such camera or another program holds it.
        """
        self._number = number
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            self._capture.release()
            raise DataError(f"no camera {number} on this machine (/dev/video{number}), or another program holds it")
        wanted = {
            cv2.CAP_PROP_FRAME_HEIGHT: size[0],
            cv2.CAP_PROP_FRAME_WIDTH: size[1],
            cv2.CAP_PROP_FPS: rate,
            cv2.CAP_PROP_BUFFERSIZE: 1,  # the newest frame, not the oldest in the driver's queue
        }
        for key, value in wanted.items():
            self._capture.set(key, value)

    def next(self) -> SourceFrame:
        """See :class:`FrameSource`."""
        read, image = self._capture.read()
        if not read:
            raise DataError(f"camera {self._number} gave no frame: is it still plugged in?")
        return SourceFrame(image=np.asarray(image, np.uint8))

    def close(self) -> None:
        """See :class:`FrameSource`."""
        self._capture.release()
