"""From scored frames of the pool to the next query batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssada_core.learning.acquisition import FrameStatistics, select
from ssada_core.learning.settings import AcquisitionSettings
from ssada_core.store.pool import FramePool
from ssada_core.store.pool_records import Choice, FrameRecord

ASKED: tuple[Literal["queried", "labelled", "held"], ...] = ("queried", "labelled", "held")
"""States of frames whose scene a human has seen or will see."""


def choose(
    pool: FramePool,
    candidates: Sequence[FrameRecord],
    *,
    version: str,
    count: int,
    iou: NDArray[np.floating] | None,
    settings: AcquisitionSettings,
    seed: int,
) -> list[FrameRecord]:
    """Choose ``count`` frames and enter them as queries.

    Args:
        pool: where they are kept.
        candidates: buffered frames, scored by the model in use.
        version: the model in use. Frames it has not scored are left out, among the candidates and among those asked
            before: features of two models have no distance.
        count: how many to ask for.
        iou: IoU per class on audit frames in [0, 1], NaN where unknown, or None.
        settings: strategy and audit share.
        seed: everything random in the choice follows from it and the number of frames asked before.

    Returns:
        The queried frames, in the order to ask.

    Raises:
        StoreError: if a frame is no longer buffered.
    """
    asked = [record for record in pool.frames(states=list(ASKED)) if record.query_id is not None]
    frames = statistics(pool, candidates, version=version)
    choices = select(
        frames,
        strategy=settings.strategy,
        count=count,
        audit_every=settings.audit_every,
        iou=iou,
        diverse=settings.diverse,
        seed=seed + len(asked),
        already=[frame.features for frame in statistics(pool, asked, version=version)],
        asked_before=len(asked),
        top_share=settings.top_share,
        neighbour_ratio=settings.neighbour_ratio,
    )
    return pool.query([Choice(int(choice.frame_id), choice.score, choice.audit, choice.reason) for choice in choices])


def statistics(pool: FramePool, records: Sequence[FrameRecord], *, version: str) -> list[FrameStatistics]:
    """What ``version`` said of the frames, in the order given; those it has not scored are left out."""
    scores = pool.scores([record.id for record in records])
    return [
        FrameStatistics(
            frame_id=str(record.id),
            uncertainty=score.uncertainty,
            confidence=score.confidence,
            histogram=np.asarray(score.histogram, np.int64),
            features=score.features,
        )
        for record in records
        if (score := scores.get(record.id)) is not None
        and score.features is not None
        and score.model_version == version
    ]
