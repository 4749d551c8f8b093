"""The pool's files: how they are named, and which of them nobody needs any more."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ssada_core.errors import StoreError
from ssada_core.store.files import store_error
from ssada_core.store.pool_labels import LABELS
from ssada_core.store.pool_schema import MARK_SUFFIX, Database, pool_id

IMAGES = "images"
PREDICTIONS = "predictions"

_NAMES = {
    IMAGES: re.compile(r"()\d{3,}/(\d{6,})(?:-\d+)?\.jpg"),
    PREDICTIONS: re.compile(r"()(\d{6,})\.png"),
    LABELS: re.compile(r"([0-9a-f]{6})-(\d{6,})\.v\d+\.png"),
}
"""Whatever a pool writes into its folders: the pool's id, where the name has it, and the frame's number."""
_QUERY = re.compile(r"([0-9a-f]{6})-(\d{6,})")
_UNFINISHED = re.compile(rf"\.(.+)(?:\.[0-9a-f]{{8}}\.tmp|{re.escape(MARK_SUFFIX)})")
_NEWER = "newer:"
"""Begins the keys, in the table ``meta``, of spans of numbers that were given after this copy of the database."""


@dataclass(frozen=True)
class PoolFile:
    """A file with a name that a pool gives.

    Attributes:
        file: path relative to the pool's folder.
        kind: the folder it is in.
        pool: id of the pool it is of; empty where the name does not say.
        frame_id: number of its frame.
        becomes: what it was to become; itself once it is finished.
    """

    file: str
    kind: str
    pool: str
    frame_id: int
    becomes: str


def image_file(frame_id: int) -> str:
    """Where a frame's image lies at first."""
    return f"{IMAGES}/{frame_id // 1000:03d}/{frame_id:06d}.jpg"


def next_name(file: str) -> str:
    """Another name for a frame's file, so that old and new are never one half of each."""
    path = Path(file)
    stem, _, number = path.stem.partition("-")
    return str(path.with_name(f"{stem}-{int(number or 0) + 1}{path.suffix}"))


def prediction_file(frame_id: int) -> str:
    """Where a model's answer to a frame lies."""
    return f"{PREDICTIONS}/{frame_id:06d}.png"


def parse(file: str) -> PoolFile | None:
    """What a path below the pool's folder is by its name; None if no pool names a file so."""
    path = Path(file)
    unfinished = _UNFINISHED.fullmatch(path.name)
    becomes = str(path.with_name(unfinished[1])) if unfinished else file
    kind, _, name = becomes.partition("/")
    found = _NAMES[kind].fullmatch(name) if kind in _NAMES else None
    return PoolFile(file, kind, found[1], int(found[2]), becomes) if found else None


def check_new(root: Path, database: str) -> None:
    """A database is not made where the files of another one lie: it would give their names again.

    Raises:
        StoreError: if there are such files, or a folder cannot be read.
    """
    if (root / database).exists():
        return
    count = sum(parse(file) is not None for file in files(root))
    if count and not (root / database).exists():  # nor has another process made it just now
        raise StoreError(
            f"{root} has no {database}, but holds {count} files of a pool in {IMAGES}, {LABELS} and {PREDICTIONS}: "
            f"put their own {database} back, or name a new folder"
        )


def check_owner(database: Database, root: Path, present: Iterable[str]) -> None:
    """Nothing may be concluded from the database of another pool.

    Raises:
        StoreError: if there are labels of another pool.
    """
    own = pool_id(database)
    others = [found.pool for file in present if (found := parse(file)) and found.pool not in {"", own}]
    if others:
        raise StoreError(
            f"{root / LABELS} holds {len(others)} labels of pool {others[0]}, and the database is of pool {own}: put "
            f"their own pool.sqlite back, or move {root / LABELS} and {root / IMAGES} to another place"
        )


