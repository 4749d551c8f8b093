"""Light of the simulated drive: what day, night and rain do to colours, as gains and haze by place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssada_core.data.samples import Array
from ssada_core.data.simulated_textures import to_bytes, vector
from ssada_core.data.simulated_world import STRETCH

Color = tuple[float, float, float]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Light:
    """What illuminates a scene.

    Attributes:
        ambient: gain of colours far from any lamp, BGR.
        headlight: gain in the middle of the own headlights' beam, BGR.
        lamp: gain right below a street lamp, BGR.
        haze: colour that distance fades to, BGR.
        sight: metres at which haze has taken 63 % of a colour.
        sun: how much brighter walls on the left are than on the right, relative to their mean.
        shadow: gain of the ground in shadow.
        tree_shadows: whether trees cast shadows.
        wet: share of reflections on the road.
        dark: whether lamps are lit.
    """

    ambient: Color
    headlight: Color
    lamp: Color
    haze: Color
    sight: float
    sun: float
    shadow: float
    tree_shadows: bool
    wet: float
    dark: bool

    def gain(self, x: Floats, depth: Floats, u: Floats, z: Floats) -> Floats:
        """Gain of a colour by place, float N…×3.

        Args:
            x: metres to the right of the camera's axis.
            depth: metres ahead of the camera.
            u: metres to the right of the road's centre line.
            z: metres along the road.
        """
        gain = np.empty((*np.broadcast_shapes(x.shape, z.shape), 3), np.float32)
        gain[...] = self.ambient
        if self.dark:
            # A dipped beam: wide nearby, gone after some forty metres, nothing right below the bonnet.
            beam = np.exp(-((x / (1.6 + 0.24 * depth)) ** 2)) / (1.0 + (depth / 22.0) ** 2.4)
            beam *= 1.0 - 0.7 * np.exp(-depth / 5.0)
            gain += beam[..., None] * vector(self.headlight)
            pools = _pool(u - 6.0, z - 2.0) + _pool(u + 6.0, z - 16.0)
            gain += pools[..., None] * vector(self.lamp)
        return gain

    def haze_share(self, depth: Floats) -> Floats:
        """Share of the haze's colour at ``depth`` metres, 0..1."""
        return np.asarray(1.0 - np.exp(-depth / self.sight))


def _pool(across: Floats, along: Floats) -> Floats:
    swing = 0.5 + 0.5 * np.cos((2 * math.pi / STRETCH) * along)
    return np.asarray(swing**3 / (1.0 + (across / 4.5) ** 2))


LIGHTS: dict[str, Light] = {
    "day": Light(
        ambient=(1.0, 1.0, 1.0), headlight=(0, 0, 0), lamp=(0, 0, 0), haze=(224, 208, 196), sight=420.0,
        sun=0.16, shadow=0.52, tree_shadows=True, wet=0.0, dark=False,
    ),
    "night": Light(
        ambient=(0.21, 0.16, 0.14), headlight=(0.84, 0.96, 0.96), lamp=(0.1, 0.27, 0.4), haze=(34, 27, 26),
        sight=260.0, sun=0.0, shadow=0.62, tree_shadows=False, wet=0.0, dark=True,
    ),
    "rain": Light(
        ambient=(0.60, 0.55, 0.52), headlight=(0, 0, 0), lamp=(0, 0, 0), haze=(158, 152, 148), sight=78.0,
        sun=0.0, shadow=0.7, tree_shadows=False, wet=0.42, dark=False,
    ),
}  # fmt: skip
"""The domains' lights."""


@dataclass(frozen=True)
class Shade:
    """The light at one thing: a colour becomes colour × gain + offset.

    Attributes:
        gain: BGR.
        offset: the haze before the thing, BGR.
        clear: share of the colour that the haze leaves.
    """

    gain: Color
    offset: Color
    clear: float

    def ink(self, color: Color, label: int, factor: float = 1.0) -> tuple[float, float, float, int]:
        """What to draw with: the shaded colour and, as the fourth channel, the class."""
        blue, green, red = (
            min(255.0, value * gain * factor + offset)
            for value, gain, offset in zip(color, self.gain, self.offset, strict=True)
        )
        return blue, green, red, label

    def glow(self, color: Color, label: int) -> tuple[float, float, float, int]:
        """What to draw something with that shines by itself (or whose colour holds its light already)."""
        blue, green, red = (value * self.clear + offset for value, offset in zip(color, self.offset, strict=True))
        return blue, green, red, label

    def table(self, label: int, tint: float = 1.0, *, baked: bool = False) -> Array:
        """Look-up table uint8 1×256×4 for textures: three shaded colours and the class.

        Args:
            label: the class that the fourth channel becomes.
            tint: another gain, of the thing itself.
            baked: whether the texture holds its light already, so that only haze is to be added.
        """
        gain = vector((self.clear,) * 3 if baked else self.gain) * np.float32(tint)
        table = np.full((1, 256, 4), label, np.uint8)
        table[0, :, :3] = to_bytes(np.arange(256, dtype=np.float32)[:, None] * gain + vector(self.offset))
        return table


def shades(light: Light, x: Floats, depth: Floats, u: Floats, z: Floats) -> list[Shade]:
    """The shade at each of several places; the arguments are those of :meth:`Light.gain`, float N."""
    share = light.haze_share(depth)
    gains = (light.gain(x, depth, u, z) * (1.0 - share)[:, None]).tolist()
    offsets = (share[:, None] * vector(light.haze)).tolist()
    return [
        Shade((gain[0], gain[1], gain[2]), (offset[0], offset[1], offset[2]), 1.0 - hidden)
        for gain, offset, hidden in zip(gains, offsets, share.tolist(), strict=True)
    ]
