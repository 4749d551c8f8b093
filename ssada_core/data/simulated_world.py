"""The world of the simulated drive: an endless seeded street and what moves on it.

Coordinates follow the road: ``z`` metres along it, ``u`` metres to the right of its centre line, ``y``
metres above it. Everything is a pure function of (seed, place) or (seed, time), so that any frame can be
rendered without the ones before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROAD_EDGE = 5.6
"""Half the carriageway, kerb to kerb: a lane of 3.2 m and a parking strip of 2.4 m on each side."""
WALK_EDGE = 10.2
"""Where the sidewalk ends and buildings or gardens begin."""
STRETCH = 28.0
"""Length that is generated at once, and the spacing of the street lamps of a side."""
SPEED = 8.0
"""Mean speed of the camera, m/s."""

_LAMP_U = 6.15
_FACADES = 12


class Thing(NamedTuple):
    """One object of the street, with its near end at ``z``."""

    kind: str
    z: float
    u: float
    length: float = 0.0
    """Extent along the road, or the size of things that have one size only."""
    variant: int = 0
    """Which of the kind: picks colours, textures and shapes."""
    phase: float = 0.0
    """Position in a gait, radians."""
    away: bool = True
    """Whether it faces away from a camera that drives along the road."""


class _Lane(NamedTuple):
    kind: str
    u: float
    speed: float
    cell: float
    share: float
    reach: float


_LANES = (
    _Lane("car", -1.7, -9.0, 26.0, 0.55, 110.0),
    _Lane("bicyclist", 3.1, 4.6, 34.0, 0.6, 70.0),
    _Lane("bicyclist", -3.2, -4.2, 60.0, 0.5, 70.0),
    _Lane("pedestrian", 7.4, 1.3, 11.0, 0.5, 60.0),
    _Lane("pedestrian", 8.5, -1.2, 13.0, 0.5, 60.0),
    _Lane("pedestrian", -7.5, -1.4, 11.0, 0.5, 60.0),
    _Lane("pedestrian", -8.6, 1.1, 13.0, 0.45, 60.0),
)


class Road:
    """The road's course and the camera's way along it.

    Args:
        seed: of the world.
    """

    def __init__(self, seed: int) -> None:
        chance = Random(f"road/{seed}")
        self._waves = tuple(
            (amplitude, 2 * math.pi / length, chance.uniform(0, 2 * math.pi))
            for amplitude, length in ((13.0, 430.0), (3.0, 170.0))
        )
        self._phase = chance.uniform(0, 2 * math.pi)

    def offset(self, z: NDArray[np.floating] | float) -> NDArray[np.floating]:
        """How far the centre line is to the right of a straight line at ``z``, metres."""
        total: NDArray[np.floating] = np.zeros(np.shape(z))
        for amplitude, number, phase in self._waves:
            total = total + amplitude * np.sin(number * np.asarray(z) + phase)
        return total

    def slope(self, z: float) -> float:
        """Derivative of :meth:`offset`: the tangent of the road's heading."""
        return sum(a * k * math.cos(k * z + p) for a, k, p in self._waves)

    def travelled(self, time: float) -> float:
        """Where the camera is after ``time`` seconds, metres: never backwards."""
        return SPEED * time + 2.0 * math.sin(0.31 * time + self._phase)

    def sway(self, time: float) -> tuple[float, float, float]:
        """Lateral position (metres), yaw and pitch (radians) of the camera in its lane."""
        lateral = 1.65 + 0.22 * math.sin(0.53 * time + self._phase)
        yaw = 0.012 * math.sin(0.71 * time + 2 * self._phase)
        pitch = 0.004 * math.sin(2.3 * time) + 0.003 * math.sin(5.1 * time + self._phase)
        return lateral, yaw, pitch


def visible(seed: int, road: Road, time: float) -> tuple[list[Thing], list[Thing]]:
    """What stands and moves ahead of the camera at ``time`` (seconds).

    Returns:
        what lines the street (buildings, gardens, fences) and what is on it, each from far to near.
    """
    start = road.travelled(time)
    first = math.floor(start / STRETCH) - 1
    sides: list[Thing] = []
    street: list[Thing] = []
    for number in range(first, first + 7):
        lining, standing = _stretch(seed, number)
        sides += [thing for thing in lining if thing.z + thing.length > start + 1.0]
        street += [thing for thing in standing if start - 4.0 < thing.z < start + 110.0]
    for lane, spec in enumerate(_LANES):
        street += _moving(seed, lane, spec, time, start)
    street += _lead(seed, time, start)
    street += _crossing(seed, road, time)
    return sorted(sides, key=_depth), sorted(street, key=_depth)


def _depth(thing: Thing) -> float:
    fence = 0.5 if thing.kind in {"fence", "hedge"} else 0.0  # they stand in front of what they enclose
    return -thing.z + fence * STRETCH


@lru_cache(maxsize=512)
def _stretch(seed: int, number: int) -> tuple[tuple[Thing, ...], tuple[Thing, ...]]:
    """Generate the things between ``number * STRETCH`` and the next stretch, both sides."""
    chance = Random(f"stretch/{seed}/{number}")
    lining: list[Thing] = []
    standing: list[Thing] = []
    for side in (1, -1):
        start = number * STRETCH
        lining += _lining(chance, start, side)
        standing.append(Thing("lamp", start + (2.0 if side > 0 else 16.0), side * _LAMP_U, 7.5))
        standing += _furniture(chance, start, side)
        standing += _parked(chance, start, side)
    return tuple(lining), tuple(standing)


