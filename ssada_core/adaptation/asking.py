"""Asking humans: batches of queries out, labels back in, over the topic's callers or over folders."""

from __future__ import annotations

from collections.abc import Callable

from ssada_core.adaptation.queries import choose
from ssada_core.adaptation.scorer import PoolScorer
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.annotation.folder import FolderExchange
from ssada_core.annotation.submit import SubmitResult
from ssada_core.errors import ConfigError, DataError, EngineError, StoreError
from ssada_core.store.pool import FramePool, FrameRecord, State

ASKED_STATES: tuple[State, ...] = ("queried", "labelled", "held", "skipped")
"""Frames that count in the budget, answered or not; rejected ones cost nobody a label."""


class Questions:
    """Chooses frames of a pool to ask for, with the model in use."""

    def __init__(
        self, pool: FramePool, scorer: PoolScorer, settings: AdaptationSettings, log: Callable[[str], None]
    ) -> None:
        """Open the folders of the exchange, if there are any, and put the open queries there.

        Raises:
            ConfigError: if only one of the two folders is named.
            StoreError: if a folder cannot be used.
        """
        self._pool = pool
        self._scorer = scorer
        self._settings = settings
        self._log = log
        self._folder = _open_folder(pool, settings)
        asked = pool.frames(states=ASKED_STATES)
        self._last_batch_until = max((record.id for record in asked), default=0)

    def count_new(self, at_most: int) -> int:
        """Frames that could be asked for and were not there at the last choice, counted up to ``at_most``."""
        # Frames that were there when the last batch was chosen had their chance.
        return self._scorer.count_candidates(after_id=self._last_batch_until, at_most=at_most)

    def ask(self, count: int) -> list[FrameRecord]:
        """Choose frames and enter them as queries; returns them in the order to ask.

        Raises:
            SsadaError: if audit frames cannot be judged for the choice, or the disk refuses.
        """
        candidates = self._scorer.candidates()
        records = choose(
            self._pool,
            candidates,
            version=self._scorer.version,
            count=count,
            iou=self._scorer.audit_iou(),
            settings=self._settings.acquisition,
            seed=self._settings.seed,
        )
        self._last_batch_until = max((record.id for record in candidates), default=0)
        try:
            self._scorer.keep_predictions(records)
        except (StoreError, DataError, EngineError) as error:  # an annotator can do without a draft
            self._log(f"no prediction is kept for the queries: {error}")
        self._log(f"asking for {len(records)} labels, {sum(record.audit for record in records)} of them to judge by")
        return records

    def publish(self) -> None:
        """Put the open queries into the exchange's folder.

        Raises:
            StoreError: if the disk refuses.
        """
        if self._folder is not None:
            self._folder.write_queries()

    def poll(self) -> list[SubmitResult]:
        """Take the labels that lie in the exchange's folder.

        Raises:
            StoreError: if the disk refuses.
        """
        return list(self._folder.poll()) if self._folder is not None else []


def _open_folder(pool: FramePool, settings: AdaptationSettings) -> FolderExchange | None:
    if bool(settings.queries_dir) != bool(settings.labels_dir):
        raise ConfigError("queries_dir and labels_dir belong together: set both, or neither")
    if not settings.queries_dir:
        return None
    folder = FolderExchange(pool, settings.queries_dir, settings.labels_dir, settings=settings.label_check)
    folder.write_queries()
    return folder
