"""Different scenes instead of near-copies: farthest-first traversal in feature space (METHOD §5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PAIRS = 2048
_TINY = 1e-12


def normalise(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows ``[N,D]`` scaled to length one."""
    wide = np.asarray(features, dtype=np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), _TINY)
    return unit


def neighbour_distance(unit: NDArray[np.float64], ratio: float) -> float:
    """``ratio`` times the median distance between two rows of ``unit [N,D]``.

    Relative, because pooled features of one network lie in a narrow cone whose width differs from
    network to network. The median is over a fixed sample of pairs.
    """
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(unit), (2, _PAIRS))
    apart = first != second
    if not apart.any():
        return 0.0
    return ratio * float(np.median(np.linalg.norm(unit[first[apart]] - unit[second[apart]], axis=1)))


def farthest_first(
    features: NDArray[np.floating],
    ranked: NDArray[np.int64],
    count: int,
    *,
    top: int,
    anchors: Sequence[NDArray[np.floating]] = (),
    neighbour_ratio: float = 0.25,
) -> list[int]:
    """Pick ``count`` rows: the best score first, then the farthest from all picked so far.

    The first pick is the best-ranked that is no neighbour of an anchor. Then, among the ``top`` best,
    the one whose nearest pick or anchor is farthest. Once only neighbours are left there, the next
    best ranked below that is none; and when all are neighbours, the farthest of all.

    Args:
        features: ``[N,D]`` of all candidates.
        ranked: row numbers, best score first, ``[M]``.
        count: how many, at most M.
        top: how many of the best take part in the farthest-first.
        anchors: features ``[D]`` to keep away from too.
        neighbour_ratio: see :func:`neighbour_distance`.

    Returns:
        Row numbers in the order picked.
    """
    unit = normalise(features)[ranked]
    near = neighbour_distance(unit, neighbour_ratio)
    distance = np.full(len(ranked), np.inf)
    for anchor in normalise(np.stack(anchors)) if len(anchors) else ():
        distance = np.minimum(distance, np.linalg.norm(unit - anchor, axis=1))
    picked: list[int] = []
    for _ in range(count):
        place = _next_place(distance, near, top=top, first=not picked)
        picked.append(place)
        distance = np.minimum(distance, np.linalg.norm(unit - unit[place], axis=1))
        distance[picked] = -1.0
    return [int(ranked[place]) for place in picked]


def _next_place(distance: NDArray[np.float64], near: float, *, top: int, first: bool) -> int:
    clear = np.flatnonzero(distance > near)
    if first and clear.size:
        return int(clear[0])
    best = int(np.argmax(distance[:top]))
    if distance[best] > near:
        return best
    return int(clear[0]) if clear.size else int(np.argmax(distance))
