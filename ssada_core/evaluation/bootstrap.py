"""How sure a difference in mIoU is: a paired bootstrap over stretches of the drive, not over frames.

Frames that follow each other are near-copies, so the drive is cut into stretches of a few seconds and
whole stretches are weighted at random. The weights are Rubin's (The Bayesian Bootstrap, Annals of
Statistics 9, 1981): exponential instead of whole counts, so that no draw leaves a stretch out, and a
class that lives in one stretch alone is part of every draw's mIoU.

With few stretches a plain bootstrap is too sure of itself. Three corrections: deviations are widened by
``sqrt((n+1)/(n-1))``, which makes the variance of a mean of n stretches unbiased; by
``1 + (z²+1)/(4(n-1))``, the first term of Student's t over the normal at quantile z (Cornish-Fisher);
and no probability is nearer to 0 or 1 than ``2**-n``, the most that an exact sign test can show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ssada_core.evaluation.metrics import Matrix, iou, miou

_NANOSECONDS = 1_000_000_000


def stretches(stamps_ns: NDArray[np.int64], length_s: float) -> NDArray[np.int64]:
    """Cut a drive into contiguous stretches.

    A stretch ends before the first frame that is more than ``length_s`` after the stretch's own first
    frame; so a pause longer than that always ends one.

    Args:
        stamps_ns: int64 ``[N]``, in any order.
        length_s: longest stretch, in seconds.

    Returns:
        int64 ``[N]``, the stretch of each frame, numbered from 0 in time.
    """
    limit = round(length_s * _NANOSECONDS)
    numbers = np.zeros(stamps_ns.size, np.int64)
    number, start = -1, 0
    for index in np.argsort(stamps_ns, kind="stable").tolist():
        stamp = int(stamps_ns[index])
        if number < 0 or stamp - start > limit:
            number, start = number + 1, stamp
        numbers[index] = number
    return numbers


@dataclass(frozen=True)
class PairedDifference:
    """What a set of frames says about the difference in mIoU of two models, in points of percent.

    Attributes:
        before: mIoU of the first model over all frames, percent.
        after: mIoU of the second.
        frames: frames compared.
        stretches: independent stretches they lie in.
        draws: float64, bootstrap draws of the difference, widened; empty below two stretches.
    """

    before: float
    after: float
    frames: int
    stretches: int
    draws: NDArray[np.float64]

    @property
    def gain(self) -> float:
        """``after - before``, in points; NaN where nothing is labelled."""
        return self.after - self.before

    @property
    def deviation(self) -> float:
        """Standard error of the gain, in points; infinite below two stretches."""
        return float(self.draws.std()) if self.draws.size else math.inf

    def probability_above(self, bound: float) -> float:
        """Probability that the gain is above ``bound`` points; 0.5 below two stretches (nothing is known)."""
        if not self.draws.size:
            return 0.5
        floor = 0.5**self.stretches
        return min(max(float(np.mean(self.draws > bound)), floor), 1.0 - floor)

    def interval(self, share: float) -> tuple[float, float]:
        """Central interval that holds ``share`` of the draws; the whole line below two stretches."""
        if not self.draws.size:
            return (-math.inf, math.inf)
        low, high = np.quantile(self.draws, [(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)


def paired_difference(
    before: Matrix,
    after: Matrix,
    stamps_ns: NDArray[np.int64],
    *,
    length_s: float,
    samples: int,
    probability: float,
    seed: int,
) -> PairedDifference:
    """Compare two models on the same frames.

    Args:
        before: int64 ``[N, C, C]``, confusion matrices of the model in use; frames without a labelled pixel
            are no evidence and do not count.
        after: the same frames with the other model.
        stamps_ns: int64 ``[N]``.
        length_s: longest stretch, in seconds.
        samples: bootstrap draws.
        probability: the quantile at which the draws will be read, for the small-sample correction.
        seed: of the draws.
    """
    labelled = before.sum(axis=(1, 2)) > 0
    before, after = before[labelled], after[labelled]
    numbers = stretches(stamps_ns[labelled], length_s)
    count = int(numbers.max()) + 1 if numbers.size else 0
    whole = PairedDifference(miou(before.sum(axis=0)), miou(after.sum(axis=0)), len(before), count, np.empty(0))
    if count < 2:
        return whole
    weights = np.random.default_rng(seed).exponential(size=(samples, count))
    draws = _weighted_miou(after, numbers, weights) - _weighted_miou(before, numbers, weights)
    widened = whole.gain + (draws - whole.gain) * _widening(count, probability)
    return PairedDifference(whole.before, whole.after, whole.frames, count, widened)


def _weighted_miou(matrices: Matrix, numbers: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """MIoU in percent of every draw, float64 ``[samples]``."""
    classes = matrices.shape[-1]
    sums = np.zeros((weights.shape[1], classes * classes))
    np.add.at(sums, numbers, matrices.reshape(len(matrices), -1))
    pooled = (weights @ sums).reshape(-1, classes, classes)
    # Weights are positive, so the classes present are those of the whole set in every draw.
    return np.asarray(100.0 * np.nanmean(iou(pooled), axis=1))


def _widening(count: int, probability: float) -> float:
    z = NormalDist().inv_cdf(probability)
    return math.sqrt((count + 1) / (count - 1)) * (1.0 + (z * z + 1.0) / (4.0 * (count - 1)))
