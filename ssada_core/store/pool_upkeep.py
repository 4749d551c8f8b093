"""Keeping the pool within its bounds and its files and rows in step."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from ssada_core.errors import StoreError
from ssada_core.store import pool_drafts
from ssada_core.store.files import disk_usage, sha256_file
from ssada_core.store.pool_files import IMAGES, check_owner, delete_files, ended, files, known_files, leftovers
from ssada_core.store.pool_labels import LabelStore
from ssada_core.store.pool_records import PoolSettings
from ssada_core.store.pool_retention import CLOCK_SET_NS, DAY_NS
from ssada_core.store.pool_schema import Database


class NoRoomError(StoreError):
    """One more frame does not fit, and nothing may be evicted for it."""

    def __init__(self, reason: Literal["full", "disk"], message: str) -> None:
        super().__init__(message)
        self.reason: Literal["full", "disk"] = reason


def clean(database: Database, root: Path) -> list[str]:
    """Put right what a killed process or a careless hand left; returns what was done, one line each.

    Deletes files of the pool that were never finished or entered, or outlived their frame. Frames whose image has gone
    are rejected until it is back; labels whose file has gone or changed are held until it is as it was, or a human has
    looked again. Drafts go with the frames that were purged or rejected.

    Raises:
        StoreError: if the pool cannot be read or written, no image of it is there at all, or it is another's database.
    """
    with database.transaction(durable=False):
        present = set(files(root))
        check_owner(database, root, present)
        _check_there(database, root, present)
        changed = _take_up(database, present) + _reject_missing(database, present)
        changed += LabelStore(database, root).set_aside_damaged()
        orphans, labels = leftovers(database, present)
        delete_files(root, orphans)
    if labels:
        changed.append(
            f"{len(labels)} labels are newer than pool.sqlite, which is a copy: they stay as files ({labels[0]}, …), "
            "'ssada pool verify' names them"
        )
    changed += _forget_drafts(database, root)
    return [f"deleted {file}, which was never entered" for file in orphans] + changed


def _forget_drafts(database: Database, root: Path) -> list[str]:
    """Of queries whose frames went in a purge that was killed; what keeps it from that is told, and nobody stopped."""
    try:
        gone = ended(database, pool_drafts.queries(root))
        pool_drafts.forget(root, gone)
    except StoreError as error:
        return [str(error)]
    return [f"deleted the drafts of query {query_id}, whose frame was purged or rejected" for query_id in gone]


def _check_there(database: Database, root: Path, present: set[str]) -> None:
    """A disk that is not mounted looks like a folder without a file: nothing may be concluded from that."""
    known = database.rows(
        "SELECT image_file FROM frames WHERE state != 'rejected' OR id IN (SELECT frame_id FROM missing)"
    )
    if known and not any(row["image_file"] in present for row in known):
        raise StoreError(
            f"none of the {len(known)} images of the pool is in {root / IMAGES}: mount it, or put it back; if they are "
            f"lost for good: ssada pool purge {root} --all"
        )


def _take_up(database: Database, present: set[str]) -> list[str]:
    """Frames whose image is back are again what they were."""
    rows = database.rows(
        "SELECT id, image_file, missing.state, missing.reason, missing.bytes FROM missing JOIN frames ON id=frame_id"
    )
    back = [row for row in rows if row["image_file"] in present]
    database.execute_many(
        "UPDATE frames SET state=?, reason=?, bytes=? WHERE id=?",
        [(row["state"], row["reason"], row["bytes"], row["id"]) for row in back],
    )
    database.execute_many("DELETE FROM missing WHERE frame_id=?", [(row["id"],) for row in back])
    return [f"frame {row['id']} is {row['state']} again: {row['image_file']} is back" for row in back]


def _reject_missing(database: Database, present: set[str]) -> list[str]:
    rows = database.rows("SELECT id, image_file FROM frames WHERE state != 'rejected'")
    gone = [row for row in rows if row["image_file"] not in present]
    ids = [(row["id"],) for row in gone]
    database.execute_many("INSERT INTO missing SELECT id, state, reason, bytes FROM frames WHERE id=?", ids)
    database.execute_many(
        "UPDATE frames SET state='rejected', bytes=0, reason='its image file was missing' WHERE id=?", ids
    )
    return [f"rejected frame {row['id']} until {row['image_file']}, which is missing, is back" for row in gone]


def verify(database: Database, root: Path) -> list[str]:
    """Problems between files and rows, one line each; empty when all is well. Reads every label.

    Raises:
        StoreError: if the pool cannot be read.
    """
    with database.transaction(durable=False):  # nobody writes meanwhile
        problems = [f"pool.sqlite: {row[0]}" for row in database.rows("PRAGMA integrity_check") if row[0] != "ok"]
        problems += [f"{file}: not entered in the pool" for file in sorted(set(files(root)) - known_files(database))]
        problems += list(_image_problems(database, root))
        problems += list(_label_problems(database, root))
    return problems


def make_room(database: Database, root: Path, settings: PoolSettings, *, needed: int) -> tuple[list[int], list[str]]:
    """Take ``buffered`` frames out, oldest first, until one more frame of ``needed`` bytes fits. Inside a transaction.

    Returns:
        Ids of the frames taken out, and their files, to be deleted once the transaction stands.

    Raises:
        NoRoomError: if frames that must stay fill the pool, or the disk stays too full even without the others.
    """
    frames, size = _missing_room(database, root, settings, needed)
    taken = {row["id"]: row for row in _aged(database, settings.max_age_days)}
    freed = sum(row["bytes"] for row in taken.values())
    oldest = _oldest(database)
    while len(taken) < frames or freed < size:
        row = next(oldest)
        if row["id"] not in taken:
            taken[row["id"]] = row
            freed += row["bytes"]
    files = files_of(database, list(taken))
    remove(database, list(taken))
    return list(taken), files


def _missing_room(database: Database, root: Path, settings: PoolSettings, needed: int) -> tuple[int, int]:
    """Frames and bytes that must go before ``needed`` bytes fit; raises NoRoomError where that cannot be."""
    counted = database.rows(
        "SELECT CASE WHEN clip IS NULL THEN state ELSE 'clip' END AS kind, COUNT(*) AS frames, SUM(bytes) AS size "
        "FROM frames WHERE state != 'rejected' GROUP BY kind"
    )
    spare = {row["kind"]: (row["frames"], row["size"]) for row in counted}
    spare_frames, spare_bytes = spare.get("buffered", (0, 0))
    disk_total, disk_free = disk_usage(root)
    frames = sum(count for count, _ in spare.values()) + 1 - settings.max_frames
    size = sum(size for _, size in spare.values()) + needed - settings.max_bytes
    disk = int(settings.keep_free_share * disk_total) + needed - disk_free
    if frames > spare_frames or size > spare_bytes:
        raise NoRoomError("full", f"the pool {root} is full of asked-for frames: raise max_frames and max_bytes")
    if disk > spare_bytes:
        raise NoRoomError("disk", f"less than {settings.keep_free_share:.0%} of the disk of {root} is free: make room")
    return frames, max(size, disk)


def _aged(database: Database, days: float) -> list[sqlite3.Row]:
    return database.rows(
        "SELECT id, bytes FROM frames WHERE state='buffered' AND clip IS NULL AND stored_at BETWEEN ? AND ? LIMIT 500",
        (CLOCK_SET_NS, time.time_ns() - int(days * DAY_NS)),
    )


def _oldest(database: Database) -> Iterator[sqlite3.Row]:
    last = 0
    while page := database.rows(
        "SELECT id, bytes FROM frames WHERE state='buffered' AND clip IS NULL AND id > ? ORDER BY id LIMIT 200", (last,)
    ):
        yield from page
        last = page[-1]["id"]


def files_of(database: Database, frame_ids: Sequence[int]) -> list[str]:
    """Image, prediction and label files of frames."""
    files: list[str | None] = []
    for frame_id in frame_ids:
        for row in database.rows("SELECT image_file, prediction_file FROM frames WHERE id=?", (frame_id,)):
            files += [row["image_file"], row["prediction_file"]]
        files += [row["file"] for row in database.rows("SELECT file FROM labels WHERE frame_id=?", (frame_id,))]
    return [file for file in files if file]


def queries_of(database: Database, frame_ids: Sequence[int]) -> list[str]:
    """Query ids of those frames that were asked for."""
    rows = [database.row("SELECT query_id FROM frames WHERE id=?", (frame_id,)) for frame_id in frame_ids]
    return [row["query_id"] for row in rows if row is not None and row["query_id"] is not None]


def remove(database: Database, frame_ids: Sequence[int]) -> int:
    """Delete the rows of frames, with scores and labels; returns how many there were. Inside a transaction."""
    before = database.rows("SELECT COUNT(*) FROM frames")[0][0]
    database.execute_many("DELETE FROM frames WHERE id=?", [(frame_id,) for frame_id in frame_ids])
    return int(before) - int(database.rows("SELECT COUNT(*) FROM frames")[0][0])


def _image_problems(database: Database, root: Path) -> Iterator[str]:
    for row in database.rows("SELECT id, image_file FROM frames JOIN missing ON id=frame_id"):
        if not (root / row["image_file"]).is_file():
            yield f"{row['image_file']}: missing, frame {row['id']} is rejected until it is back or purged"
    for row in database.rows("SELECT id, image_file, bytes FROM frames WHERE state != 'rejected'"):
        path = root / row["image_file"]
        if not path.is_file():
            yield f"{row['image_file']}: missing, frame {row['id']} needs it"
        elif path.stat().st_size != row["bytes"]:
            yield f"{row['image_file']}: {path.stat().st_size} bytes instead of {row['bytes']}"


def _label_problems(database: Database, root: Path) -> Iterator[str]:
    for row in database.rows("SELECT file, sha256 FROM labels"):
        path = root / row["file"]
        if not path.is_file():
            yield f"{row['file']}: missing"
        elif sha256_file(path) != row["sha256"]:
            yield f"{row['file']}: its content has changed"
    for row in database.rows(
        "SELECT query_id FROM frames WHERE state='labelled' AND NOT EXISTS "
        "(SELECT 1 FROM labels WHERE frame_id=frames.id AND file=frames.label_file AND status='accepted')"
    ):
        yield f"query {row['query_id']}: labelled without an accepted label"
