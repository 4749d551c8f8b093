"""Two series on the same frames: who is better, how sure that is, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssada_core.evaluation.bootstrap import PairedDifference, paired_difference
from ssada_core.evaluation.metrics import Matrix, iou, miou
from ssada_core.replay.tally import Series

PROBABILITY = 0.9
"""Share of the interval that is reported, and the quantile that it is corrected for."""
TIE = 0.05
"""Points of IoU or mIoU within which two series are called equal."""


@dataclass(frozen=True)
class ClassComparison:
    """One class: IoU of both in percent, and the probability that the second is better (None: not on the drive)."""

    name: str
    first: float | None
    second: float | None
    probability: float | None


@dataclass(frozen=True)
class Comparison:
    """The second series against the first.

    Attributes:
        first: name of the first series.
        second: name of the second.
        difference: of mIoU, second minus first, with its draws.
        classes: one entry per class.
        stretches: stretch number, mIoU of the first and of the second, in percent.
    """

    first: str
    second: str
    difference: PairedDifference
    classes: Sequence[ClassComparison]
    stretches: Sequence[tuple[int, float, float]]

    @property
    def winner(self) -> str:
        """Name of the series that is better with the asked probability; empty if neither is, or both are the same."""
        gain, chance = self.difference.gain, self.difference.probability_above(0.0)
        if gain > 0 and chance >= PROBABILITY:
            return self.second
        return self.first if gain < 0 and chance <= 1 - PROBABILITY else ""

    def words(self) -> str:
        """The result in one sentence."""
        gain, chance = self.difference.gain, self.difference.probability_above(0.0)
        low, high = self.difference.interval(PROBABILITY)
        spread = f"{low:+.1f} to {high:+.1f}" if np.isfinite([low, high]).all() else "not known: too short a drive"
        who = f"{self.winner} is better" if self.winner else "Neither is surely better"
        return (
            f"{who}: {self.second} has {gain:+.1f} points of mIoU against {self.first} "
            f"({PROBABILITY:.0%} interval {spread}, probability of a gain {chance:.2f}, "
            f"{self.difference.stretches} stretches)."
        )


def compare(
    names: tuple[str, str], pair: tuple[Series, Series], classes: Sequence[str], *, samples: int, seed: int
) -> Comparison | None:
    """Compare two series; None where there is no ground truth.

    Args:
        names: of the series.
        pair: the first and the second series, over the same frames.
        classes: names of the classes.
        samples: draws of the bootstrap.
        seed: of the draws.
    """
    numbers = sorted(pair[0].stretches.keys() & pair[1].stretches.keys())
    first, second = (np.stack([one.stretches[n] for n in numbers]) if numbers else None for one in pair)
    if first is None or second is None or not first.sum():
        return None
    difference = paired_difference(
        first,
        second,
        # Stretches are what is resampled: each is one "frame" that lies farther from the next than the length.
        np.arange(len(numbers), dtype=np.int64) * 2_000_000_000,
        length_s=1.0,
        samples=samples,
        probability=PROBABILITY,
        seed=seed,
    )
    return Comparison(
        names[0],
        names[1],
        difference,
        _classes(first, second, classes, samples, seed),
        [(n, miou(a), miou(b)) for n, a, b in zip(numbers, first, second, strict=True) if a.sum()],
    )


def _classes(first: Matrix, second: Matrix, names: Sequence[str], samples: int, seed: int) -> list[ClassComparison]:
    values = [iou(stack.sum(axis=0)) for stack in (first, second)]
    chances = _chances(first, second, samples, seed)
    return [
        ClassComparison(name, _percent(a), _percent(b), _plain(chance))
        for name, a, b, chance in zip(names, *values, chances, strict=True)
    ]


def _chances(first: Matrix, second: Matrix, samples: int, seed: int) -> NDArray[np.float64]:
    """Probability per class that the second is better, by Rubin's bootstrap over stretches; NaN where unknown."""
    count, classes = len(first), first.shape[-1]
    if count < 2:
        return np.full(classes, np.nan)
    weights = np.random.default_rng(seed).exponential(size=(samples, count))
    drawn = [iou((weights @ stack.reshape(count, -1)).reshape(-1, classes, classes)) for stack in (first, second)]
    difference = drawn[1] - drawn[0]
    # Where both are alike in every draw, nothing speaks for either.
    chances = np.mean(difference > 0, axis=0) + 0.5 * np.mean(difference == 0, axis=0)
    floor = 0.5**count
    return np.where(np.isnan(difference).all(axis=0), np.nan, np.clip(chances, floor, 1 - floor))


def _percent(value: float) -> float | None:
    return 100 * float(value) if np.isfinite(value) else None


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
