"""Which frames are worth storing: a rate per camera, no standstill, no copies of what is there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.data.samples import Array

THUMBNAIL_SIZE = (12, 16)
"""Height and width of the grey thumbnails."""
THUMBNAIL_BYTES = THUMBNAIL_SIZE[0] * THUMBNAIL_SIZE[1]

_SLACK = 0.1
"""Share of the interval by which a frame may come early, so that a jittering 1 Hz camera is stored at 1 Hz."""


class RateLimiter:
    """At most ``rate`` frames per second of recorded time; a clock that jumps back starts anew."""

    def __init__(self, rate: float) -> None:
        self._interval = round(1e9 / rate)
        self._last: int | None = None
        self._due = 0

    def admit(self, stamp_ns: int) -> bool:
        """Whether the frame with this stamp is due; if so the next one is an interval later."""
        if self._last is None or self._last - stamp_ns > self._interval:
            self._due = stamp_ns
        elif stamp_ns < self._due - round(self._interval * _SLACK):
            return False
        # Counted from when it was due, not from when it came: the mean rate holds whatever the camera's own rate.
        behind = stamp_ns - self._due
        self._due = (self._due if behind < self._interval else stamp_ns) + self._interval
        self._last = stamp_ns
        return True


def thumbnail(image: Array) -> Array:
    """Grey thumbnail, uint8 [192], of a uint8 H×W×3 BGR frame."""
    height, width = THUMBNAIL_SIZE
    # Shrinking first: turning a large frame grey costs more than its whole thumbnail.
    small = cv2.resize(image, (width * 4, height * 4), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    tiny = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(tiny, np.uint8).reshape(-1)


class ThumbnailIndex:
    """The thumbnails of a camera's stored frames, compared with a new one in well under a millisecond per 10 000."""

    def __init__(self) -> None:
        self._ids = np.empty(0, np.int64)
        self._rows = np.empty((0, THUMBNAIL_BYTES), np.uint8)
        self._gone = np.empty(0, np.bool_)
        self._count = 0
        self.newest_id = 0
        """The highest frame id ever appended."""

    def append(self, frame_id: int, row: NDArray[np.uint8]) -> None:
        """Add a frame; ids must grow."""
        if self._count == len(self._ids):
            self._resize(np.arange(self._count), room=max(256, self._count))
        self._ids[self._count] = self.newest_id = frame_id
        self._rows[self._count] = row
        self._gone[self._count] = False
        self._count += 1

    def remove(self, frame_ids: Collection[int]) -> None:
        """Forget frames, such as evicted ones; unknown ids are fine."""
        wanted = np.fromiter(frame_ids, np.int64, len(frame_ids))
        self._gone[: self._count] |= np.isin(self._ids[: self._count], wanted)
        alive = np.flatnonzero(~self._gone[: self._count])
        if len(alive) < self._count // 2:
            self._resize(alive, room=256)

    def closest(self, row: NDArray[np.uint8]) -> tuple[int, float] | None:
        """Id of the most similar frame and the mean absolute difference in grey levels; None when empty."""
        if not self._count or self._gone[: self._count].all():
            return None
        differences = self._differences(self._rows[: self._count], row)
        differences[self._gone[: self._count]] = np.iinfo(np.int32).max
        best = int(differences.argmin())
        return int(self._ids[best]), float(differences[best]) / THUMBNAIL_BYTES

    def to_newest(self, row: NDArray[np.uint8]) -> float:
        """Mean absolute difference to the newest frame in grey levels; infinite when that is gone."""
        last = self._count - 1
        if last < 0 or self._gone[last]:
            return float("inf")
        return float(self._differences(self._rows[last : last + 1], row)[0]) / THUMBNAIL_BYTES

    @staticmethod
    def _differences(rows: NDArray[np.uint8], row: NDArray[np.uint8]) -> NDArray[np.int32]:
        absolute = cv2.absdiff(rows, np.broadcast_to(row, rows.shape))
        sums = cv2.reduce(absolute, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
        return np.asarray(sums, np.int32).reshape(-1)

    def _resize(self, keep: NDArray[np.int64], *, room: int) -> None:
        self._ids = np.concatenate([self._ids[keep], np.empty(room, np.int64)])
        self._rows = np.concatenate([self._rows[keep], np.empty((room, THUMBNAIL_BYTES), np.uint8)])
        self._gone = np.concatenate([self._gone[keep], np.zeros(room, np.bool_)])
        self._count = len(keep)


def judge(
    index: ThumbnailIndex, row: NDArray[np.uint8], *, standstill: float, duplicate: float
) -> tuple[Literal["standstill", "duplicate"], int] | None:
    """Whether a frame repeats a stored one, and which; None when it is new."""
    if index.to_newest(row) <= standstill:
        return "standstill", index.newest_id
    closest = index.closest(row)
    if closest is not None and closest[1] <= duplicate:
        return "duplicate", closest[0]
    return None
