"""The simulated drive's traffic: people who walk, people on bicycles, and cars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.data.simulated_light import Color, Shade
from ssada_core.data.simulated_objects import CIRCLE, Board, Stage
from ssada_core.data.simulated_scene import Ink, corners
from ssada_core.data.simulated_world import Thing
from ssada_core.labels import CAMVID

_CAR, _PEDESTRIAN, _BICYCLIST = (CAMVID.index(n) for n in ("car", "pedestrian", "bicyclist"))

_CLOTHES: tuple[Color, ...] = (
    (52, 44, 150), (140, 84, 40), (60, 60, 64), (170, 168, 164), (44, 104, 60), (40, 150, 190), (120, 60, 110),
    (36, 36, 40), (150, 130, 90),
)  # fmt: skip
_TROUSERS: tuple[Color, ...] = ((84, 62, 46), (40, 40, 44), (92, 100, 112), (120, 112, 96))
_SKIN: tuple[Color, ...] = ((140, 172, 220), (96, 132, 188), (62, 88, 132))
_HAIR: tuple[Color, ...] = ((34, 42, 56), (60, 90, 130), (24, 24, 26), (130, 136, 140))
_PAINTS: tuple[Color, ...] = (
    (206, 206, 204), (44, 42, 42), (110, 108, 106), (44, 36, 150), (130, 70, 32), (170, 166, 158), (66, 84, 44),
    (60, 130, 190), (146, 120, 84), (72, 70, 104),
)  # fmt: skip


_Corners = list[tuple[float, float, float]]


def draw_pedestrian(stage: Stage, thing: Thing, shade: Shade) -> None:
    """Somebody who walks."""
    board, scale, number = Board(stage, thing), thing.length / 1.75, thing.variant
    swing = 0.27 * math.sin(thing.phase)
    trousers = shade.ink(_TROUSERS[number % 4], _PEDESTRIAN)
    shirt = _CLOTHES[number // 4 % 9]
    body, sleeve = shade.ink(shirt, _PEDESTRIAN), shade.ink(shirt, _PEDESTRIAN, 0.82)
    board.limb((0.05 * scale, 0.92 * scale), (swing, 0.0), 0.17 * scale, trousers)
    board.limb((-0.05 * scale, 0.92 * scale), (-swing, 0.0), 0.17 * scale, trousers)
    board.limb((-0.24 * scale, 1.42 * scale), ((-0.28 + swing * 0.5) * scale, 0.85 * scale), 0.11 * scale, sleeve)
    board.limb((0.24 * scale, 1.42 * scale), ((0.28 + swing * 0.5) * scale, 0.85 * scale), 0.11 * scale, sleeve)
    torso = np.array([(-0.19, 0.82), (0.19, 0.82), (0.25, 1.42), (0.1, 1.52), (-0.1, 1.52), (-0.25, 1.42)])
    board.polygon(torso * scale, body)
    board.disc(0, 1.64 * scale, 0.115 * scale, shade.ink(_HAIR[number // 36 % 4], _PEDESTRIAN), 1.15)
    if not thing.away:
        board.disc(0, 1.61 * scale, 0.085 * scale, shade.ink(_SKIN[number // 144 % 3], _PEDESTRIAN), 1.2)


def draw_bicyclist(stage: Stage, thing: Thing, shade: Shade) -> None:
    """Somebody on a bicycle, seen along the road."""
    camera, number = stage.camera, thing.variant
    dark = shade.ink((38, 38, 40), _BICYCLIST)
    for back in (1.05, 0.0):
        z = thing.z + back + 0.34 * CIRCLE[:, 0]
        x = camera.lateral(z) + thing.u
        ring = camera.project(x, 0.34 + 0.34 * CIRCLE[:, 1], z - camera.place)
        thick = max(1, round(0.07 * camera.focal / (thing.z - camera.place)))
        cv2.polylines(stage.canvas, [corners(ring)], True, dark, thick, cv2.LINE_8, 4)
    z = thing.z + np.array([0.0, 0.4, 0.95, 1.05])
    bars = camera.project(camera.lateral(z) + thing.u, np.array([0.34, 0.5, 0.95, 0.34]), z - camera.place)
    cv2.polylines(stage.canvas, [corners(bars)], False, dark, thick, cv2.LINE_8, 4)
    board = Board(stage, thing._replace(z=thing.z + 0.35))
    board.box(-0.03, 0.4, 0.03, 0.9, dark)
    board.limb((-0.28, 1.02), (0.28, 1.02), 0.05, dark)
    lift = 0.14 * math.sin(thing.phase)
    trousers, shirt = (shade.ink(c, _BICYCLIST) for c in (_TROUSERS[number % 4], _CLOTHES[number // 4 % 9]))
    board.limb((0.09, 0.95), (0.14, 0.28 + lift), 0.15, trousers)
    board.limb((-0.09, 0.95), (-0.14, 0.28 - lift), 0.15, trousers)
    board.limb((-0.22, 1.42), (-0.27, 1.05), 0.1, shirt)
    board.limb((0.22, 1.42), (0.27, 1.05), 0.1, shirt)
    board.polygon(
        np.array([(-0.17, 0.88), (0.17, 0.88), (0.24, 1.42), (0.1, 1.54), (-0.1, 1.54), (-0.24, 1.42)]), shirt
    )
    board.disc(0, 1.65, 0.12, shade.ink(_PAINTS[number % 10], _BICYCLIST), 1.1)
    if not thing.away:
        board.disc(0, 1.6, 0.085, shade.ink(_SKIN[number // 144 % 3], _BICYCLIST))
    if stage.light.dark:
        board.disc(0, 0.75, 0.07, shade.glow((60, 40, 255) if thing.away else (240, 250, 255), _BICYCLIST))


@dataclass(frozen=True)
class _Body:
    """A car's outline, from its tail at 0 metres: (along, up)."""

    profile: tuple[tuple[float, float], ...]
    panes: tuple[tuple[float, float], ...]
    rear_pane: tuple[tuple[float, float], tuple[float, float]]
    front_pane: tuple[tuple[float, float], tuple[float, float]]
    wheels: tuple[float, float]
    belt: float