def leftovers(database: Database, present: set[str]) -> tuple[list[str], list[str]]:
    """What of ``present`` no row names, sorted: to be deleted, and labels that must stay. Inside a transaction.

    A label is a leftover where the mark of its transaction still lies beside it, or its frame was purged or rejected.
    Any other was entered in a newer database, of which this is a copy: then so were the frames with numbers that this
    one never gave, and it will not give them.
    """
    unknown = [found for file in sorted(present - known_files(database)) if (found := parse(file))]
    if not unknown:
        return [], []
    marked = {found.becomes for found in unknown if found.file.endswith(MARK_SUFFIX)}
    finished = [found for found in unknown if found.becomes == found.file and found.file not in marked]
    newer = _newer_numbers(database, finished)
    images = {row["id"]: row["image_file"] for row in _kept(database)}
    kept = {
        found.file
        for found in finished
        if any(found.frame_id in span for span in newer)
        or (found.kind == LABELS and found.frame_id in images)
        or (found.kind == IMAGES and found.frame_id in images and images[found.frame_id] not in present)
    }
    labels = [found.file for found in finished if found.kind == LABELS and found.file in kept]
    return [found.file for found in unknown if found.file not in kept], labels


def _newer_numbers(database: Database, finished: Sequence[PoolFile]) -> list[range]:
    """Numbers that are not this database's to give; those of labels that it does not know are added."""
    row = database.row("SELECT seq FROM sqlite_sequence WHERE name='frames'")
    given = row["seq"] if row is not None else 0
    above = [found for found in finished if found.frame_id > given]
    if any(found.kind == LABELS for found in above):
        last = max(found.frame_id for found in above)
        database.execute("INSERT INTO meta VALUES (?, ?)", (f"{_NEWER}{given + 1}", str(last)))
        database.execute("DELETE FROM sqlite_sequence WHERE name='frames'")
        database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('frames', ?)", (last,))
    return _spans(database)


def _spans(database: Database) -> list[range]:
    spans = database.rows("SELECT key, value FROM meta WHERE key LIKE ?", (f"{_NEWER}%",))
    return [range(int(row["key"].removeprefix(_NEWER)), int(row["value"]) + 1) for row in spans]


def ended(database: Database, query_ids: Iterable[str]) -> list[str]:
    """Those of the queries that were this pool's, and whose frames were purged or rejected."""
    found = [(query_id, _QUERY.fullmatch(query_id)) for query_id in query_ids]
    own, newer = pool_id(database), _spans(database)
    numbers = {query_id: int(match[2]) for query_id, match in found if match and match[1] == own}
    kept = {row["id"] for row in _kept(database)} if numbers else set()
    return [
        query_id
        for query_id, number in numbers.items()
        if number not in kept and not any(number in span for span in newer)
    ]


def known_files(database: Database) -> set[str]:
    """Every file that a row names."""
    rows = database.rows(
        "SELECT prediction_file FROM frames WHERE prediction_file IS NOT NULL UNION SELECT file FROM labels"
    )
    return {row[0] for row in rows} | {row["image_file"] for row in _kept(database)}


def _kept(database: Database) -> list[sqlite3.Row]:
    return database.rows(
        "SELECT id, image_file FROM frames WHERE state != 'rejected' OR id IN (SELECT frame_id FROM missing)"
    )


def files(root: Path) -> Iterator[str]:
    """All files in the pool's folders, relative to ``root``.

    Raises:
        StoreError: if a folder cannot be read.
    """
    for folder in filter(Path.is_dir, (root / name for name in (IMAGES, LABELS, PREDICTIONS))):
        for parent, _, names in os.walk(folder, onerror=_unreadable):
            relative = Path(parent).relative_to(root)
            yield from (str(relative / name) for name in names)


def _unreadable(error: OSError) -> NoReturn:
    raise store_error("read", Path(error.filename), error) from error


def delete_files(root: Path, files: Iterable[str]) -> None:
    """Delete files of the pool; those already gone are fine.

    Raises:
        StoreError: if some cannot be deleted, the first of them; the others are.
    """
    failed = [error for file in files if (error := _delete(root / file)) is not None]
    if failed:
        raise failed[0]


def _delete(path: Path) -> StoreError | None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return store_error("delete", path, error)
    return None
