"""A simulated drive along a street, by day, at night and in rain, with exact labels.

No camera and no data set is needed to see the package work. The street is drawn with OpenCV at camera
rate on one core; the labels are in the ``camvid`` space. A frame is a pure function of seed, size, rate,
index and domain: any frame, in any order, in any process, with the same bytes for the same version of
OpenCV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import cv2
import numpy as np

from ssada_core.data.samples import Array
from ssada_core.data.simulated_lens import make_lens
from ssada_core.data.simulated_light import LIGHTS, Light, shades
from ssada_core.data.simulated_objects import DRAW_STREET, Stage
from ssada_core.data.simulated_scene import Camera, Ground, Points, ground_patch, mirror_on_road
from ssada_core.data.simulated_sky import make_panorama
from ssada_core.data.simulated_textures import (
    crowns,
    facades,
    fences,
    ground_labels,
    ground_levels,
)
from ssada_core.data.simulated_traffic import DRAW_TRAFFIC
from ssada_core.data.simulated_world import Road, Thing, visible
from ssada_core.errors import ConfigError, DataError
from ssada_core.settings import nearest

DOMAINS = ("day", "night", "rain")
"""Weather and light; the same index shows the same scene in each, with the same label."""


class SimulatedDrive:
    """An endless seeded street, driven along at some 8 m/s.

    Args:
        seed: of the street: its houses, cars and people, and the road's bends.
        size: height and width of the frames, pixels, each at least 32.
        rate: frames per second.

    Raises:
        ConfigError: if the size or the rate makes no picture.
    """

    def __init__(self, seed: int = 0, size: tuple[int, int] = (384, 640), rate: float = 5.0) -> None:
        if min(size) < 32:
            raise ConfigError(f"simulated drive: size {size[0]}x{size[1]} is too small: at least 32x32")
        if not (math.isfinite(rate) and rate > 0):
            raise ConfigError(f"simulated drive: rate is {rate}: frames per second are above 0")
        self.seed = seed
        self.size = size
        self.rate = rate
        self._road = Road(seed)
        self._studios: dict[str, _Studio] = {}

    def frame(self, index: int, domain: str = "day") -> tuple[Array, Array]:
        """Render one frame.

        Args:
            index: which frame, from 0 on.
            domain: one of :data:`DOMAINS`.

        Returns:
            the image, uint8 H×W×3 BGR, and its label, uint8 H×W of ``camvid`` ids. Both are the caller's.

        Raises:
            ConfigError: if there is no such domain.
            DataError: if ``index`` is negative.
        """
        if domain not in DOMAINS:
            raise ConfigError(f"simulated drive: unknown domain '{domain}'{nearest(domain, list(DOMAINS))}")
        if index < 0:
            raise DataError(f"simulated drive: frame {index} does not exist: frames count from 0")
        if domain not in self._studios:
            self._studios[domain] = _Studio(self.seed, self.size, domain)
        return self._studios[domain].render(self._road, index, index / self.rate)


class _Studio:
    """Everything painted once for a domain, and the rendering of one moment with it."""

    def __init__(self, seed: int, size: tuple[int, int], domain: str) -> None:
        self._seed, self._size, self._domain = seed, size, domain
        self._light: Light = LIGHTS[domain]
        # One generator per kind of texture: what a domain adds to one leaves the others as they are.
        self._ground = Ground(ground_levels(np.random.default_rng([seed % 2**63, 1])), ground_labels())
        self._facades = facades(np.random.default_rng([seed % 2**63, 2]), 12, night=self._light.dark)
        self._fences = fences(np.random.default_rng([seed % 2**63, 3]))
        self._crowns = crowns(np.random.default_rng([seed % 2**63, 4]), 8)
        self._panorama = make_panorama(np.random.default_rng([seed % 2**63, 5]), domain, self._light, size)
        self._lens = make_lens(np.random.default_rng([seed % 2**63, 6]), domain, size)

    def render(self, road: Road, index: int, time: float) -> tuple[Array, Array]:
        """Draw the scene at ``time`` and photograph it."""
        camera = Camera(road, time, self._size)
        sides, street = visible(self._seed, road, time)
        canvas = np.empty((*self._size, 4), np.uint8)
        self._panorama.draw(canvas, camera)
        self._ground.draw(canvas, camera, self._light, self._shadows(camera, street))
        self._draw(canvas, camera, sides + street)
        if self._light.wet:
            mirror_on_road(canvas, camera, self._light.wet)
        label = np.asarray(cv2.extractChannel(canvas, 3), np.uint8)
        image = np.asarray(cv2.cvtColor(canvas, cv2.COLOR_BGRA2BGR), np.uint8)
        return self._lens.expose(image, Random(f"lens/{self._seed}/{self._domain}/{index}")), label

    def _draw(self, canvas: Array, camera: Camera, things: list[Thing]) -> None:
        stage = Stage(canvas, camera, self._light, self._facades, self._fences, self._crowns)
        things = [
            thing for thing in things if thing.kind in _LONG or thing.z > camera.place + _NEAREST.get(thing.kind, 1.2)
        ]
        z = np.array([thing.z + (thing.length / 2 if thing.kind in _LONG else 0.0) for thing in things])
        u = np.array([thing.u for thing in things])
        depth = np.maximum(z - camera.place, 2.0)
        for thing, shade in zip(things, shades(self._light, camera.lateral(z) + u, depth, u, z), strict=True):
            _DRAW[thing.kind](stage, thing, shade)

    def _shadows(self, camera: Camera, street: list[Thing]) -> list[Points]:
        found = []
        for thing in street:
            if thing.kind == "car":
                patch = ground_patch(camera, (thing.z - 0.3, thing.z + 4.6), (thing.u - 1.0, thing.u + 1.3))
            elif thing.kind == "tree" and self._light.tree_shadows:
                half = 0.3 * thing.length
                middle = thing.u + 1.6
                patch = ground_patch(camera, (thing.z - half, thing.z + half), (middle - half, middle + half))
            else:
                continue
            if patch is not None:
                found.append(patch)
        return found


_DRAW = DRAW_STREET | DRAW_TRAFFIC
_LONG = frozenset({"building", "fence", "hedge", "car"})
_NEAREST = {"bicyclist": 2.2, "tree": 2.0} | dict.fromkeys(
    _LONG, -math.inf
)  # metres ahead where these begin to be drawn


class SimulatedSamples:
    """Frames of a drive as a collection; each is rendered when it is asked for.

    Args:
        drive: the drive.
        domain: one of :data:`DOMAINS`.
        indices: which of its frames, in this order.

    Raises:
        ConfigError: if there is no such domain.
    """

    def __init__(self, drive: SimulatedDrive, domain: str, indices: Sequence[int]) -> None:
        if domain not in DOMAINS:
            raise ConfigError(f"simulated drive: unknown domain '{domain}'{nearest(domain, list(DOMAINS))}")
        self._drive = drive
        self._domain = domain
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        """Domain and frame of the drive, such as ``night-000123``."""
        return f"{self._domain}-{self._indices[index]:06d}"

    def image(self, index: int) -> Array:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self._drive.frame(self._indices[index], self._domain)[0]

    def label(self, index: int) -> Array:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self._drive.frame(self._indices[index], self._domain)[1]
