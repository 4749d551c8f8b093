"""Which frames to ask a human for (METHOD §5), audit frames included (ARCHITECTURE contract 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
from numpy.typing import NDArray

from ssada_core.errors import ConfigError
from ssada_core.learning.diversity import farthest_first
from ssada_core.learning.weighting import fill_unknown
from ssada_core.settings import nearest

RANDOM = "random"
AUDIT_EVERY = 4


@dataclass(frozen=True)
class FrameStatistics:
    """What the current model says of one whole frame.

    Attributes:
        frame_id: identifies the frame in the pool.
        uncertainty: mean over pixels of −Σ p·log p / log C, in [0, 1].
        confidence: mean over pixels of max p, in [0, 1].
        histogram: pixels per predicted class, int ``[C]``.
        features: float ``[D]``, pooled from the context path.
    """

    frame_id: str
    uncertainty: float
    confidence: float
    histogram: NDArray[np.integer]
    features: NDArray[np.floating]


@dataclass(frozen=True)
class Choice:
    """One frame to ask for.

    Attributes:
        frame_id: the frame.
        score: its score under the strategy; high is asked first.
        audit: drawn at random, never to be trained on.
        reason: one sentence for the annotator and the log.
    """

    frame_id: str
    score: float
    audit: bool
    reason: str


def _iou_score(frame: FrameStatistics, iou: NDArray[np.float64]) -> float:
    # The mean over pixels of (1 − IoU[pred]) depends only on how many pixels each class got: exact.
    return float(frame.histogram @ (1.0 - iou) / max(int(frame.histogram.sum()), 1))


Score = Callable[[FrameStatistics, NDArray[np.float64]], float]

STRATEGIES: Mapping[str, Score] = {
    "entropy": lambda frame, _: frame.uncertainty,
    "confidence": lambda frame, _: 1.0 - frame.confidence,
    "iou_score": _iou_score,
    "eis": lambda frame, iou: frame.uncertainty + _iou_score(frame, iou),
}
"""Score per strategy, oriented so that high is asked first; :data:`RANDOM` draws its scores instead."""


def scores(
    frames: Sequence[FrameStatistics], *, strategy: str, iou: NDArray[np.floating] | None = None, seed: int = 0
) -> NDArray[np.float64]:
    """Score of each frame, float64 ``[N]``; high is asked first.

    Args:
        frames: the candidates.
        strategy: a key of :data:`STRATEGIES`, or ``random``.
        iou: per class ``[C]`` in [0, 1], from audit frames only; NaN where unknown. Without it every
            class is unknown, and ``eis`` orders as ``entropy`` does.
        seed: for ``random``.

    Raises:
        ConfigError: if there is no such strategy, or ``iou`` has another number of classes.
    """
    if strategy == RANDOM:
        return np.random.default_rng(seed).random(len(frames))
    if strategy not in STRATEGIES:
        raise ConfigError(f"unknown acquisition strategy '{strategy}'{nearest(strategy, [*STRATEGIES, RANDOM])}")
    if not frames:
        return np.empty(0)
    classes = len(frames[0].histogram)
    known = fill_unknown(np.full(classes, np.nan) if iou is None else np.asarray(iou))
    if len(known) != classes:
        raise ConfigError(f"IoU of {len(known)} classes for frames scored with {classes}: use one model's figures")
    score = STRATEGIES[strategy]
    return np.array([score(frame, known) for frame in frames])


def budget_count(share: float, total: int) -> int:
    """Frames in a share of ``total``, rounded half up as contract 10 says (25 % of 62 is 16)."""
    return int((Decimal(repr(share)) * total).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def audit_positions(count: int, *, every: int = AUDIT_EVERY, asked_before: int = 0) -> list[int]:
    """Positions within a batch of ``count`` that are audit frames: each ``every``-th ever asked; 0 means none."""
    if every == 0:
        return []
    return [position for position in range(count) if (asked_before + position + 1) % every == 0]


def systematic_sample(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """``count`` of ``total`` positions, evenly spread with one random start.

    Each position is drawn with probability exactly ``count / total`` (systematic sampling), and no
    stretch of the drive is left out.
    """
    if count == 0:
        return []
    step = total / count
    start = rng.random() * step
    return [min(int(start + index * step), total - 1) for index in range(count)]


def select(
    frames: Sequence[FrameStatistics],
    *,
    strategy: str,
    count: int,
    audit_every: int = AUDIT_EVERY,
    iou: NDArray[np.floating] | None = None,
    diverse: bool = True,
    seed: int = 0,
    already: Sequence[NDArray[np.floating]] = (),
    asked_before: int = 0,
    top_share: float = 0.5,
    neighbour_ratio: float = 0.25,
) -> list[Choice]:
    """Choose frames to ask for: each ``audit_every``-th at random, the others by score (METHOD §5).

    Audit frames are drawn before anything is taken by score, from all candidates: were the
    high-scoring ones gone first, those that judge the model would be too easy.

    Args:
        frames: candidates in the drive's order, not asked for before.
        strategy: see :func:`scores`.
        count: frames to ask for; fewer come back if there are fewer candidates.
        audit_every: each n-th frame ever asked is an audit frame; 0 means none.
        iou: see :func:`scores`.
        diverse: farthest-first among the top share instead of the plain top-k of the paper.
        seed: everything random follows from it.
        already: features ``[D]``, by the same model, of frames asked before, to keep away from.
        asked_before: number of frames asked in earlier batches, so that the audit share holds over all.
        top_share: share of the candidates, highest scores first, among which distance decides.
        neighbour_ratio: two frames closer than this share of the median distance are neighbours.

    Returns:
        Choices in the order to ask.

    Raises:
        ConfigError: if the strategy is unknown or ``iou`` does not fit.
    """
    count = min(count, len(frames))
    values = scores(frames, strategy=strategy, iou=iou, seed=seed)
    places = audit_positions(count, every=audit_every, asked_before=asked_before)
    audits = systematic_sample(len(frames), len(places), np.random.default_rng([seed, 1]))
    rest = np.setdiff1d(np.arange(len(frames)), audits)
    ranked = rest[np.argsort(-values[rest], kind="stable")]
    wanted = count - len(places)
    if diverse and wanted:
        top = max(wanted, math.ceil(top_share * len(ranked)))
        picks = _diverse(frames, ranked, wanted, top, away_from=audits, already=already, ratio=neighbour_ratio)
    else:
        picks = ranked[:wanted].tolist()
    return _interleave(frames, values, picks=picks, audits=audits, places=places, strategy=strategy)


def _diverse(
    frames: Sequence[FrameStatistics],
    ranked: NDArray[np.int64],
    count: int,
    top: int,
    *,
    away_from: Sequence[int],
    already: Sequence[NDArray[np.floating]],
    ratio: float,
) -> list[int]:
    """Different scenes, unlike those asked before and unlike the audit frames: near-copies would flatter the model."""
    features = np.stack([frame.features for frame in frames])
    anchors = [*already, *features[list(away_from)]]
    return farthest_first(features, ranked, count, top=top, anchors=anchors, neighbour_ratio=ratio)


def _interleave(
    frames: Sequence[FrameStatistics],
    values: NDArray[np.float64],
    *,
    picks: Sequence[int],
    audits: Sequence[int],
    places: Sequence[int],
    strategy: str,
) -> list[Choice]:
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    drawn, picked = iter(audits), iter(picks)
    choices = []
    for position in range(len(picks) + len(audits)):
        audit = position in places
        index = next(drawn) if audit else next(picked)
        score = float(values[index])
        reason = "audit: drawn at random" if audit else f"{strategy} {score:.3f}, rank {ranks[index]} of {len(values)}"
        choices.append(Choice(frames[index].frame_id, score, audit, reason))
    return choices