def _lining(chance: Random, start: float, side: int) -> Iterator[Thing]:
    cut = chance.uniform(9.0, 19.0)
    for begin, end in ((0.0, cut), (cut, STRETCH)):
        z, length = start + begin, end - begin
        if chance.random() < 0.76:
            setback = 0.0 if chance.random() < 0.6 else chance.uniform(2.0, 3.5)
            gap = chance.choice((0.0, 0.0, 1.5, 3.0))
            facade = chance.randrange(_FACADES) + _FACADES * chance.randrange(64)
            yield Thing("building", z, side * (WALK_EDGE + setback), length - gap, facade)
            if setback:
                yield Thing(
                    chance.choice(("fence", "fence", "hedge")), z, side * WALK_EDGE, length, chance.randrange(3)
                )
        else:
            for _ in range(3):
                u = side * chance.uniform(12.0, 18.0)
                yield Thing(
                    "tree", chance.uniform(z + 1, z + length), u, chance.uniform(6.5, 10.0), chance.randrange(60)
                )
            yield Thing(chance.choice(("fence", "hedge")), z, side * WALK_EDGE, length, chance.randrange(3))


def _furniture(chance: Random, start: float, side: int) -> Iterator[Thing]:
    lined = chance.random() < 0.5
    for slot in range(3):
        if chance.random() < (0.8 if lined else 0.15):
            z = start + 5.5 + 8.5 * slot + chance.uniform(-1.2, 1.2)
            yield Thing("tree", z, side * 6.8, chance.uniform(4.8, 7.5), chance.randrange(60))
    for _ in range(chance.choice((0, 1, 1, 2))):
        z = start + chance.uniform(1.0, STRETCH - 1.0)
        yield Thing("sign", z, side * 6.05, chance.uniform(2.3, 3.0), chance.randrange(60))
    if chance.random() < 0.2:
        yield Thing("signal", start + 21.0, side * 6.0, 3.2, chance.randrange(3))
    if chance.random() < 0.4:
        z = start + chance.uniform(2.0, STRETCH - 2.0)
        yield Thing("pedestrian", z, side * 9.0, chance.uniform(1.55, 1.9), chance.randrange(4096), 0.15)


def _parked(chance: Random, start: float, side: int) -> Iterator[Thing]:
    share = chance.choice((0.0, 0.3, 0.7))
    for slot in range(4):
        if chance.random() < share:
            z = start + 7.0 * slot + chance.uniform(0.4, 1.4)
            away = side > 0 or chance.random() < 0.3
            yield Thing("car", z, side * chance.uniform(4.35, 4.6), 4.3, chance.randrange(4096), 0.0, away)


def _moving(seed: int, lane: int, spec: _Lane, time: float, start: float) -> Iterator[Thing]:
    """The things of a lane whose cells move with it, so that nothing collides and nothing is remembered."""
    shift = spec.speed * time
    for cell in range(
        math.floor((start - 6.0 - shift) / spec.cell), math.ceil((start + spec.reach - shift) / spec.cell) + 1
    ):
        chance = Random(f"lane/{seed}/{lane}/{cell}")
        z = (cell + chance.uniform(0.0, 0.6)) * spec.cell + shift
        if chance.random() >= spec.share or not start - 5.0 < z < start + spec.reach:
            continue
        size = 4.3 if spec.kind == "car" else chance.uniform(1.55, 1.9)
        gait = 3.0 * abs(spec.speed) * time + chance.uniform(0, 6.28) if spec.kind != "car" else 0.0
        u = spec.u + chance.uniform(-0.25, 0.25)
        yield Thing(spec.kind, z, u, size, chance.randrange(4096), gait, spec.speed > 0)


def _lead(seed: int, time: float, start: float) -> Iterator[Thing]:
    """A car ahead in the own lane that falls back and pulls away; another one each time it was far."""
    period = 34.0
    distance = 13.0 + 110.0 * math.sin(math.pi * (time / period + 0.3)) ** 2
    turn = math.floor(time / period + 0.3 + 0.5)  # changes where the distance is greatest
    if distance < 100.0:
        variant = Random(f"lead/{seed}/{turn}").randrange(4096)
        yield Thing("car", start + distance, 1.65, 4.3, variant)


def _crossing(seed: int, road: Road, time: float) -> Iterator[Thing]:
    """Somebody who crosses the street ahead, now and then, and is across before the camera is there."""
    period = 13.0
    turn = math.floor(time / period)
    elapsed = time - turn * period
    chance = Random(f"crossing/{seed}/{turn}")
    if chance.random() < 0.6:
        z = road.travelled(turn * period) + chance.uniform(86.0, 100.0)
        u = chance.choice((-1, 1)) * (7.0 - 1.5 * elapsed)
        if abs(u) < 7.0:
            yield Thing("pedestrian", z, u, chance.uniform(1.6, 1.9), chance.randrange(4096), 5.0 * elapsed)
