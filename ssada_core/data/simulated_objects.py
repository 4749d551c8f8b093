"""The simulated drive's objects: what stands along the street."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ssada_core.data.samples import Array
from ssada_core.data.simulated_light import Color, Light, Shade
from ssada_core.data.simulated_scene import (
    EYE,
    Camera,
    Ink,
    Points,
    draw_sprite,
    draw_wall,
    fill,
)
from ssada_core.data.simulated_textures import Facade
from ssada_core.data.simulated_world import Thing
from ssada_core.labels import CAMVID

_BUILDING, _POLE, _TREE, _SIGN, _FENCE = (CAMVID.index(n) for n in ("building", "pole", "tree", "sign", "fence"))

_ROOFS: tuple[Color, ...] = ((62, 74, 120), (84, 82, 82), (66, 70, 92))
_GLASS: Color = (104, 90, 78)
_LAMPLIGHT: Color = (110, 190, 235)
_RIDGE = 3.6  # metres from the eaves to the ridge
CIRCLE = np.stack([np.cos(np.arange(14) * math.pi / 7), np.sin(np.arange(14) * math.pi / 7)], axis=1)


@dataclass(frozen=True)
class Stage:
    """What every object needs to draw itself.

    Attributes:
        canvas: uint8 H×W×4.
        camera: seen from here.
        light: of the domain.
        facades: house fronts.
        fences: three fences and, last, a hedge.
        crowns: of trees.
    """

    canvas: Array
    camera: Camera
    light: Light
    facades: list[Facade]
    fences: tuple[tuple[Array, ...], ...]
    crowns: list[tuple[Array, ...]]

    def board(self, thing: Thing) -> tuple[NDArray[np.float64], float]:
        """The pixel where an upright thing stands, and pixels per metre there."""
        depth = thing.z - self.camera.place
        scale = self.camera.focal / depth
        x = float(self.camera.lateral(np.array(thing.z))) + thing.u
        return np.array([self.camera.center + x * scale, self.camera.horizon + EYE * scale]), scale


class Board:
    """An upright plane that faces the camera; coordinates in metres to the right of and above a thing's foot."""

    def __init__(self, stage: Stage, thing: Thing) -> None:
        self._canvas = stage.canvas
        self.foot, self.scale = stage.board(thing)
        self._unit = np.array([self.scale, -self.scale])

    def polygon(self, points: Points, ink: Ink) -> None:
        """Fill a convex polygon N×2."""
        fill(self._canvas, points * self._unit + self.foot, ink)

    def box(self, left: float, low: float, right: float, high: float, ink: Ink) -> None:
        """Fill a rectangle."""
        self.polygon(np.array([(left, low), (right, low), (right, high), (left, high)]), ink)

    def disc(self, x: float, y: float, radius: float, ink: Ink, flat: float = 1.0) -> None:
        """Fill an ellipse, ``flat`` times as high as it is wide."""
        self.polygon(CIRCLE * (radius, radius * flat) + (x, y), ink)

    def limb(self, start: tuple[float, float], end: tuple[float, float], width: float, ink: Ink) -> None:
        """Fill a straight bar between two points."""
        along = np.array(end) - start
        across = np.array([-along[1], along[0]]) * (width / 2 / max(math.hypot(*along), 1e-6))
        self.polygon(np.array([start + across, start - across, end - across, end + across]), ink)


def draw_building(stage: Stage, thing: Thing, shade: Shade) -> None:
    """A house: its front along the road, the wall around the corner and, on some, a pitched roof."""
    style, tint_step = thing.variant % len(stage.facades), thing.variant // len(stage.facades)
    facade = stage.facades[style]
    side = math.copysign(1.0, thing.u)
    tint = (0.86 + 0.004 * tint_step) * (1.0 - side * stage.light.sun)
    camera, near = stage.camera, thing.z - stage.camera.place
    top, pitched = facade.height, tint_step % 2 == 1
    if near > 1.0:
        z = np.full(4, thing.z)
        x = camera.lateral(z) + thing.u + side * np.array([0.0, 9.0, 9.0, 0.0])
        y = np.array([0.0, 0.0, top, top])
        draw = shade.glow if stage.light.dark else partial(shade.ink, factor=0.8 * tint)
        ink = draw(facade.color, _BUILDING)
        fill(stage.canvas, camera.project(x, y, z - camera.place), ink)
        if pitched:
            z, x = z[:3], camera.lateral(z[:3]) + thing.u + side * np.array([0.0, 9.0, 4.5])
            fill(stage.canvas, camera.project(x, np.array([top, top, top + _RIDGE]), z - camera.place), ink)
        if near < 50.0 and tint_step % 3:
            _draw_corner_windows(stage, thing, shade, facade.height)
    if pitched:
        z = np.array([max(thing.z, camera.place + 1.0), thing.z + thing.length])[[0, 1, 1, 0]]
        x = camera.lateral(z) + thing.u + side * np.array([-0.2, -0.2, 4.5, 4.5])
        quad = camera.project(x, np.array([top, top, top + _RIDGE, top + _RIDGE]), z - camera.place)
        fill(stage.canvas, quad, shade.ink(_ROOFS[tint_step % 3], _BUILDING, tint))
    table = shade.table(_BUILDING, 1.0 if stage.light.dark else tint, baked=stage.light.dark)
    draw_wall(stage.canvas, camera, facade.levels, thing, top, table)


