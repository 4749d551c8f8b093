"""Textures of the simulated drive, painted once per seed: facades, ground, foliage, sky and grain.

Colours are BGR as in daylight; a fourth channel, where there is one, is a mask (0 or 255).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.data.samples import Array
from ssada_core.data.simulated_world import ROAD_EDGE, WALK_EDGE
from ssada_core.labels import CAMVID

Floats = NDArray[np.float32]
Numbers = NDArray[np.floating]
Generator = np.random.Generator

GROUND_PERIOD = 48.0
"""The ground's pattern repeats after so many metres."""
GROUND_HALF = 16.0
"""The ground is painted up to so many metres to each side; beyond is more of the same."""

_SCALE = 16  # facade pixels per metre
_PLASTER = ((150, 190, 212), (172, 200, 205), (92, 108, 168), (120, 150, 190), (178, 178, 172), (140, 176, 222))
_BRICK = ((62, 74, 138), (70, 92, 150), (84, 100, 128), (66, 80, 112))
_AWNING = ((40, 40, 170), (60, 120, 40), (140, 70, 30), (30, 140, 200), (110, 40, 90))


@dataclass(frozen=True)
class Facade:
    """A painted wall.

    Attributes:
        levels: uint8 h×w×4, each half the size of the one before.
        height: of the wall, metres.
        color: its mean colour, for the walls around the corner.
    """

    levels: tuple[Array, ...]
    height: float
    color: tuple[float, float, float]


@dataclass(frozen=True)
class GroundLevel:
    """The ground at one resolution.

    Attributes:
        image: uint8 rows (along the road) × columns (across), BGR; one period and the reach beyond it.
        across: pixels per metre across the road.
        along: pixels per metre along the road.
        reach: metres ahead of any position in the period that ``image`` still covers.
    """

    image: Array
    across: float
    along: float
    reach: float


