"""Sky and skyline of the simulated drive, painted once per domain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ssada_core.data.samples import Array
from ssada_core.data.simulated_light import Light
from ssada_core.data.simulated_scene import HORIZON, Camera
from ssada_core.data.simulated_textures import Floats, Generator, cloud_noise, to_bytes, vector
from ssada_core.labels import CAMVID

_DISTANCE = 190.0  # metres to the skyline
_ZENITH = {"day": (214, 152, 98), "night": (34, 20, 14), "rain": (150, 144, 140)}
_LOW = {"day": (236, 222, 208), "night": (38, 36, 44), "rain": (172, 168, 164)}
_CLOUD = {"day": (246, 244, 242), "night": (44, 34, 32), "rain": (120, 114, 112)}


@dataclass(frozen=True)
class Panorama:
    """The sky and the skyline around, which only turn.

    Attributes:
        sky: uint8 h×w×4, as high as the frame's part above the horizon can become, twice as wide.
        skyline: uint8 h×w×4 of what stands far away, coloured and labelled.
        mask: uint8 h×w, where the skyline hides the sky.
    """

    sky: Array
    skyline: Array
    mask: Array

    def draw(self, canvas: Array, camera: Camera) -> None:
        """Draw both, turned by the camera's heading."""
        rows, width = max(int(camera.horizon) + 3, camera.ground_row), canvas.shape[1]
        spare = self.sky.shape[1] - width
        turn = min(max(spare // 2 + round(camera.focal * math.tan(camera.heading)), 0), spare)
        view = slice(turn, turn + width)
        canvas[:rows] = self.sky[len(self.sky) - rows :, view]
        high = min(len(self.mask), rows)
        cv2.copyTo(self.skyline[-high:, view], self.mask[-high:, view], canvas[rows - high : rows])


def make_panorama(random: Generator, domain: str, light: Light, size: tuple[int, int]) -> Panorama:
    """Paint a domain's panorama for frames of ``size``; one generator state gives all domains the same skyline."""
    width = 2 * size[1]
    skyline, mask = _skyline(random, light, max(int(0.17 * size[0]), 4), width)
    # The pitch moves the horizon by up to 0.0056 of the frame's width, and the ground begins 0.0028 below it.
    high = max(int((HORIZON + 0.04) * size[0]), int(HORIZON * size[0] + 0.009 * size[1])) + 4
    return Panorama(_sky(random, domain, high, width), skyline, mask)


def _sky(random: Generator, domain: str, height: int, width: int) -> Array:
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 1.4
    color = (1 - down) * vector(_ZENITH[domain]) + down * vector(_LOW[domain])
    clouds = cloud_noise(random, height, width, max(height // 2, 8), 5)
    cover = np.clip((clouds - (0.5 if domain == "day" else 0.35)) * 3.2, 0, 0.9)[..., None]
    painted = (1 - cover) * color + cover * vector(_CLOUD[domain]) * (0.86 + 0.14 * clouds[..., None])
    label = np.full((height, width), CAMVID.index("sky"), np.uint8)
    return np.dstack([to_bytes(painted), label])


def _skyline(random: Generator, light: Light, height: int, width: int) -> tuple[Array, Array]:
    trees = height * (0.3 + 0.3 * cloud_noise(random, 8, width, width // 24)[4])
    leaves = 0.4 + 0.7 * cloud_noise(random, height, width, max(height // 6, 2))
    color = leaves[..., None] * vector((48, 96, 70))
    down = height - np.arange(height, dtype=np.float32)[:, None]
    label = np.full((height, width), CAMVID.index("tree"), np.uint8)
    mask = down <= trees[None, :]
    lit = np.zeros((height, width), np.bool_)
    left = 0
    while left < width:
        span = int(random.uniform(0.25, 1.1) * height) + 2
        high = int(height * random.uniform(0.35, 0.95))
        tone = vector((126, 138, 152)) * random.uniform(0.6, 1.2)
        if random.random() < 0.55:
            block = (slice(height - high, height), slice(left, min(left + span, width)))
            color[block], label[block], mask[block] = tone, CAMVID.index("building"), True
            _windows(random, color[block], lit[block])
        left += span
    return _illuminate(color, label, lit, light), np.where(mask, 255, 0).astype(np.uint8)


def _windows(random: Generator, color: Floats, lit: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
    color[2::4, 1::3] *= 0.7
    lit[2::4, 1::3] = random.random(lit[2::4, 1::3].shape) < 0.2


def _illuminate(
    color: Floats, label: Array, lit: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], light: Light
) -> Array:
    hidden = float(light.haze_share(np.array(_DISTANCE)))
    shaded = color * vector(light.ambient) * (1 - hidden) + vector(light.haze) * hidden
    if light.dark:
        shaded[lit] = (70, 130, 165)
    return np.dstack([to_bytes(shaded), label])
