"""The way into the pool: which frames are stored, and how a frame and its row come to be together."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ssada_core.data.compressed import decode_compressed, encode_jpeg, sniff
from ssada_core.data.privacy import Hider
from ssada_core.data.samples import Array
from ssada_core.errors import DataError, EncodingError, PrivacyError
from ssada_core.store import pool_clips, pool_files, pool_queries, pool_upkeep
from ssada_core.store.files import DiskFullError, make_directory, write_atomic
from ssada_core.store.pool_filters import RateLimiter, ThumbnailIndex, judge, thumbnail
from ssada_core.store.pool_records import Added, FrameRecord, PoolSettings
from ssada_core.store.pool_schema import Database

_log = logging.getLogger(__name__)


class Intake:
    """Judges and stores frames; one at a time per process."""

    def __init__(self, database: Database, root: Path, settings: PoolSettings) -> None:
        self._database = database
        self._root = root
        self._settings = settings
        self._lock = threading.Lock()
        self._limits: dict[str, RateLimiter] = {}
        self._indices: dict[str, ThumbnailIndex] = {}
        self._told: str | None = None
        self._hider = Hider(settings.privacy)
        self.trouble = ""
        """Why the newest frame that was due was not stored, where that is not as it should be."""

    def add(
        self, image: Array | None, jpeg: bytes | None, camera: str, stamp_ns: int, *, domain: str, clip: int | None
    ) -> Added:
        """See :meth:`FramePool.add` and, with a clip, :meth:`FramePool.keep`."""
        with self._lock:
            due = self._limits.setdefault(camera, RateLimiter(self._settings.rate)).admit(stamp_ns)
            if not due and clip is None:
                return Added(None, "rate")
            pixels = _pixels(image, jpeg)
            try:
                if self._hider.active:
                    pixels, hidden = self._hider.hide(pixels)
                    jpeg = None if hidden else jpeg
                data = jpeg if jpeg is not None else encode_jpeg(pixels, self._settings.jpeg_quality)
                added = self._store(pixels, data, camera, stamp_ns, domain, clip)
            except PrivacyError as error:
                return self._refuse("privacy", str(error))
            except pool_upkeep.NoRoomError as error:
                return self._refuse(error.reason, str(error))
            except DiskFullError as error:
                return self._refuse("disk", str(error))
            self._told, self.trouble = None, ""
            return added

    def _refuse(self, reason: Literal["full", "disk", "privacy"], why: str) -> Added:
        self.trouble = f"frames are no longer stored: {why}"
        if self._told != reason:  # said once, not with every frame
            _log.warning("%s", self.trouble)
        self._told = reason
        return Added(None, reason)

    def _store(self, pixels: Array, data: bytes, camera: str, stamp_ns: int, domain: str, clip: int | None) -> Added:
        row = thumbnail(pixels)
        with self._database.transaction(durable=clip is not None):
            known = pool_clips.mark(self._database, clip, camera, stamp_ns) if clip is not None else None
            if known is not None:
                return Added(known, "stored")
            repeated = self._repeats(camera, row)
            if repeated is not None and clip is None:
                return Added(None, repeated)
            evicted, files = pool_upkeep.make_room(self._database, self._root, self._settings, needed=len(data))
            record = self._insert(pixels.shape, data, camera, stamp_ns, row)
            self._database.execute("UPDATE frames SET domain=?, clip=? WHERE id=?", (domain, clip, record.id))
            record = replace(record, domain=domain, clip=clip)
        if evicted:
            for index in self._indices.values():
                index.remove(evicted)
        self._indices[camera].append(record.id, row)
        pool_files.delete_files(self._root, files)
        return Added(record, "stored")

    def _repeats(self, camera: str, row: Array) -> Literal["standstill", "duplicate"] | None:
        index = self._indices.setdefault(camera, ThumbnailIndex())
        stored = self._database.rows(
            "SELECT id, thumbnail FROM frames WHERE camera=? AND id>? ORDER BY id", (camera, index.newest_id)
        )
        for other in stored:  # at first all of them, later those that another process added
            index.append(other["id"], np.frombuffer(other["thumbnail"], np.uint8))
        limits = {"standstill": self._settings.standstill_threshold, "duplicate": self._settings.duplicate_threshold}
        while (found := judge(index, row, **limits)) is not None:
            reason, frame_id = found
            if self._database.row("SELECT 1 FROM frames WHERE id=?", (frame_id,)):
                return reason
            index.remove([frame_id])  # another process evicted it
        return None

    def _insert(self, shape: tuple[int, ...], data: bytes, camera: str, stamp_ns: int, row: Array) -> FrameRecord:
        frame_id = self._database.execute(
            "INSERT INTO frames (camera, stamp_ns, vehicle, width, height, state, image_file, stored_at, bytes, "
            "thumbnail) VALUES (?, ?, ?, ?, ?, 'buffered', '', ?, ?, ?)",
            (camera, stamp_ns, self._settings.vehicle, shape[1], shape[0], time.time_ns(), len(data), row.tobytes()),
        )
        file = pool_files.image_file(frame_id)
        make_directory((self._root / file).parent)
        write_atomic(self._root / file, data)  # the row counts only once the transaction stands
        self._database.execute("UPDATE frames SET image_file=? WHERE id=?", (file, frame_id))
        return pool_queries.get(self._database, frame_id)


def _pixels(image: Array | None, jpeg: bytes | None) -> Array:
    """The frame's pixels, decoded only where they were not given."""
    if jpeg is not None and sniff(jpeg) != "jpeg":
        raise EncodingError(
            f"{len(jpeg)} bytes starting {jpeg[:4].hex()!r} are not JPEG: pass the decoded image instead"
        )
    if image is None:
        if jpeg is None:
            raise DataError("a frame needs an image or its JPEG bytes: pass one")
        return decode_compressed(jpeg)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"a frame of shape {image.shape} {image.dtype} is not uint8 HxWx3 BGR: convert it first")
    return image
