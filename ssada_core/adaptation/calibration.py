"""How high a mean of figures may rise before it is no longer chance, from figures taken beforehand.

Figures of neighbouring frames are near-copies, so a window of frames holds only as many independent figures as it
has stretches of the road. The figures' distribution is taken for a gamma distribution (positive, skewed to the
right; the mean of n of them is again one), its quantile by Wilson and Hilferty's cube root (PNAS 17, 1931).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

STRETCH_S = 5.0
"""Seconds of road that count as one independent figure, as in the gate's bootstrap."""


@dataclass(frozen=True)
class Gamma:
    """A gamma distribution by its first two moments.

    Attributes:
        mean: above 0.
        deviation: standard deviation.
        count: figures it was taken from; few of them widen the bound.
    """

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, figures: NDArray[np.float64]) -> Gamma:
        """Fit by moments; the figures are not negative."""
        return cls(float(figures.mean()), float(figures.std()), int(figures.size))

    def upper(self, *, rate: float, independent: float = 1.0, sampled: bool = False) -> float:
        """What the mean of ``independent`` figures passes with probability ``rate``.

        The mean itself is known only to its standard error, with one figure in ``count`` a stretch of its own.
        With ``sampled`` the deviation, too, is known from so many figures only: Student's quantile instead of the
        normal one.
        """
        mean = max(self.mean, 1e-9)
        variance = self.deviation**2 * (1.0 / max(independent, 1.0) + 1.0 / max(self.count, 1))
        shape = max(mean * mean / max(variance, 1e-12), 1e-3)
        z = NormalDist().inv_cdf(1.0 - rate)
        z = _student(z, self.count - 1) if sampled else z
        root = 1.0 - 1.0 / (9.0 * shape) + z * math.sqrt(1.0 / (9.0 * shape))
        return mean * max(root, 0.0) ** 3


def independent_in(span_s: float, frames: int) -> float:
    """Independent figures in a window of ``frames`` that spans ``span_s`` seconds: one a stretch, one at least."""
    return float(min(max(span_s / STRETCH_S, 1.0), max(frames, 1)))


def _student(z: float, freedom: int) -> float:
    """Student's quantile where the normal one is ``z`` (Abramowitz and Stegun 26.7.5, first terms)."""
    nu = float(max(freedom, 1))
    return z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
