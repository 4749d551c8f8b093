"""Merging neighbouring patches, the most alike first, as Ward's clustering does it (Ward 1963)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def merge_patches(
    patches: NDArray[np.int32], features: NDArray[np.float64], counts: Sequence[int]
) -> list[NDArray[np.int32]]:
    """Merge neighbours until few patches are left, and say how it stood on the way.

    Args:
        patches: int32 H×W, numbered 0, 1, …
        features: float64 H×W×D; patches whose means are near, and small ones, are merged first.
        counts: numbers of patches at which to say how it stands, falling.

    Returns:
        int32 H×W for each count: at most that many patches, numbered 0, 1, …
    """
    forest = _Forest(patches, features)
    result = []
    for count in counts:
        forest.merge_down_to(count)
        result.append(forest.roots()[patches])
    return result


class _Forest:
    """Patches, each a tree of those that were merged into it."""

    def __init__(self, patches: NDArray[np.int32], features: NDArray[np.float64]) -> None:
        flat = patches.ravel()
        self._size: list[float] = np.bincount(flat).astype(float).tolist()
        count = len(self._size)
        sums = [np.bincount(flat, weights=plane.ravel(), minlength=count) for plane in np.moveaxis(features, 2, 0)]
        self._mean = np.stack(sums, 1) / np.maximum(self._size, 1)[:, None]
        self._parent = list(range(count))
        self._neighbours = _neighbours(patches, count)
        self._changes = [0] * count  # a pair on the heap is stale when one of its patches has changed since
        self._left = count
        self._heap = [self._pair(one, two) for one in range(count) for two in self._neighbours[one] if one < two]
        heapq.heapify(self._heap)

    def merge_down_to(self, count: int) -> None:
        """Merge pairs until there are ``count`` patches, or no two are neighbours."""
        while self._left > count and self._heap:
            _, one, two, changes_one, changes_two = heapq.heappop(self._heap)
            if self._changes[one] == changes_one and self._changes[two] == changes_two:
                self._merge(one, two)

    def roots(self) -> NDArray[np.int32]:
        """The number of each first patch's tree, without gaps."""
        roots = np.asarray(self._parent)
        while not np.array_equal(roots, roots[roots]):
            roots = roots[roots]
        return np.unique(roots, return_inverse=True)[1].astype(np.int32)

    def _pair(self, one: int, two: int) -> tuple[float, int, int, int, int]:
        """What merging adds to the variance, with the pair."""
        apart = self._mean[one] - self._mean[two]
        size_one, size_two = self._size[one], self._size[two]
        cost = size_one * size_two / (size_one + size_two) * float(apart @ apart)
        return cost, one, two, self._changes[one], self._changes[two]

    def _merge(self, one: int, two: int) -> None:
        if len(self._neighbours[one]) < len(self._neighbours[two]):
            one, two = two, one
        size_one, size_two = self._size[one], self._size[two]
        self._mean[one] = (self._mean[one] * size_one + self._mean[two] * size_two) / (size_one + size_two)
        self._size[one] += size_two
        self._parent[two] = one
        self._left -= 1
        for other in self._neighbours[two]:
            self._neighbours[other].discard(two)
            if other != one:
                self._neighbours[one].add(other)
                self._neighbours[other].add(one)
        self._neighbours[two] = set()
        self._changes[one] += 1
        self._changes[two] += 1
        for other in self._neighbours[one]:
            heapq.heappush(self._heap, self._pair(min(one, other), max(one, other)))


def _neighbours(patches: NDArray[np.int32], count: int) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(count)]
    for one, two in ((patches[:, 1:], patches[:, :-1]), (patches[1:], patches[:-1])):
        border = one != two
        for key in np.unique(one[border].astype(np.int64) * count + two[border]).tolist():
            first, second = divmod(key, count)
            found[first].add(second)
            found[second].add(first)
    return found