def _draw_corner_windows(stage: Stage, thing: Thing, shade: Shade, height: float) -> None:
    """Two columns of windows in the wall around the corner."""
    camera, side = stage.camera, math.copysign(1.0, thing.u)
    floors = np.arange(1.0, height - 2.0, 3.0)
    low = np.repeat(floors, 2)
    left = np.tile([1.6, 5.2], len(floors))
    across = side * (left[:, None] + np.array([0.0, 1.3, 1.3, 0.0])) + thing.u
    x = across + float(camera.lateral(np.array(thing.z)))
    y = low[:, None] + np.array([0.0, 0.0, 1.5, 1.5])
    quads = camera.project(x, y, np.array(thing.z - camera.place))
    for number, quad in enumerate(quads):
        lit = stage.light.dark and (thing.variant * 7 + number * 5) % 4 == 0
        fill(stage.canvas, quad, shade.glow(_LAMPLIGHT, _BUILDING) if lit else shade.ink(_GLASS, _BUILDING))


def draw_fence(stage: Stage, thing: Thing, shade: Shade) -> None:
    """A fence along the road."""
    table = shade.table(_FENCE)
    draw_wall(stage.canvas, stage.camera, stage.fences[thing.variant % 3], thing, 1.15, table)


def draw_hedge(stage: Stage, thing: Thing, shade: Shade) -> None:
    """A hedge along the road."""
    draw_wall(stage.canvas, stage.camera, stage.fences[3], thing, 1.5, shade.table(_TREE))


def draw_tree(stage: Stage, thing: Thing, shade: Shade) -> None:
    """A trunk and a crown."""
    board, size = Board(stage, thing), thing.length
    trunk = np.array([(-0.02, 0), (0.02, 0), (0.012, 0.5), (-0.012, 0.5)]) * size * (1.3, 1)
    board.polygon(trunk, shade.ink((52, 66, 80), _TREE))
    crown = stage.crowns[thing.variant % len(stage.crowns)]
    reach, top = board.scale * size * 0.36, board.foot[1] - board.scale * size
    bottom = board.foot[1] - board.scale * size * 0.3
    table = shade.table(_TREE, 0.85 + 0.06 * (thing.variant % 7))
    draw_sprite(stage.canvas, crown, (board.foot[0] - reach, top, board.foot[0] + reach, bottom), table)


def draw_lamp(stage: Stage, thing: Thing, shade: Shade) -> None:
    """A street lamp that hangs over the road."""
    board, high = Board(stage, thing), thing.length
    inward = -math.copysign(1.0, thing.u)
    metal = shade.ink((96, 100, 98), _POLE)
    board.polygon(np.array([(-0.09, 0), (0.09, 0), (0.06, high), (-0.06, high)]), metal)
    board.limb((0, high - 0.05), (inward * 1.5, high + 0.15), 0.1, metal)
    head = shade.glow((150, 225, 255), _POLE) if stage.light.dark else shade.ink((120, 124, 124), _POLE)
    board.limb((inward * 1.2, high + 0.08), (inward * 2.0, high + 0.16), 0.2, head)


def draw_sign(stage: Stage, thing: Thing, shade: Shade) -> None:
    """A traffic sign on its post: round, triangular or square."""
    board, high = Board(stage, thing), thing.length
    board.box(-0.04, 0, 0.04, high, shade.ink((134, 138, 138), _POLE))
    # Signs throw light back to where it comes from.
    red, white, blue = (shade.ink(c, _SIGN, 1.35) for c in ((36, 30, 190), (225, 228, 228), (176, 92, 30)))
    kind = thing.variant % 4
    if kind == 0:
        board.disc(0, high, 0.38, red)
        board.disc(0, high, 0.27, white)
    elif kind == 1:
        for size, ink in ((1.0, red), (0.62, white)):
            corner = size * np.array([(-0.46, -0.3), (0.46, -0.3), (0, 0.48)])
            board.polygon(np.add(corner, (0, high)), ink)
    elif kind == 2:
        board.box(-0.36, high - 0.36, 0.36, high + 0.36, blue)
        board.box(-0.16, high - 0.24, 0.14, high + 0.24, white)
    else:
        board.disc(0, high, 0.38, blue)
        board.limb((-0.2, high), (0.22, high), 0.12, white)


def draw_signal(stage: Stage, thing: Thing, shade: Shade) -> None:
    """A traffic light."""
    board, high = Board(stage, thing), thing.length
    board.box(-0.06, 0, 0.06, high - 0.4, shade.ink((70, 72, 72), _POLE))
    board.box(-0.18, high - 0.45, 0.18, high + 0.5, shade.ink((38, 40, 40), _SIGN))
    for number, color in enumerate(((90, 220, 60), (40, 190, 250), (50, 40, 250))):
        lit = number == thing.variant
        ink = shade.glow(color, _SIGN) if lit else shade.ink((60, 62, 66), _SIGN)
        board.disc(0, high - 0.28 + 0.3 * number, 0.11, ink)


DRAW_STREET = {
    "building": draw_building,
    "fence": draw_fence,
    "hedge": draw_hedge,
    "tree": draw_tree,
    "lamp": draw_lamp,
    "sign": draw_sign,
    "signal": draw_signal,
}
"""How each kind of thing that stands still is drawn."""
