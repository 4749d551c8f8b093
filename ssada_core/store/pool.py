"""The frame pool: frames of the vehicle's cameras, the questions asked about them, and the answers.

A folder with ``pool.sqlite`` and image files (ARCHITECTURE contracts 2 and 3)::

    buffered ─ query ─► queried ─ accept_label ─► labelled
                            ├── hold_label ─► held ─ accept_held ─► labelled
                            ├── skip ─► skipped
                            └── reject ─► rejected (the image is deleted)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from ssada_core.data.compressed import encode_png
from ssada_core.data.samples import Array
from ssada_core.errors import StoreError
from ssada_core.labels import LabelSpace
from ssada_core.store import pool_clips, pool_files, pool_queries, pool_scores, pool_upkeep
from ssada_core.store.files import make_directory, write_atomic
from ssada_core.store.pool_intake import Intake
from ssada_core.store.pool_keeping import PoolKeeper
from ssada_core.store.pool_records import (
    STATES,
    Added,
    AddReason,
    Choice,
    Clip,
    FrameRecord,
    FrameScores,
    LabelVersion,
    PoolSettings,
    PoolStats,
    State,
)
from ssada_core.store.pool_schema import Database, identify

__all__ = [
    "STATES",
    "AddReason",
    "Added",
    "Choice",
    "Clip",
    "FramePool",
    "FrameRecord",
    "FrameScores",
    "LabelVersion",
    "PoolSettings",
    "PoolStats",
    "State",
]

DATABASE_FILE = "pool.sqlite"
EXPIRE_EVERY_S = 3600.0

_log = logging.getLogger(__name__)


class FramePool(PoolKeeper):
    """The pool in the folder ``root``, for all threads of a process; other processes open it beside.

    Opening creates what is missing and cleans up after a killed process. Errors of the disk are
    :class:`StoreError` with path and remedy.
    """

    def __init__(self, root: str | Path, settings: PoolSettings, *, label_space: LabelSpace, tidy: bool = True) -> None:
        """Open or create.

        Args:
            root: the pool's folder.
            settings: what is stored.
            label_space: of its labels.
            tidy: clean up, and purge what is too old; False only looks, and leaves every frame what it is.

        Raises:
            StoreError: if the folder cannot be used, its images are away, its files are of another pool, or its labels
                of another label space.
        """
        make_directory(Path(root))
        pool_files.check_new(Path(root), DATABASE_FILE)
        super().__init__(Path(root), Database(Path(root) / DATABASE_FILE), settings)
        self.label_space = label_space
        self._intake = Intake(self._database, self.root, settings)
        try:
            self.pool_id = identify(self._database, label_space)
            if tidy:
                for line in pool_upkeep.clean(self._database, self.root):
                    _log.warning("frame pool %s: %s", self.root, line)
                self.expire()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> FramePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the pool; more than once is fine. Everything is already on the disk."""
        self._database.close()

    # Frames in

    def add(
        self, image: Array | None, *, jpeg: bytes | None = None, camera: str, stamp_ns: int, domain: str = ""
    ) -> Added:
        """Store a frame, if it is due, new and there is room.

        Args:
            image: uint8 H×W×3 BGR; may be None where ``jpeg`` is given.
            jpeg: the camera's own JPEG bytes, stored as they are.
            camera: its name.
            stamp_ns: the frame's time stamp; the rate counts by it.
            domain: name of the kind of road it was taken on.

        Returns:
            The record where it was stored, and why or why not: ``stored``, ``rate`` (not due), ``standstill``,
            ``duplicate``, ``full`` (frames that were asked for fill the pool), ``disk`` (too little disk free),
            ``privacy`` (nobody could look for faces and plates in it).

        Raises:
            DataError: if there is no image, or it is not one.
            StoreError: if the pool cannot be written for another reason than room.
        """
        if time.monotonic() - self._expired_at > EXPIRE_EVERY_S:
            self.expire()
        return self._intake.add(image, jpeg, camera, stamp_ns, domain=domain, clip=None)

    def flag(self, stamp_ns: int) -> Clip:
        """A driver says that something went wrong at this stamp. On return it survives a power cut.

        Raises:
            StoreError: if the disk refuses.
        """
        with self._database.transaction(durable=True):
            return pool_clips.flag(self._database, stamp_ns)

    def keep(
        self, clip: int, image: Array | None, *, jpeg: bytes | None = None, camera: str, stamp_ns: int, domain: str = ""
    ) -> Added:
        """Store a frame of a flagged moment, whatever the rate and however like its neighbours; it is never evicted.

        Raises:
            DataError: if there is no image, or it is not one.
            StoreError: if the pool cannot be written for another reason than room.
        """
        return self._intake.add(image, jpeg, camera, stamp_ns, domain=domain, clip=clip)

    def name_domain(self, domain: str, *, since_id: int) -> int:
        """Give a frame and all that came after it to a domain: a change of road is noticed some frames late.

        Raises:
            StoreError: if the disk refuses.
        """
        with self._database.transaction(durable=True):
            return pool_clips.name_domain(self._database, domain, since_id=since_id)

    @property
    def trouble(self) -> str:
        """Why frames are not stored at present; "" where they are, or need not be."""
        return self._intake.trouble

    # What models say

    def set_scores(self, frame_id: int, scores: FrameScores) -> None:
        """Keep what a model said of a frame, in place of what was said before. An evicted frame is passed over.

        Raises:
            StoreError: if a score is not finite, or the disk refuses.
        """
        self.set_many_scores({frame_id: scores})

    def set_many_scores(self, scores: Mapping[int, FrameScores]) -> None:
        """The same for many frames in one transaction."""
        with self._database.transaction(durable=False):
            pool_scores.write(self._database, scores)

    def set_prediction(self, frame_id: int, label: Array, confidence: Array) -> None:
        """Keep a model's answer to a frame: it is what a label is checked against, and an annotator's first draft.

        Args:
            frame_id: the frame.
            label: uint8 H×W class ids, of any size.
            confidence: uint8 H×W, 255 × the largest class probability.

        Raises:
            StoreError: if there is no such frame, or the disk refuses.
        """
        data = encode_png(np.vstack([label, confidence]))
        file = pool_files.prediction_file(frame_id)
        with self._database.transaction(durable=False):
            self.get(frame_id)
            make_directory(self.root / pool_files.PREDICTIONS)
            write_atomic(self.root / file, data)
            self._database.execute("UPDATE frames SET prediction_file=? WHERE id=?", (file, frame_id))

    # Questions and answers

    def query(self, choices: Sequence[Choice]) -> list[FrameRecord]:
        """Ask for labels of buffered frames: one batch, all of it or nothing. Returns the records in that order.

        Raises:
            StoreError: if a frame is unknown, chosen twice or not buffered.
        """
        if not choices:
            return []
        with self._database.transaction(durable=True):
            pool_queries.ask(self._database, self.pool_id, choices)
            return [self.get(choice.frame_id) for choice in choices]

    def accept_label(self, query_id: str, label: Array, annotator: str) -> FrameRecord:
        """Make ``label`` (uint8 H×W class ids and 255) the query's label. On return it survives a power cut.

        A later label replaces it and the old file stays. Labels come through :func:`ssada_core.annotation.submit`,
        which judges them first.

        Raises:
            StoreError: if the query is unknown or rejected, or the disk refuses.
            LabelError: if the label is not of the frame's size.
        """
        self._labels.accept(query_id, label, annotator)
        return self.by_query(query_id)

    def hold_label(self, query_id: str, label: Array, annotator: str, why: str) -> FrameRecord:
        """Keep a suspicious label for a second look; a label accepted earlier stays in force.

        Raises:
            StoreError: if the query is unknown or rejected, or the disk refuses.
            LabelError: if the label is not of the frame's size.
        """
        self._labels.hold(query_id, label, annotator, why)
        return self.by_query(query_id)

    def accept_held(self, query_id: str, annotator: str) -> FrameRecord:
        """Accept the newest held label after all.

        Raises:
            StoreError: if the query is unknown or rejected, or no label of it is held.
        """
        self._labels.accept_held(query_id, annotator)
        return self.by_query(query_id)

    def skip(self, query_id: str, reason: str) -> FrameRecord:
        """The human cannot or will not label this one; the frame stays, unlabelled.

        Raises:
            StoreError: if the query is unknown, labelled or rejected.
        """
        with self._database.transaction(durable=True):
            self._close_query(query_id, "skipped", reason)
        return self.by_query(query_id)

    def reject(self, query_id: str, reason: str) -> FrameRecord:
        """This frame must not be kept: image, drafts and held labels are deleted. Copies of it are not stored again.

        Raises:
            StoreError: if the query is unknown, labelled or rejected.
        """
        with self._database.transaction(durable=True):
            record = self._close_query(query_id, "rejected", reason)
            files = [*pool_upkeep.files_of(self._database, [record.id]), pool_files.prediction_file(record.id)]
            self._database.execute("DELETE FROM labels WHERE frame_id=?", (record.id,))
            self._database.execute(
                "UPDATE frames SET bytes=0, prediction_file=NULL, label_file=NULL WHERE id=?", (record.id,)
            )
        self._delete(files, [query_id])
        return self.by_query(query_id)

    def _close_query(self, query_id: str, state: State, reason: str) -> FrameRecord:
        record = self.by_query(query_id)
        if record.state not in {"queried", "held", "skipped"}:
            raise StoreError(f"query '{query_id}' is {record.state}: only open ones can be {state}; purge deletes any")
        self._database.execute("UPDATE frames SET state=?, reason=? WHERE id=?", (state, reason, record.id))
        return record
