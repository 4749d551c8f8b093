"""Which frames of the pool a run of the adaptation benchmark has labelled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssada_core.bench.adaptation_settings import BenchAcquisition, Recipe
from ssada_core.data.samples import Samples
from ssada_core.errors import DataError
from ssada_core.evaluation.metrics import confusion, iou
from ssada_core.inference.engine import Engine
from ssada_core.learning.acquisition import FrameStatistics, budget_count, select


def choose(
    pool: Samples, chosen: Recipe, engine: Engine, num_classes: int, settings: BenchAcquisition, *, seed: int
) -> tuple[list[int], NDArray[np.float64] | None]:
    """Positions of the frames to label, and the source model's IoU per class on the first of them.

    SS-ADA asks in two steps, as its authors' schedule does before it trains: a random few, whose labels give the IoU
    per class that ``eis`` and the class weights need, then the rest by score. The model has not trained on those few,
    so the IoU is not too kind. Where all are at random, the first of them still give SS-ADA's IoU, so that the choice
    is all that differs. Baselines take all of theirs at random and have no IoU.

    Args:
        pool: the target frames.
        chosen: share and strategy.
        engine: the source model.
        num_classes: C.
        settings: of the two steps.
        seed: of everything random.

    Raises:
        DataError: if a chosen frame has no label.
    """
    count = budget_count(chosen.share, len(pool))
    rng = np.random.default_rng([seed, 17])
    order = rng.permutation(len(pool)).tolist()
    first = sorted(order[: max(1, budget_count(settings.first_share, count))])
    baseline = chosen.mode != "ssada" and chosen.strategy == "random"
    known = None if baseline or not count else _iou(pool, first, engine, num_classes)
    if chosen.strategy == "random" or count == len(pool):
        return sorted(order[:count]), known
    statistics = [_statistics(pool, index, engine, num_classes) for index in range(len(pool))]
    rest = [statistics[index] for index in range(len(pool)) if index not in first]
    picks = select(
        rest,
        strategy=chosen.strategy,
        count=count - len(first),
        audit_every=0,
        iou=known,
        diverse=chosen.diverse,
        seed=seed,
        already=[statistics[index].features for index in first],
        top_share=settings.top_share,
        neighbour_ratio=settings.neighbour_ratio,
    )
    return sorted([*first, *(int(pick.frame_id) for pick in picks)]), known


def _statistics(pool: Samples, index: int, engine: Engine, num_classes: int) -> FrameStatistics:
    (prediction,) = engine.infer([pool.image(index)], features=True)
    if prediction.features is None:
        raise DataError("the source model gives no features: export it again")
    return FrameStatistics(
        frame_id=str(index),
        uncertainty=prediction.uncertainty,
        confidence=float(prediction.confidence.mean()) / 255.0,
        histogram=np.bincount(prediction.label.ravel(), minlength=num_classes)[:num_classes],
        features=prediction.features,
    )


def _iou(pool: Samples, indices: list[int], engine: Engine, num_classes: int) -> NDArray[np.float64]:
    total = np.zeros((num_classes, num_classes), np.int64)
    for index in indices:
        label = pool.label(index)
        if label is None:
            raise DataError(f"{pool.name(index)} has no label: the pool of a benchmark is labelled throughout")
        (prediction,) = engine.infer([pool.image(index)])
        total += confusion(prediction.label, label, num_classes)
    return iou(total)