def cloud_noise(random: Generator, height: int, width: int, cell: int, octaves: int = 4) -> Floats:
    """Smooth noise in 0..1, float32 height×width, that repeats across its width."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = max(cell >> octave, 2)
        rows, columns = max(height // size, 2), max(width // size, 2)
        grid = random.random((rows, columns)).astype(np.float32)
        wrapped = np.concatenate([grid[:, -2:], grid, grid[:, :2]], axis=1)
        full = cv2.resize(wrapped, (width * (columns + 4) // columns, height), interpolation=cv2.INTER_CUBIC)
        edge = (full.shape[1] - width) // 2
        total += full[:, edge : edge + width] * np.float32(0.5**octave)
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) / (high - low), np.float32)


def vector(values: Sequence[float]) -> Floats:
    """A colour to calculate with, float32."""
    return np.asarray(values, np.float32)


def to_bytes(values: NDArray[np.floating]) -> Array:
    """Round and clip to uint8."""
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def pyramid(image: Array, levels: int) -> tuple[Array, ...]:
    """``image`` and its halvings."""
    found = [image]
    for _ in range(levels - 1):
        height, width = found[-1].shape[:2]
        found.append(np.asarray(cv2.resize(found[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)))
    return tuple(found)


def facades(random: Generator, count: int, *, night: bool) -> list[Facade]:
    """Paint ``count`` house fronts. Day and night fronts of one generator state are the same houses."""
    return [_facade(random, number, night=night) for number in range(count)]


def _facade(random: Generator, number: int, *, night: bool) -> Facade:
    floors, bays = int(random.integers(2, 6)), int(random.integers(3, 6))
    storey, bay = 3 * _SCALE, 3 * _SCALE
    height, width = floors * storey + 12, bays * bay
    brick = number % 5 < 2
    base = np.asarray((_BRICK if brick else _PLASTER)[number % (4 if brick else 6)], np.float32)
    wall = base * (0.88 + 0.24 * cloud_noise(random, height, width, 40))[..., None]
    if brick:
        _lay_bricks(random, wall)
    wall[:8] *= 0.75  # the cornice
    wall *= np.linspace(1.05, 0.9, height, dtype=np.float32)[:, None, None]
    if night:
        # Street lamps light the lower storeys, more orange than the sky's blue remainder.
        lamp = np.linspace(0.15, 1.0, height, dtype=np.float32)[:, None, None]
        wall *= vector((0.15, 0.12, 0.11)) + lamp * vector((0.07, 0.14, 0.22))
    painted = to_bytes(wall)
    frame = (225, 228, 230) if random.random() < 0.6 else (60, 66, 74)
    shop = bool(random.random() < 0.5)
    door = int(random.integers(bays))
    for floor in range(floors):
        for column in range(bays):
            top, left = 12 + floor * storey, column * bay
            ground = floor == floors - 1
            kind = "door" if ground and column == door else "shop" if ground and shop else "window"
            _opening(random, painted[top : top + storey, left : left + bay], kind, frame, night=night)
    mean = painted.reshape(-1, 3).mean(axis=0)
    opaque = np.dstack([painted, np.full(painted.shape[:2], 255, np.uint8)])
    return Facade(pyramid(opaque, 4), height / _SCALE, (float(mean[0]), float(mean[1]), float(mean[2])))


def _lay_bricks(random: Generator, wall: Floats) -> None:
    height, width = wall.shape[:2]
    tone = random.normal(1.0, 0.09, (height // 4 + 1, width // 8 + 1)).astype(np.float32)
    wall *= np.kron(tone, np.ones((4, 8), np.float32))[:height, :width, None]
    wall[3::4] *= 1.15


def _opening(random: Generator, cell: Array, kind: str, frame: tuple[int, int, int], *, night: bool) -> None:
    width = cell.shape[1]
    lit, tone, curtain = random.random(), float(random.uniform(0.75, 1.15)), random.random()
    awning = _AWNING[int(random.integers(len(_AWNING)))]
    left, right, top, bottom = {
        "window": (13, 35, 9, 37), "shop": (3, 45, 14, 44), "door": (15, 33, 10, 48)
    }[kind]  # fmt: skip
    dim = 0.25 if night else 1.0
    cell[top - 2 : bottom + 2, left - 2 : right + 2] = to_bytes(vector(frame) * dim)
    glass = np.linspace(1.25, 0.7, bottom - top, dtype=np.float32)[:, None, None] * vector((132, 112, 92)) * tone
    if kind == "door":
        glass = np.broadcast_to(vector(awning) * 0.6 * tone, glass.shape)
    elif night and lit < (0.75 if kind == "shop" else 0.3):
        glass = glass * 0 + vector((120, 205, 250) if curtain < 0.7 else (215, 225, 225)) * tone
        dim = 1.0
    elif curtain < 0.35:
        glass = glass * 0.5 + vector((95, 100, 104))
    cell[top:bottom, left:right] = to_bytes(glass * dim)
    if kind == "window":
        cell[top:bottom, (left + right) // 2] = to_bytes(vector(frame) * dim * 0.9)
        cell[bottom : bottom + 3, left - 4 : right + 4] = to_bytes(vector(frame) * dim * 0.8)
    elif kind == "shop":
        cell[4:12, 1 : width - 1] = to_bytes(vector(awning) * max(dim, 0.5))


def fences(random: Generator) -> tuple[tuple[Array, ...], ...]:
    """Three fences (white pickets, iron bars, boards) and a hedge as the fourth, uint8 h×w×4, 1.2 m × 6 m."""
    found = []
    for light, dark, bar in (
        ((205, 212, 215), (96, 112, 104), 8),
        ((56, 58, 60), (92, 110, 100), 4),
        ((72, 104, 138), (44, 62, 84), 10),
    ):
        image = np.empty((40, 240, 4), np.uint8)
        image[...] = (*dark, 255)
        for left in range(0, 240, 12):
            image[:, left : left + bar, :3] = to_bytes(vector(light) * random.uniform(0.88, 1.06))
        image[5:9, :, :3] = light
        image[30:34, :, :3] = to_bytes(vector(light) * 0.9)
        found.append(pyramid(image, 4))
    tone = 0.35 + 0.9 * cloud_noise(random, 40, 240, 10)
    leaves = to_bytes(tone[..., None] * vector((48, 110, 72)))
    found.append(pyramid(np.dstack([leaves, np.full((40, 240), 255, np.uint8)]), 4))
    return tuple(found)


def crowns(random: Generator, count: int) -> list[tuple[Array, ...]]:
    """Crowns of trees, uint8 128×128×4 and their halvings."""
    grid = np.linspace(-1, 1, 128, dtype=np.float32)
    radius = grid[None, :] ** 2 + (grid[:, None] * 1.05) ** 2
    found = []
    for number in range(count):
        shape = 0.82 - radius + 0.75 * (cloud_noise(random, 128, 128, 32, 5) - 0.5)
        mask = np.where((shape > 0) & (radius < 0.97), 255, 0).astype(np.uint8)
        leaves = cloud_noise(random, 128, 128, 14, 3)
        light = 0.35 + 0.75 * leaves + 0.28 * (-grid[:, None]) - 0.12 * grid[None, :]
        tint = vector(((42, 112, 74), (40, 100, 92), (52, 96, 60), (34, 118, 104))[number % 4])
        found.append(pyramid(np.dstack([to_bytes(light[..., None] * tint), mask]), 4))
    return found


def ground_labels(across: int = 40) -> Array:
    """Class of the ground by ``u``, uint8 1×n, ``across`` entries per metre from -GROUND_HALF on."""
    u = np.abs((np.arange(int(2 * GROUND_HALF * across)) + 0.5) / across - GROUND_HALF)
    label = np.where(u < ROAD_EDGE, CAMVID.index("road"), CAMVID.index("sidewalk"))
    return np.where(u > WALK_EDGE, CAMVID.index("tree"), label).astype(np.uint8)[None]


def ground_levels(random: Generator) -> list[GroundLevel]:
    """The ground from near (fine) to far (coarse)."""
    across, along = 40, 20
    period = _paint_ground(random, across, along)
    levels = []
    for fine, long, reach in ((40, 20, 9.0), (20, 6, 26.0), (8, 2, 90.0), (4, 1, 420.0)):
        size = (int(2 * GROUND_HALF * fine), int(GROUND_PERIOD * long))
        image = np.asarray(cv2.resize(period, size, interpolation=cv2.INTER_AREA))
        rows = int((GROUND_PERIOD + reach) * long) + 2
        repeated = np.concatenate([image] * (rows // len(image) + 1))[:rows]
        levels.append(GroundLevel(np.ascontiguousarray(repeated), float(fine), float(long), reach))
    return levels


def _paint_ground(random: Generator, across: int, along: int) -> Array:
    rows, columns = int(GROUND_PERIOD * along), int(2 * GROUND_HALF * across)
    u = (np.arange(columns, dtype=np.float32) + 0.5) / across - np.float32(GROUND_HALF)
    z = (np.arange(rows, dtype=np.float32) + 0.5) / along
    patches = cloud_noise(random, rows, columns, 120)
    grain = random.normal(0, 1, (rows, columns)).astype(np.float32)
    road = 92 + 18 * (patches - 0.5) + 6.5 * grain
    road -= 9 * np.exp(-(((np.abs(np.abs(u) - 1.7) - 0.8) / 0.3) ** 2))  # worn by wheels
    image = road[..., None] * vector((1.03, 1.0, 0.98))
    dashes = (np.abs(u) < 0.07)[None, :] & (z % 6.0 < 3.0)[:, None]
    parking = (np.abs(np.abs(u) - 3.3) < 0.05)[None, :] & (z % 2.0 < 1.0)[:, None]
    zebra = (np.abs(u) < 5.0)[None, :] & (u % 1.0 < 0.5)[None, :] & ((z > 30.0) & (z < 33.2))[:, None]
    image[dashes | parking | zebra] = (184, 190, 192)
    _paint_sidewalk(random, image, u, z, grain)
    lawn = np.abs(u) > WALK_EDGE
    image[:, lawn] = (0.55 + 0.7 * patches[:, lawn] + 0.1 * grain[:, lawn])[..., None] * vector((58, 122, 96))
    return to_bytes(image)


def _paint_sidewalk(random: Generator, image: Floats, u: Numbers, z: Numbers, grain: Floats) -> None:
    slabs = random.normal(0, 5, (int(GROUND_PERIOD) + 1, 64)).astype(np.float32)
    walk = (np.abs(u) >= ROAD_EDGE) & (np.abs(u) <= WALK_EDGE)
    columns = np.floor((u[walk] + np.float32(GROUND_HALF)) / 0.8).astype(int) % 64
    tone = 148 + slabs[np.floor(z).astype(int)][:, columns] + 3.5 * grain[:, walk]
    tone[z % 1.0 < 0.06] -= 26
    tone[:, ((u[walk] + np.float32(GROUND_HALF)) % 0.8) < 0.04] -= 22
    image[:, walk] = tone[..., None] * vector((0.95, 1.0, 1.04))
    kerb = (np.abs(u) >= ROAD_EDGE) & (np.abs(u) < ROAD_EDGE + 0.22)
    image[:, kerb] = (178 + 6 * grain[:, kerb])[..., None]
    gutter = (np.abs(u) < ROAD_EDGE) & (np.abs(u) > ROAD_EDGE - 0.14)
    image[:, gutter] *= 0.72
