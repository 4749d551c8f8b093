"""The half of the frame pool that takes things out: what must not stay, and what is too old."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ssada_core.data.compressed import encode_jpeg
from ssada_core.data.privacy import Hider
from ssada_core.store import pool_drafts, pool_files, pool_retention, pool_upkeep
from ssada_core.store.files import DiskFullError, write_atomic
from ssada_core.store.pool_filters import thumbnail
from ssada_core.store.pool_reader import PoolReader
from ssada_core.store.pool_records import PoolSettings
from ssada_core.store.pool_schema import Database

_log = logging.getLogger(__name__)


class PoolKeeper(PoolReader):
    """What :class:`~ssada_core.store.pool.FramePool` hides, purges and lets expire."""

    def __init__(self, root: Path, database: Database, settings: PoolSettings) -> None:
        super().__init__(root, database)
        self.settings = settings
        self._expired_at = time.monotonic()
        self._clock_read = False

    def hide(self, frame_id: int, hider: Hider) -> int:
        """Hide what ``hider`` finds in a stored frame: for frames that came in before anything looked for it.

        Returns:
            How many places were hidden; 0 leaves the frame as it is.

        Raises:
            PrivacyError: if a detector fails; the frame stays as it is.
            StoreError: if the frame has gone, or the disk refuses.
        """
        record = self.get(frame_id)
        image, found = hider.hide(self.image(record))
        if found:
            data = encode_jpeg(image, self.settings.jpeg_quality)
            file = pool_files.next_name(record.image_file)
            with self._database.transaction(durable=True):
                write_atomic(self.root / file, data)
                self._database.execute(
                    "UPDATE frames SET image_file=?, bytes=?, thumbnail=? WHERE id=?",
                    (file, len(data), thumbnail(image).tobytes(), frame_id),
                )
            self._delete([record.image_file])
        return found

    def expire(self) -> int:
        """Purge what is older than ``retention_days``; returns how many frames that were. Done when opened and hourly.

        Raises:
            StoreError: if the disk refuses.
        """
        before, self._expired_at = self._expired_at, time.monotonic()
        ran_ns = round((self._expired_at - before) * 1e9) if self._clock_read else None
        self._clock_read = True
        if self.settings.retention_days <= 0:
            return 0
        try:
            with self._database.transaction(durable=False):
                expired, doubt = pool_retention.expired(self._database, self.settings.retention_days, ran_ns)
        except DiskFullError as error:
            _log.warning("frame pool %s: what is older than retention_days stays: %s", self.root, error)
            return 0
        if doubt:
            _log.warning("frame pool %s: %s", self.root, doubt)
        if not expired:
            return 0
        _log.warning("frame pool %s: %d frames are older than retention_days and purged", self.root, len(expired))
        return self.purge(expired)

    def purge(self, frame_ids: Sequence[int]) -> int:
        """Delete frames with everything that belongs to them, labels and drafts too. The one way to lose a label.

        Returns:
            How many of them there were.

        Raises:
            StoreError: if the disk refuses.
        """
        with self._database.transaction(durable=True):
            files = pool_upkeep.files_of(self._database, frame_ids)
            queries = pool_upkeep.queries_of(self._database, frame_ids)
            removed = pool_upkeep.remove(self._database, frame_ids)
        self._delete(files, queries)
        return removed

    def _delete(self, files: Sequence[str], queries: Sequence[str] = ()) -> None:
        """End what may show what a picture showed, once the transaction stands: all of it, whatever of it fails."""
        with ExitStack() as steps:
            steps.callback(self._database.empty_log)
            steps.callback(pool_drafts.forget, self.root, queries)
            steps.callback(pool_files.delete_files, self.root, files)