_BODIES = (
    _Body(
        ((0, 0.28), (0, 0.95), (0.3, 1.42), (1.9, 1.48), (2.95, 1.0), (4.1, 0.82), (4.2, 0.28)),
        ((0.35, 1.0), (0.5, 1.36), (1.85, 1.4), (2.7, 1.02)),
        ((0.04, 1.0), (0.28, 1.38)), ((2.9, 1.02), (1.95, 1.45)), (0.75, 3.35), 0.95,
    ),
    _Body(
        ((0, 0.28), (0, 0.96), (0.8, 1.0), (1.35, 1.4), (2.4, 1.43), (3.2, 0.98), (4.4, 0.8), (4.5, 0.28)),
        ((0.95, 1.0), (1.4, 1.34), (2.35, 1.37), (2.95, 1.0)),
        ((0.85, 1.02), (1.33, 1.38)), ((3.15, 1.0), (2.45, 1.41)), (0.85, 3.6), 0.96,
    ),
    _Body(
        ((0, 0.32), (0, 1.2), (0.12, 1.98), (3.5, 2.02), (4.25, 1.25), (4.85, 1.02), (4.95, 0.32)),
        ((2.6, 1.2), (2.6, 1.82), (3.4, 1.85), (3.95, 1.22)),
        ((0.02, 1.25), (0.1, 1.85)), ((4.2, 1.27), (3.6, 1.94)), (0.9, 3.95), 1.15,
    ),
)  # fmt: skip


