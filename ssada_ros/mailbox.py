"""The latest frame of each camera, handed to one inference thread in turn.

Queues are where lag grows: here a newer frame replaces the one that waits, and the loss is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Delivery:
    """A frame on its way to the engine.

    Attributes:
        camera: name of the camera.
        message: the serialised ROS message, as it came off the wire.
        received_ns: monotonic time of its arrival in nanoseconds.
    """

    camera: str
    message: bytes
    received_ns: int


@dataclass(frozen=True)
class CameraCounts:
    """What became of one camera's frames.

    Attributes:
        received: how many arrived.
        dropped: how many a newer one replaced before they were served.
        last_ns: monotonic time of the last arrival in nanoseconds; 0 before the first.
    """

    received: int
    dropped: int
    last_ns: int


class FrameMailbox:
    """Holds at most one frame a camera; cameras are served in turn. Safe from any thread."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._cameras = list(cameras)
        self._waiting: dict[str, Delivery] = {}
        self._received = dict.fromkeys(self._cameras, 0)
        self._dropped = dict.fromkeys(self._cameras, 0)
        self._last_ns = dict.fromkeys(self._cameras, 0)
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, delivery: Delivery) -> None:
        """Leave a frame; one that still waits is replaced and counted as dropped. After :meth:`close` it is ignored."""
        with self._changed:
            if self._closed:
                return
            self._received[delivery.camera] += 1
            self._last_ns[delivery.camera] = delivery.received_ns
            if delivery.camera in self._waiting:
                self._dropped[delivery.camera] += 1
            self._waiting[delivery.camera] = delivery
            self._changed.notify()

    def take(self, timeout_s: float) -> Delivery | None:
        """The next camera's frame in turn, or None after ``timeout_s`` or :meth:`close`."""
        with self._changed:
            if not self._waiting and not self._closed:
                self._changed.wait(timeout_s)
            for offset in range(len(self._cameras)):
                position = (self._next + offset) % len(self._cameras)
                delivery = self._waiting.pop(self._cameras[position], None)
                if delivery is not None:
                    self._next = (position + 1) % len(self._cameras)
                    return delivery
            return None

    def counts(self, camera: str) -> CameraCounts:
        """Counts since the start."""
        with self._changed:
            return CameraCounts(self._received[camera], self._dropped[camera], self._last_ns[camera])

    def close(self) -> None:
        """Wake up whoever waits; what was not served is gone."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
