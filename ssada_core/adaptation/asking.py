"""Asking humans: batches of queries out, labels back in, over the topic's callers or over folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ssada_core.adaptation.queries import choose
from ssada_core.adaptation.scorer import PoolScorer
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.annotation.folder import FolderExchange
from ssada_core.annotation.submit import SubmitResult
from ssada_core.errors import ConfigError, DataError, EngineError, StoreError
from ssada_core.store.pool import Choice, FramePool, FrameRecord, State

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

    def count_new(self, at_most: int, domain: str | None = None) -> int:
        """Frames that could be asked for and were not there at the last choice, counted up to ``at_most``."""
        # Frames that were there when the last batch was chosen had their chance.
        return self._scorer.count_candidates(after_id=self._last_batch_until, at_most=at_most, domain=domain)

    def count_audit(self, at_most: int, domain: str) -> int:
        """Frames of a road that :meth:`ask_audit` could ask for, counted up to ``at_most``."""
        return self._scorer.count_candidates(after_id=0, at_most=at_most, domain=domain)

    def ask(self, count: int, domain: str = "") -> list[FrameRecord]:
        """Choose frames and enter them as queries; returns them in the order to ask.

        Args:
            count: how many.
            domain: of this road, if there are enough of it: that is what is to be learned.

        Raises:
            SsadaError: if audit frames cannot be judged for the choice, or the disk refuses.
        """
        everything = self._scorer.candidates()
        own = [record for record in everything if record.domain == domain]
        candidates = own if len(own) >= count else everything
        records = choose(
            self._pool,
            candidates,
            version=self._scorer.version,
            count=count,
            iou=self._scorer.audit_iou(),
            settings=self._settings.acquisition,
            seed=self._settings.seed,
        )
        self._last_batch_until = max((record.id for record in everything), default=0)
        return self._asked(records)

    def ask_audit(self, count: int, domain: str) -> list[FrameRecord]:
        """Ask for more random frames of a road, by which a model can be judged, one for a stretch that has none first.

        Raises:
            StoreError: if the disk refuses.
        """
        known = [record.stamp_ns for record in self._pool.frames(audit=True, domain=domain) if record.query_id]
        candidates = self._scorer.candidates(domain)
        apart = round(self._settings.gate.stretch_s * 1e9)
        rng = np.random.default_rng([self._settings.seed, len(known), len(candidates)])
        chosen: list[FrameRecord] = []
        for alone in (True, False):
            for index in rng.permutation(len(candidates)):
                record = candidates[index]
                far = all(abs(record.stamp_ns - stamp) > apart for stamp in known)
                if len(chosen) < count and record not in chosen and (far or not alone):
                    chosen.append(record)
                    known.append(record.stamp_ns)
        reason = "drawn at random: the gate needs it to decide"
        return self.ask_for([Choice(record.id, 0.0, audit=True, reason=reason) for record in chosen])

    def ask_for(self, choices: Sequence[Choice]) -> list[FrameRecord]:
        """Ask for these frames; those that were asked for or evicted meanwhile are left out.

        Raises:
            StoreError: if the disk refuses.
        """
        buffered = {record.id for record in self._pool.frames(states=["buffered"])}
        return self._asked(self._pool.query([choice for choice in choices if choice.frame_id in buffered]))

    def _asked(self, records: list[FrameRecord]) -> list[FrameRecord]:
        if not records:
            return records
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
