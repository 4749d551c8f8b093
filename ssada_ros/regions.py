"""The part of a camera's frame that is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssada_core.data.samples import Array
from ssada_core.errors import ConfigError


@dataclass(frozen=True)
class Region:
    """A part of a frame in shares of its size, so that it means the same whatever size the camera sends."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the frame."""
        return self == WHOLE

    def pixels(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a frame of this size; at least one pixel."""
        return _span(self.top, self.bottom, height), _span(self.left, self.right, width)

    def crop(self, frame: Array) -> Array:
        """The part of a frame (H×W or H×W×3), as a view."""
        return frame if self.is_whole else frame[self.pixels(frame.shape[0], frame.shape[1])]

    def place(self, plane: Array, size: tuple[int, int], fill: int) -> Array:
        """A plane of the part, uint8, put where it belongs in one of the frame's size (height, width)."""
        if self.is_whole:
            return plane
        full = np.full(size, fill, np.uint8)
        full[self.pixels(*size)] = plane
        return full


WHOLE = Region()


def list_regions(values: Sequence[float], cameras: int) -> list[Region]:
    """One region a camera.

    Args:
        values: left, top, right, bottom; once, once a camera, or empty.
        cameras: how many there are.

    Raises:
        ConfigError: if there are not as many numbers, or they are no part of a frame.
    """
    if not values:
        return [WHOLE] * cameras
    if len(values) not in (4, 4 * cameras):
        raise ConfigError(f"regions has {len(values)} numbers for {cameras} cameras: give four, or four for each")
    corners = [tuple(values[start : start + 4]) for start in range(0, len(values), 4)]
    for left, top, right, bottom in corners:
        if not (0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0):
            raise ConfigError(
                f"regions: {left:g}, {top:g}, {right:g}, {bottom:g} is no part of a frame: "
                "give left < right and top < bottom, each from 0 to 1"
            )
    regions = [Region(*corner) for corner in corners]
    return regions * cameras if len(regions) == 1 else regions


def _span(start: float, end: float, size: int) -> slice:
    first = min(math.floor(start * size), size - 1)
    return slice(first, max(math.ceil(end * size), first + 1))