@lru_cache(maxsize=16)
def _car_faces(style: int, away: bool, right: bool) -> tuple[NDArray[np.float64], dict[str, slice]]:
    """Corners (N×3: right, up, along from the near end) of a car's faces as seen from one side of it."""
    body = _BODIES[style]
    length = body.profile[-1][0]
    side = 1.0 if right else -1.0

    def half(up: float) -> float:
        return 0.88 if up < body.belt + 0.02 else 0.88 - 0.16 * (up - body.belt) / 0.45

    def at(points: tuple[tuple[float, float], ...], lateral: float) -> _Corners:
        return [(lateral * half(up), up, along if away else length - along) for along, up in points]

    def across(
        low: float, high: float, left: float, to: float, along: float = -0.02
    ) -> list[tuple[float, float, float]]:
        return [(left, low, along), (to, low, along), (to, high, along), (left, high, along)]

    hub = body.wheels[0] if away else length - body.wheels[1]
    pane = body.rear_pane if away else body.front_pane
    nose = body.belt if away else 0.82
    wheel = 0.31 * CIRCLE
    faces = {
        "hull": at(body.profile, 1.0) + at(body.profile, -1.0),
        "side": at(body.profile, side),
        "panes": at(body.panes, side * 1.01),
        "tyre0": across(0.0, 0.4, -0.84, -0.62, hub),
        "tyre1": across(0.0, 0.4, 0.62, 0.84, hub),
        "end": across(0.3, nose, -0.88, 0.88),
        "pane": at(pane, 0.9) + at(pane, -0.9)[::-1],
        "bumper": across(0.3, 0.5, -0.88, 0.88),
        "plate": across(0.55, 0.66, -0.26, 0.26),
        "left": across(0.66, 0.84, -0.84, -0.54),
        "right": across(0.66, 0.84, 0.54, 0.84),
    }
    for number, axle in enumerate(body.wheels):
        along = axle if away else length - axle
        faces[f"wheel{number}"] = [(side * 0.885, 0.31 + y, along + x) for x, y in wheel]
    slices, start = {}, 0
    for name, points in faces.items():
        slices[name] = slice(start, start + len(points))
        start += len(points)
    return np.array([point for points in faces.values() for point in points]), slices


def draw_car(stage: Stage, thing: Thing, shade: Shade) -> None:
    """A car: the hull, the side that is seen, and the near end with its lamps."""
    camera, number = stage.camera, thing.variant
    style = (0, 1, 0, 1, 2)[number // 16 % 5]
    x = float(camera.lateral(np.array(thing.z))) + thing.u
    points, faces = _car_faces(style, thing.away, x < 0)
    z = thing.z + points[:, 2]
    pixels = camera.project(camera.lateral(z) + thing.u + points[:, 0], points[:, 1], z - camera.place)
    paint, glass, black = _PAINTS[number % 10], (84, 74, 64), shade.ink((36, 36, 36), _CAR)
    canvas = stage.canvas
    fixed = corners(pixels)
    hull = cv2.convexHull(fixed[faces["hull"]])
    cv2.fillConvexPoly(canvas, hull, shade.ink(paint, _CAR, 1.12), cv2.LINE_8, 4)
    cv2.fillPoly(canvas, [fixed[faces["side"]]], shade.ink(paint, _CAR, 0.8), cv2.LINE_8, 4)
    driving = abs(thing.u) < 4.0
    inks = {
        "panes": shade.ink(glass, _CAR),
        "wheel0": black,
        "wheel1": black,
        "tyre0": black,
        "tyre1": black,
        "end": shade.ink(paint, _CAR, 0.95),
        "pane": shade.ink(glass, _CAR, 1.15),
        "bumper": shade.ink((58, 58, 60), _CAR),
        "plate": shade.ink((190, 214, 214), _CAR),
    }
    for name, ink in inks.items():
        cv2.fillConvexPoly(canvas, fixed[faces[name]], ink, cv2.LINE_8, 4)
    lamp = _car_lamp(shade, away=thing.away, lit=driving and (stage.light.dark or stage.light.wet > 0))
    for name in ("left", "right"):
        cv2.fillConvexPoly(canvas, fixed[faces[name]], lamp, cv2.LINE_8, 4)


def _car_lamp(shade: Shade, *, away: bool, lit: bool) -> Ink:
    if lit:
        return shade.glow((48, 44, 255) if away else (255, 255, 250), _CAR)
    return shade.ink((40, 34, 170) if away else (222, 222, 220), _CAR)


DRAW_TRAFFIC = {"pedestrian": draw_pedestrian, "bicyclist": draw_bicyclist, "car": draw_car}
"""How each kind of thing that moves is drawn."""
