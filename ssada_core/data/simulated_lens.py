"""Lens and sensor of the simulated drive: blur, bloom, grain, rain streaks and droplets."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import cv2
import numpy as np

from ssada_core.data.samples import Array
from ssada_core.data.simulated_textures import to_bytes

_REFERENCE = 384.0  # blur and streaks are described for frames of this height
_MARGIN = 96  # how far the grain can be shifted
_BRIGHT = np.maximum(np.arange(256) - 200, 0).astype(np.uint8)  # what shines rather than is shone on


@dataclass(frozen=True)
class Lens:
    """What happens to the light on its way to the pixels.

    Attributes:
        bright: grain that is added, uint8, larger than the frame by the margin.
        dim: grain that is taken away.
        streaks: falling rain to add, one or no tile.
        blur: standard deviation of the blur, pixels.
        bloom: how strongly bright lights glare.
        drops: number of droplets on the lens.
        contrast: gain and offset at the end.
    """

    bright: Array
    dim: Array
    streaks: Array | None
    blur: float
    bloom: float
    drops: int
    contrast: tuple[float, float]

    def expose(self, image: Array, chance: Random) -> Array:
        """Turn a clean picture (uint8 H×W×3) into a photographed one.

        Args:
            image: is overwritten.
            chance: of this frame.
        """
        if self.bloom:
            _glare(image, self.bloom)
        if self.blur:
            cv2.GaussianBlur(image, (0, 0) if self.blur > 1.5 else (3, 3), self.blur, image)
        if self.streaks is not None:
            cv2.add(image, _window(self.streaks, image.shape, chance), image)
        for _ in range(self.drops):
            _droplet(image, chance)
        if self.contrast != (1.0, 0.0):
            cv2.convertScaleAbs(image, image, *self.contrast)
        cv2.add(image, _window(self.bright, image.shape, chance), image)
        return np.asarray(cv2.subtract(image, _window(self.dim, image.shape, chance), image))


def make_lens(random: np.random.Generator, domain: str, size: tuple[int, int]) -> Lens:
    """The lens of a domain, for frames of ``size`` (height, width)."""
    sharp = size[0] / _REFERENCE
    noise = {"day": 2.5, "night": 7.5, "rain": 4.0}[domain]
    shape = (size[0] + _MARGIN, size[1] + _MARGIN, 3)
    grain = random.normal(0.0, noise, shape) * 0.7 + random.normal(0.0, noise, (*shape[:2], 1)) * 0.7
    return Lens(
        bright=to_bytes(grain),
        dim=to_bytes(-random.permutation(grain.ravel()).reshape(shape) if domain == "day" else -grain),
        streaks=_rain(random, shape, sharp) if domain == "rain" else None,
        blur=max({"day": 0.55, "night": 0.9, "rain": 0.8}[domain] * min(sharp, 1.5), 0.3),
        bloom=1.0 if domain == "night" else 0.0,
        drops=14 if domain == "rain" else 0,
        contrast=(0.9, 6.0) if domain == "night" else (0.82, 24.0) if domain == "rain" else (1.0, 0.0),
    )


def _rain(random: np.random.Generator, shape: tuple[int, int, int], sharp: float) -> Array:
    tile = np.zeros(shape, np.uint8)
    for _ in range(int(shape[0] * shape[1] / (420 * max(sharp, 0.5) ** 2))):
        x, y = int(random.integers(shape[1])), int(random.integers(shape[0]))
        length = float(random.uniform(8, 26)) * sharp
        tone = float(random.uniform(10, 42))
        cv2.line(tile, (x, y), (int(x + 0.12 * length), int(y + length)), (tone, tone * 0.97, tone * 0.95), 1)
    return np.asarray(cv2.blur(tile, (1, 3)))


def _window(tile: Array, shape: tuple[int, ...], chance: Random) -> Array:
    top, left = chance.randrange(_MARGIN), chance.randrange(_MARGIN)
    return tile[top : top + shape[0], left : left + shape[1]]


def _glare(image: Array, strength: float) -> None:
    """Spread what shines rather than is shone on, narrowly and widely."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(width // 4, 2), max(height // 4, 2)), interpolation=cv2.INTER_AREA)
    bright = cv2.LUT(small, _BRIGHT)
    near = cv2.GaussianBlur(bright, (0, 0), max(height / 250, 0.5))
    wide = cv2.blur(cv2.blur(bright, (width // 28 | 1, height // 18 | 1)), (width // 28 | 1, height // 18 | 1))
    glow = cv2.addWeighted(near, 3.2 * strength, wide, 10.0 * strength, 0)
    cv2.add(image, cv2.resize(glow, (width, height), interpolation=cv2.INTER_LINEAR), image)


def _droplet(image: Array, chance: Random) -> None:
    """A drop on the lens: what is behind it, upside down and blurred."""
    height, width = image.shape[:2]
    radius = int(chance.uniform(0.008, 0.028) * height) + 1
    x, y = chance.randrange(radius, width - radius), chance.randrange(radius, height - radius)
    area = image[y - radius : y + radius, x - radius : x + radius]
    bent = cv2.convertScaleAbs(cv2.blur(cv2.flip(area, 0), (radius | 1, radius | 1)), None, 0.9, 22)
    mask = np.zeros(area.shape[:2], np.uint8)
    cv2.circle(mask, (radius, radius), radius - 1, 255, cv2.FILLED)
    cv2.copyTo(bent, mask, area)
