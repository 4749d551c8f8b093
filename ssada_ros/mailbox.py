"""The latest frame of each camera, handed to one inference thread in turn.

Queues are where lag grows: here a newer frame replaces the one that waits, and the loss is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Delivery:
    """A frame on its way to the engine.

    Attributes:
        camera: name of the camera.
        message: the serialised ROS message, as it came off the wire.
        received_ns: monotonic time of its arrival in nanoseconds.
        compressed: whether the message is a ``CompressedImage``; a camera may change while it runs.
    """

    camera: str
    message: bytes
    received_ns: int
    compressed: bool = False


@dataclass(frozen=True)
class CameraCounts:
    """What became of one camera's frames.

    Attributes:
        received: how many arrived.
        dropped: how many a newer one replaced before they were served.
        last_ns: monotonic time of the last arrival in nanoseconds; 0 before the first.
        limited: how many came sooner than the rate that was asked for allows, and were not kept.
    """

    received: int
    dropped: int
    last_ns: int
    limited: int = 0


@dataclass
class _Box:
    """One camera's place: what waits, what was counted, and when it is its turn."""

    weight: float = 1.0
    waiting: Delivery | None = None
    received: int = 0
    dropped: int = 0
    limited: int = 0
    last_ns: int = 0
    due_ns: int = 0
    turn: float = 0.0


class FrameMailbox:
    """Holds at most one frame a camera; cameras are served in turn. Safe from any thread.

    The turn is fair queueing: each frame served moves its camera back by one over its weight, and who waits longest
    in that count is next. With equal weights that is one after the other; a camera of weight 2 is served twice as
    often as one of weight 1 while both have frames waiting, and none is ever left out.
    """

    def __init__(self, cameras: Sequence[str]) -> None:
        self._boxes = {camera: _Box() for camera in cameras}
        self._now = 0.0
        self._interval_ns = 0
        self._closed = False
        self._changed = threading.Condition()

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change how often cameras are served against each other; each weight is above 0."""
        with self._changed:
            for camera, weight in weights.items():
                self._boxes[camera].weight = weight

    def set_rate(self, rate_hz: float) -> None:
        """Keep at most so many frames a second of each camera; 0 for no limit."""
        with self._changed:
            self._interval_ns = round(1e9 / rate_hz) if rate_hz > 0 else 0
            for box in self._boxes.values():
                box.due_ns = 0

    def put(self, delivery: Delivery) -> None:
        """Leave a frame; one that still waits is replaced and counted as dropped. After :meth:`close` it is ignored."""
        with self._changed:
            if self._closed:
                return
            box = self._boxes[delivery.camera]
            box.received += 1
            box.last_ns = delivery.received_ns
            if not self._admit(box, delivery.received_ns):
                box.limited += 1
                return
            if box.waiting is not None:
                box.dropped += 1
            else:  # who had nothing to serve does not save up turns
                box.turn = max(box.turn, self._now)
            box.waiting = delivery
            self._changed.notify()

    def take(self, timeout_s: float) -> Delivery | None:
        """The next camera's frame in turn, or None after ``timeout_s`` or :meth:`close`."""
        with self._changed:
            if not self._closed and all(box.waiting is None for box in self._boxes.values()):
                self._changed.wait(timeout_s)
            ready = [box for box in self._boxes.values() if box.waiting is not None]
            if not ready:
                return None
            box = min(ready, key=lambda one: one.turn)
            delivery, box.waiting = box.waiting, None
            self._now = box.turn
            box.turn += 1.0 / box.weight
            return delivery

    def counts(self, camera: str) -> CameraCounts:
        """Counts since the start."""
        with self._changed:
            box = self._boxes[camera]
            return CameraCounts(box.received, box.dropped, box.last_ns, box.limited)

    def close(self) -> None:
        """Wake up whoever waits; what was not served is gone."""
        with self._changed:
            self._closed = True
            for box in self._boxes.values():
                box.waiting = None
            self._changed.notify_all()

    def _admit(self, box: _Box, now_ns: int) -> bool:
        """Whether a frame is due; it may come half an interval early, so that a jittering camera keeps its rate."""
        if not self._interval_ns:
            return True
        if now_ns < box.due_ns - self._interval_ns // 2:
            return False
        box.due_ns = max(box.due_ns, now_ns) + self._interval_ns
        return True
