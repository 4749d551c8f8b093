"""The current model at work on stored frames: their statistics, and its answers for annotators and label check."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ssada_core.adaptation.queries import ASKED
from ssada_core.adaptation.scoring import summarise
from ssada_core.errors import DataError, EngineError, StoreError
from ssada_core.evaluation.metrics import confusion, iou
from ssada_core.inference.engine import Engine, EngineSettings, Prediction
from ssada_core.inference.load import load_engine
from ssada_core.store.pool import FramePool
from ssada_core.store.pool_records import FrameRecord, State
from ssada_core.store.registry import ModelRegistry


class PoolScorer:
    """Keeps the statistics of a pool's buffered frames up to date with the version in use, one frame at a time."""

    def __init__(
        self, pool: FramePool, registry: ModelRegistry, settings: EngineSettings, log: Callable[[str], None]
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._settings = settings
        self._log = log
        self._engine: Engine | None = None
        self._todo: list[int] = []  # taken from the end
        self.version = ""

    def use(self, version: str) -> None:
        """Switch to a version; frames scored by another one are scored again, newest first.

        Frames that were asked for come before all others: the next choice keeps away from them, and distances mean
        something only between features of one model.

        Raises:
            ModelError: if there is no such version.
            EngineError: if it cannot be run.
        """
        if version == self.version:
            return
        engine = load_engine(self._registry.path(version), self._settings, log=self._log)
        self.close()
        self._engine, self.version = engine, version
        waiting = [*self._stale(["buffered"]), *self._stale(ASKED)]
        self._todo = [record.id for record in waiting]

    def _stale(self, states: Collection[State]) -> list[FrameRecord]:
        return [record for record in self._pool.frames(states=states) if record.model_version != self.version]

    def enqueue(self, record: FrameRecord) -> None:
        """Score a new frame next: what the vehicle sees now matters more than a backlog."""
        self._todo.append(record.id)

    def predict(self, image: NDArray[np.uint8]) -> Prediction:
        """Segment one frame (uint8 H×W×3 BGR), at its own size.

        Raises:
            EngineError: if no version is in use, or the engine fails.
        """
        if self._engine is None:
            raise EngineError("no model is loaded to score frames with: promote a version first")
        (prediction,) = self._engine.infer([image], features=True)
        return prediction

    def score_next(self) -> bool:
        """Score one waiting frame; False when none waits.

        Raises:
            StoreError: if the disk refuses, or the model's figures are not finite.
            DataError: if the frame cannot be decoded; it is not tried again by this version.
            EngineError: if the model fails; likewise.
        """
        if not self._todo:
            return False
        try:
            record = self._pool.get(self._todo.pop())
            image = self._pool.image(record)
        except StoreError:
            return True  # evicted while it waited
        scores = summarise(self.predict(image), model_version=self.version, num_classes=self._classes)
        self._pool.set_scores(record.id, scores)
        return True

    def count_candidates(self, *, after_id: int, at_most: int) -> int:
        """How many of :meth:`candidates` have a higher id, counted up to ``at_most``."""
        return self._pool.count(states=["buffered"], after_id=after_id, model_version=self.version, at_most=at_most)

    def candidates(self) -> list[FrameRecord]:
        """Buffered frames that the version in use has scored: those that can be asked for."""
        return [record for record in self._pool.frames(states=["buffered"]) if record.model_version == self.version]

    def keep_predictions(self, records: Sequence[FrameRecord]) -> None:
        """Store the model's answer to frames that were asked for: the annotator's first draft.

        Raises:
            StoreError: if a frame has gone, or the disk refuses.
            DataError: if a frame cannot be decoded.
            EngineError: if the model fails.
        """
        for record in records:
            prediction = self.predict(self._pool.image(record))
            self._pool.set_prediction(record.id, prediction.label, prediction.confidence)

    def audit_iou(self) -> NDArray[np.float64] | None:
        """IoU per class in [0, 1] on the labelled audit frames, NaN where unknown; None without such frames."""
        total = np.zeros((self._classes, self._classes), np.int64)
        for record in self._pool.frames(states=["labelled"], audit=True):
            try:
                label, image = self._pool.label(record), self._pool.image(record)
            except (StoreError, DataError) as error:  # a damaged file: the other frames still say something
                self._log(f"query {record.query_id} is not judged by: {error}")
                continue
            if label is not None:
                total += confusion(self.predict(image).label, label, self._classes)
        return iou(total) if total.any() else None

    def close(self) -> None:
        """Free the engine."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self.version = None, ""

    @property
    def _classes(self) -> int:
        return self._pool.label_space.num_classes
