"""The pool's frames as samples for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from ssada_core.data.samples import Array, check_sizes
from ssada_core.store.pool import FramePool
from ssada_core.store.pool_records import FrameRecord


class PoolSamples:
    """Frames of a pool behind the ``Samples`` protocol; pixels are read when they are asked for."""

    def __init__(self, pool: FramePool, records: Sequence[FrameRecord]) -> None:
        """Keep the records, in their order. The pool must stay open meanwhile."""
        self._pool = pool
        self.records = tuple(records)

    def __len__(self) -> int:
        return len(self.records)

    def name(self, index: int) -> str:
        """The query's id, or ``frame-<number>`` where nobody was asked."""
        record = self.records[index]
        return record.query_id or f"frame-{record.id:06d}"

    def image(self, index: int) -> Array:
        """The frame, uint8 H×W×3 BGR.

        Raises:
            StoreError: if it was evicted meanwhile.
            DataError: if it cannot be decoded.
        """
        return self._pool.image(self.records[index])

    def label(self, index: int) -> Array | None:
        """The accepted label, uint8 H×W, or None.

        Raises:
            StoreError: if its file has gone.
            DataError: if it does not fit the frame.
        """
        record = self.records[index]
        label = self._pool.label(record)
        if label is not None and label.shape != record.size:
            check_sizes(self.name(index), self.image(index), label)
        return label


def training_samples(pool: FramePool) -> tuple[PoolSamples, PoolSamples]:
    """Labelled and unlabelled frames to train on. Audit frames are in neither (ARCHITECTURE contract 3)."""
    labelled = pool.frames(states=["labelled"], audit=False)
    unlabelled = pool.frames(states=["buffered", "queried", "held", "skipped"], audit=False)
    return PoolSamples(pool, labelled), PoolSamples(pool, unlabelled)


def audit_samples(pool: FramePool) -> PoolSamples:
    """The labelled audit frames, which alone judge models; a driver's flags are no random sample of the road."""
    return PoolSamples(pool, pool.frames(states=["labelled"], audit=True, flagged=False))
