"""The current model at work on stored frames: their statistics, and its answers for annotators and label check."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssada_core.adaptation.queries import ASKED
from ssada_core.adaptation.scoring import summarise
from ssada_core.data.encodings import decode_compressed
from ssada_core.data.samples import Array
from ssada_core.errors import DataError, EngineError, StoreError
from ssada_core.evaluation.metrics import confusion, iou
from ssada_core.inference.engine import Engine, EngineSettings, Prediction
from ssada_core.inference.load import load_engine
from ssada_core.store.pool import FramePool
from ssada_core.store.pool_records import FrameRecord, State
from ssada_core.store.registry import ModelRegistry

MOST_GLANCES = 2


@dataclass(frozen=True)
class Live:
    """A frame that the vehicle sees now, with the answer of the model in use.

    Attributes:
        image: uint8 H×W×3 BGR.
        prediction: with features.
        camera: the camera's name.
        stamp_ns: the frame's time stamp.
        frame_id: its number in the pool; None where it was not stored.
    """

    image: Array
    prediction: Prediction
    camera: str
    stamp_ns: int
    frame_id: int | None


@dataclass(frozen=True)
class Glance:
    """A frame that the pool did not keep, to be looked at all the same; ``image`` or ``jpeg`` is there."""

    image: Array | None
    jpeg: bytes | None
    camera: str
    stamp_ns: int


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
        self._fresh: set[int] = set()
        self._glances: deque[Glance] = deque(maxlen=MOST_GLANCES)
        self.on_live: Callable[[Live], None] | None = None
        """Who is shown the frames that the vehicle sees now; not the backlog."""
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
        self._fresh.add(record.id)

    def glance(self, glance: Glance) -> None:
        """Look at a frame that the pool has no room for; when too many wait, the oldest is forgotten."""
        self._glances.append(glance)

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
        if self._glances:
            self._look(self._glances.popleft())
            return True
        if not self._todo:
            return False
        frame_id = self._todo.pop()
        fresh = frame_id in self._fresh
        self._fresh.discard(frame_id)
        try:
            record = self._pool.get(frame_id)
            image = self._pool.image(record)
        except StoreError:
            return True  # evicted while it waited
        prediction = self.predict(image)
        scores = summarise(prediction, model_version=self.version, num_classes=self._classes)
        self._pool.set_scores(record.id, scores)
        if fresh and self.on_live is not None:
            self.on_live(Live(image, prediction, record.camera, record.stamp_ns, record.id))
        return True

    def _look(self, glance: Glance) -> None:
        if self.on_live is None:
            return
        image = glance.image if glance.image is not None else decode_compressed(glance.jpeg or b"")
        self.on_live(Live(image, self.predict(image), glance.camera, glance.stamp_ns, None))

    def count_candidates(self, *, after_id: int, at_most: int, domain: str | None = None) -> int:
        """How many of :meth:`candidates` have a higher id, counted up to ``at_most``."""
        return self._pool.count(
            states=["buffered"],
            after_id=after_id,
            model_version=self.version,
            at_most=at_most,
            domain=domain,
            flagged=False,
        )

    def candidates(self, domain: str | None = None) -> list[FrameRecord]:
        """Buffered frames that the version in use has scored: those that can be asked for.

        Those of a driver's flags are asked for in another way.
        """
        frames = self._pool.frames(states=["buffered"], domain=domain, flagged=False)
        return [record for record in frames if record.model_version == self.version]

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
        for record in self._pool.frames(states=["labelled"], audit=True, flagged=False):
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
