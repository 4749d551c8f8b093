"""Drawing of the simulated drive's still parts: projection, sky, ground, walls and sprites.

A canvas is uint8 H×W×4: three colours and the class id. Whatever draws a pixel's colour draws its class
in the same stroke, so labels are exact by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.data.samples import Array
from ssada_core.data.simulated_light import Light
from ssada_core.data.simulated_textures import GROUND_HALF, GROUND_PERIOD, GroundLevel, vector
from ssada_core.data.simulated_world import Road, Thing
from ssada_core.labels import CAMVID

Ink = tuple[float, float, float, int]
Points = NDArray[np.floating]

HORIZON = 0.46
"""The horizon's mean height in the frame, as a share from the top."""
EYE = 1.4
"""Height of the camera above the road, metres."""

_NEAR = 0.9
_FAR = 400.0
_SHIFT = 4  # fractional bits of polygon corners
_LIMIT = 9000.0  # corners further out than this many pixels are brought in
_LIGHT_STEP = 4  # the ground's light is computed on every fourth pixel
_UNIT = 150.0  # value of the light map that leaves colours as they are
_IS_ROAD = np.where(np.arange(256) == CAMVID.index("road"), 255, 0).astype(np.uint8)


class Camera:
    """The pinhole camera at one moment.

    Args:
        road: where it drives.
        time: seconds.
        size: height and width of the frame, pixels.
    """

    def __init__(self, road: Road, time: float, size: tuple[int, int]) -> None:
        height, width = size
        self.size = size
        self.focal = 0.8 * width
        self.place = road.travelled(time)
        self.sideways, yaw, pitch = road.sway(time)
        self.heading = road.slope(self.place) + yaw
        self.center = 0.5 * width
        self.horizon = HORIZON * height + self.focal * pitch
        self.ground_row = int(self.horizon + self.focal * EYE / _FAR) + 1
        """The first row of pixels that the ground fills; above it is sky."""
        self._road = road
        self._origin = float(road.offset(self.place)) + self.sideways

    def lateral(self, z: Points) -> Points:
        """How far the road's centre line at ``z`` is to the right of the camera's axis, metres."""
        return np.asarray(self._road.offset(z) - self._origin - self.heading * (z - self.place))

    def project(self, x: Points, y: Points, depth: Points) -> NDArray[np.float64]:
        """Pixels (N×2: across, down) of points ``x`` right of the axis, ``y`` above the road, ``depth`` ahead."""
        scale = self.focal / np.maximum(depth, 0.6)
        return np.stack([self.center + x * scale, self.horizon + (EYE - y) * scale], axis=-1)


def corners(points: Points) -> NDArray[np.int32]:
    """Fixed-point corners for OpenCV."""
    return (np.clip(points, -_LIMIT, _LIMIT) * (1 << _SHIFT)).astype(np.int32)


def fill(canvas: Array, points: Points, ink: Ink) -> None:
    """Fill a convex polygon of pixels N×2."""
    cv2.fillConvexPoly(canvas, corners(points), ink, cv2.LINE_8, _SHIFT)


