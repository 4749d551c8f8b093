"""The half of the frame pool that only reads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from ssada_core.data.compressed import decode_compressed, decode_label
from ssada_core.data.samples import Array
from ssada_core.store import pool_clips, pool_queries, pool_scores, pool_upkeep
from ssada_core.store.files import store_error
from ssada_core.store.pool_labels import LabelStore
from ssada_core.store.pool_records import STATES, Clip, FrameRecord, FrameScores, LabelVersion, PoolStats, State
from ssada_core.store.pool_schema import Database


class PoolReader:
    """What :class:`~ssada_core.store.pool.FramePool` answers without changing anything."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root
        self._database = database
        self._labels = LabelStore(database, root)

    def scores(
        self, frame_ids: Sequence[int] | None = None, *, states: Collection[State] | None = None
    ) -> dict[int, FrameScores]:
        """Scores by frame id, of these frames, or of all frames in these states; frames without any are left out."""
        if frame_ids is not None:
            return pool_scores.by_ids(self._database, frame_ids)
        return pool_scores.by_states(self._database, pool_queries.check_states(states or STATES))

    def prediction(self, record: FrameRecord) -> tuple[Array, Array] | None:
        """The stored answer: label and confidence, each uint8 H×W; None where there is none."""
        row = self._database.row("SELECT prediction_file FROM frames WHERE id=?", (record.id,))
        if row is None or row["prediction_file"] is None:
            return None
        both = decode_label(self._read(row["prediction_file"]))
        half = both.shape[0] // 2
        return both[:half], both[half:]

    def frames(
        self,
        *,
        states: Collection[State] | None = None,
        audit: bool | None = None,
        camera: str | None = None,
        after_id: int | None = None,
        domain: str | None = None,
        flagged: bool | None = None,
    ) -> list[FrameRecord]:
        """Frames that fit every condition given, in the drive's order: by stamp, then id.

        ``flagged`` frames are those of the driver's clips.
        """
        return pool_queries.frames(
            self._database,
            states=states,
            audit=audit,
            camera=camera,
            after_id=after_id,
            domain=domain,
            flagged=flagged,
        )

    def count(
        self,
        *,
        states: Collection[State],
        audit: bool | None = None,
        after_id: int = 0,
        model_version: str | None = None,
        at_most: int | None = None,
        domain: str | None = None,
        flagged: bool | None = None,
    ) -> int:
        """How many frames fit every condition given, counted up to ``at_most``; for questions asked twice a second."""
        return pool_queries.count(
            self._database,
            states=states,
            audit=audit,
            after_id=after_id,
            model_version=model_version,
            at_most=at_most,
            domain=domain,
            flagged=flagged,
        )

    def clips(self) -> list[Clip]:
        """Every moment that a driver flagged, oldest first."""
        return pool_clips.clips(self._database)

    def unasked_clips(self) -> list[Clip]:
        """Those without a frame that judges (asked for, answered or not) and with one that can be asked for."""
        return pool_clips.unasked(self._database)

    def get(self, frame_id: int) -> FrameRecord:
        """One frame by number.

        Raises:
            StoreError: if there is no such frame (any more).
        """
        return pool_queries.get(self._database, frame_id)

    def by_query(self, query_id: str) -> FrameRecord:
        """One frame by its query's id.

        Raises:
            StoreError: if no such question was asked here.
        """
        return pool_queries.by_query(self._database, query_id)

    def image(self, record: FrameRecord) -> Array:
        """The frame, uint8 H×W×3 BGR.

        Raises:
            StoreError: if its file has gone.
            DataError: if it cannot be decoded.
        """
        return decode_compressed(self.image_bytes(record))

    def image_bytes(self, record: FrameRecord) -> bytes:
        """The frame as it is stored: JPEG.

        Raises:
            StoreError: if its file has gone.
        """
        return self._read(record.image_file)

    def label(self, record: FrameRecord) -> Array | None:
        """The accepted label, uint8 H×W; None where there is none. The newest one, also for an older record.

        Raises:
            StoreError: if its file has gone, or is not what was stored.
        """
        file = self.get(record.id).label_file
        return None if file is None else decode_label(self._labels.read(file))

    def labels_accepted(self) -> int:
        """How many queries ever got their label, those that were purged since among them: it never falls."""
        return self._labels.accepted()

    def label_history(self, query_id: str) -> list[LabelVersion]:
        """All labels ever given for a query, oldest first.

        Raises:
            StoreError: if the query is unknown.
        """
        return self._labels.history(query_id)

    def label_twin(self, query_id: str, label: Array) -> str | None:
        """Another query that has exactly this label in its history (uint8 H×W); None if there is none."""
        return self._labels.twin(query_id, label)

    def read_label(self, version: LabelVersion) -> Array:
        """A label of the history, uint8 H×W.

        Raises:
            StoreError: if its file has gone, or is not what was stored.
        """
        return decode_label(self._labels.read(version.file))

    def stats(self) -> PoolStats:
        """The pool in figures."""
        return pool_queries.stats(self._database)

    def verify(self) -> list[str]:
        """Problems between files and rows, one line each; empty when all is well."""
        return pool_upkeep.verify(self._database, self.root)

    def _read(self, file: str) -> bytes:
        try:
            return (self.root / file).read_bytes()
        except OSError as error:
            raise store_error("read", self.root / file, error) from error