@dataclass(frozen=True)
class Ground:
    """The road and what is beside it.

    Attributes:
        levels: painted ground, from fine to coarse.
        label: class by position across, uint8 1×n.
    """

    levels: list[GroundLevel]
    label: Array

    def draw(self, canvas: Array, camera: Camera, light: Light, shadows: list[Points]) -> None:
        """Draw everything below the horizon.

        Args:
            canvas: to draw on.
            camera: seen from here.
            light: that falls on it.
            shadows: convex polygons of pixels that lie in shadow.
        """
        height, width = canvas.shape[:2]
        first = camera.ground_row
        rows = np.arange(first, height)
        depth = camera.focal * EYE / (rows + 0.5 - camera.horizon)
        shift = camera.lateral(camera.place + depth)
        across = ((np.arange(width) + 0.5 - camera.center) / camera.focal).astype(np.float32)
        u = across[None, :] * depth[:, None].astype(np.float32) - shift[:, None].astype(np.float32)
        image = self._colors(u, depth, camera)
        label = cv2.remap(
            self.label, (u + np.float32(GROUND_HALF)) * np.float32(self.label.shape[1] / (2 * GROUND_HALF)) - 0.5,
            np.zeros_like(u), cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        self._shine(image, first, camera, light, shadows)
        cv2.merge([*cv2.split(image), label], canvas[first:])

    def _colors(self, u: NDArray[np.float32], depth: Points, camera: Camera) -> Array:
        image = np.empty((*u.shape, 3), np.uint8)
        place = camera.place % GROUND_PERIOD
        end = len(depth)
        for number, level in enumerate(self.levels):
            # A level serves down to where it would be enlarged more than the next finer one is reduced.
            wanted = camera.focal / level.across * 1.4
            begin = 0 if number == len(self.levels) - 1 else int(np.searchsorted(-depth, -min(wanted, level.reach)))
            if begin < end:
                part = slice(begin, end)
                x = (u[part] + np.float32(GROUND_HALF)) * np.float32(level.across) - np.float32(0.5)
                y = np.repeat(((place + depth[part]) * level.along).astype(np.float32)[:, None], u.shape[1], axis=1)
                cv2.remap(level.image, x, y, cv2.INTER_LINEAR, image[part], cv2.BORDER_REPLICATE)
            end = min(begin, end)
        return image

    @staticmethod
    def _shine(image: Array, first: int, camera: Camera, light: Light, shadows: list[Points]) -> None:
        """Multiply by the light and add the haze."""
        height, width = image.shape[:2]
        small = (max(width // _LIGHT_STEP, 2), max(height // _LIGHT_STEP, 2))
        rows = first + (np.arange(small[1]) + 0.5) * (height / small[1])
        depth = camera.focal * EYE / (rows - camera.horizon)
        columns = (np.arange(small[0]) + 0.5) * (width / small[0])
        x = (columns[None, :] - camera.center) / camera.focal * depth[:, None]
        z = camera.place + depth
        share = light.haze_share(depth)[:, None, None]
        gain = light.gain(x, depth[:, None], x - camera.lateral(z)[:, None], z[:, None]) * (1 - share) * _UNIT
        shade = np.full((small[1], small[0]), 255, np.uint8)
        scale = np.array([small[0] / width, small[1] / height])
        for points in shadows:
            cv2.fillConvexPoly(shade, corners((points - (0, first)) * scale), 255 * light.shadow, cv2.LINE_8, _SHIFT)
        gain *= cv2.blur(shade, (3, 3))[..., None] * np.float32(1 / 255)
        full = cv2.resize(np.minimum(gain, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.multiply(image, full, image, 1 / _UNIT)
        haze = np.broadcast_to(share * vector(light.haze), gain.shape).astype(np.uint8)
        cv2.add(image, cv2.resize(haze, (width, height), interpolation=cv2.INTER_LINEAR), image)


def ground_patch(camera: Camera, z: tuple[float, float], u: tuple[float, float]) -> Points | None:
    """Pixels of a rectangle on the road, or None where it is not wholly ahead."""
    if z[0] < camera.place + _NEAR:
        return None
    ends = np.array([z[0], z[0], z[1], z[1]])
    x = camera.lateral(ends) + np.array([u[0], u[1], u[1], u[0]])
    return camera.project(x, np.zeros(4), ends - camera.place)


def draw_wall(
    canvas: Array, camera: Camera, levels: tuple[Array, ...], thing: Thing, height: float, table: Array
) -> None:
    """Draw a textured upright wall along the road, from the road's level to ``height`` metres."""
    begin, end = max(thing.z, camera.place + _NEAR), thing.z + thing.length
    if end - begin < 0.2:
        return
    z = np.array([begin, end, end, begin])
    quad = camera.project(camera.lateral(z) + thing.u, np.array([height, height, 0.0, 0.0]), z - camera.place)
    box = _visible_box(quad, canvas.shape)
    if box is None:
        return
    left, top, right, bottom = box
    seen = max(abs(quad[1, 0] - quad[0, 0]) * (quad[3, 1] - quad[0, 1] + quad[2, 1] - quad[1, 1]) / 2, 1.0)
    share = (end - begin) / thing.length
    texels = levels[0].shape[0] * levels[0].shape[1] * share
    level = levels[min(max(int(0.5 * math.log2(texels / seen) + 0.3), 0), len(levels) - 1)]
    rows, columns = level.shape[:2]
    start = (1 - share) * columns
    source = np.array([(start, 0), (columns, 0), (columns, rows), (start, rows)], np.float32)
    matrix = cv2.getPerspectiveTransform(source, (quad - (left, top)).astype(np.float32))
    size = (right - left, bottom - top)
    patch = cv2.warpPerspective(level, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillConvexPoly(mask, corners(quad - (left, top)), 255, cv2.LINE_8, _SHIFT)
    cv2.copyTo(cv2.LUT(patch, table), mask, canvas[top:bottom, left:right])


def draw_sprite(canvas: Array, levels: tuple[Array, ...], box: tuple[float, float, float, float], table: Array) -> None:
    """Draw a texture with a mask into the pixels ``box`` (left, top, right, bottom)."""
    quad = np.array([(box[0], box[1]), (box[2], box[3])])
    seen = _visible_box(quad, canvas.shape)
    if seen is None:
        return
    left, top, right, bottom = seen
    across = box[2] - box[0]
    level = levels[min(max(int(math.log2(levels[0].shape[1] / across) + 0.3), 0), len(levels) - 1)]
    scale = across / level.shape[1], (box[3] - box[1]) / level.shape[0]
    matrix = np.array([[scale[0], 0, box[0] - left], [0, scale[1], box[1] - top]])
    patch = cv2.warpAffine(level, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    _, mask = cv2.threshold(cv2.extractChannel(patch, 3), 127, 255, cv2.THRESH_BINARY)
    cv2.copyTo(cv2.LUT(patch, table), mask, canvas[top:bottom, left:right])


def _visible_box(points: Points, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    low, high = points.min(axis=0), points.max(axis=0)
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]) + 2, shape[1]), min(int(high[1]) + 2, shape[0])
    return (left, top, right, bottom) if right > left and bottom > top else None


def mirror_on_road(canvas: Array, camera: Camera, share: float) -> None:
    """Blend what is above the horizon, upside down and smeared, into the wet road."""
    middle = int(camera.horizon) + 1
    below = canvas[middle:]
    above = cv2.resize(canvas[:middle], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    smeared = cv2.flip(cv2.blur(above, (5, 15)), 0)
    full = cv2.resize(smeared, (canvas.shape[1], len(below)), interpolation=cv2.INTER_LINEAR)
    label = cv2.extractChannel(below, 3)
    blend = cv2.addWeighted(below, 1 - share, full, share, 0)
    cv2.copyTo(cv2.insertChannel(label, blend, 3), cv2.LUT(label, _IS_ROAD), below)
