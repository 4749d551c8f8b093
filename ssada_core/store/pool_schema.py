"""The pool's SQLite file: its tables, and short transactions that are safe between threads and processes."""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ssada_core.errors import StoreError
from ssada_core.labels import LabelSpace
from ssada_core.store.files import DiskFullError, store_error

SCHEMA_VERSION = 3
BUSY_MS = 30_000
"""How long a writer waits for another process's transaction (each holds the lock for one file at most)."""

MARK_SUFFIX = ".entering"
"""Ends the name of the mark beside a file whose transaction does not stand yet."""

_JOURNAL_BYTES = 4 << 20
"""What a large transaction may leave the write-ahead log at."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE frames (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    camera TEXT NOT NULL,
    stamp_ns INTEGER NOT NULL,
    vehicle TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('buffered', 'queried', 'labelled', 'held', 'skipped', 'rejected')),
    query_id TEXT UNIQUE,
    audit INTEGER NOT NULL DEFAULT 0,
    batch INTEGER,
    score REAL,
    reason TEXT NOT NULL DEFAULT '',
    model_version TEXT,
    image_file TEXT NOT NULL,
    label_file TEXT,
    annotator TEXT,
    stored_at INTEGER NOT NULL,
    labelled_at INTEGER,
    bytes INTEGER NOT NULL,
    thumbnail BLOB NOT NULL,
    prediction_file TEXT,
    domain TEXT NOT NULL DEFAULT '',
    clip INTEGER
);
CREATE INDEX frames_by_state ON frames (state, id, bytes);
CREATE INDEX frames_by_age ON frames (state, stored_at);
CREATE INDEX frames_by_camera ON frames (camera, id);
CREATE TABLE scores (
    frame_id INTEGER PRIMARY KEY REFERENCES frames (id) ON DELETE CASCADE,
    model_version TEXT NOT NULL,
    uncertainty REAL NOT NULL,
    confidence REAL NOT NULL,
    histogram BLOB NOT NULL,
    features BLOB
);
CREATE TABLE labels (
    frame_id INTEGER NOT NULL REFERENCES frames (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('accepted', 'held')),
    why TEXT NOT NULL,
    file TEXT NOT NULL,
    annotator TEXT NOT NULL,
    given_at INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (frame_id, version)
) WITHOUT ROWID;
CREATE TABLE clips (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    stamp_ns INTEGER NOT NULL,
    flagged_at INTEGER NOT NULL
);
CREATE INDEX frames_by_clip ON frames (clip) WHERE clip IS NOT NULL;
CREATE TABLE missing (
    frame_id INTEGER PRIMARY KEY REFERENCES frames (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    bytes INTEGER NOT NULL
);
"""

_FROM_1 = """
ALTER TABLE frames ADD COLUMN domain TEXT NOT NULL DEFAULT '';
ALTER TABLE frames ADD COLUMN clip INTEGER;
CREATE TABLE clips (id INTEGER PRIMARY KEY AUTOINCREMENT, stamp_ns INTEGER NOT NULL, flagged_at INTEGER NOT NULL);
CREATE INDEX frames_by_clip ON frames (clip) WHERE clip IS NOT NULL;
"""
"""What turns a pool of format 1 into one of format 2; nothing of it is lost."""

_FROM_2 = """
CREATE TABLE missing (frame_id INTEGER PRIMARY KEY REFERENCES frames (id) ON DELETE CASCADE, state TEXT NOT NULL,
reason TEXT NOT NULL, bytes INTEGER NOT NULL);
"""
"""The same from 2 to 3: what a frame was before its image went missing."""

_STEPS = {0: _SCHEMA, 1: _FROM_1 + _FROM_2, 2: _FROM_2}


class Database:
    """One connection that the threads of a process share; every write is ``BEGIN IMMEDIATE``.

    SQLite's write lock is also the lock of the pool's files: they are written and deleted only inside a
    write transaction, so no process ever takes another's unfinished file for a leftover.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            StoreError: if it cannot be opened, is no pool, or comes from a newer release.
        """
        self._path = path
        self.root = path.parent
        self._lock = threading.RLock()
        self._closed = False
        self._marks: dict[Path, Path | None] = {}
        with self._errors():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self._errors():
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA foreign_keys=ON")
            self._connection.execute("PRAGMA secure_delete=ON")  # what was purged is also gone from the file
            self._connection.execute(f"PRAGMA journal_size_limit={_JOURNAL_BYTES}")
        with self.transaction(durable=True):
            found = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            if found in _STEPS:
                self._run(_STEPS[found])
            elif found != SCHEMA_VERSION:
                raise StoreError(
                    f"{self._path} has format {found}, this release reads {SCHEMA_VERSION}: "
                    "use the release that wrote it, or another folder"
                )

    def _run(self, script: str) -> None:
        for statement in script.split(";"):  # executescript would commit on its own
            if statement.strip():
                self._connection.execute(statement)
        self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextlib.contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """A write transaction: all of it or nothing.

        Args:
            durable: on return it survives a power cut (``synchronous=FULL``), not only a killed process.

        Raises:
            DiskFullError: if there is no room.
            StoreError: if the file is locked for too long, damaged or read-only.
        """
        with self._lock, self._errors():
            self._check_open()
            if self._connection.in_transaction:
                raise RuntimeError("transactions do not nest")
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._unmark(withdraw=True)
                raise
            else:
                self._connection.execute("COMMIT")
                self._unmark(withdraw=False)
            finally:
                self._marks.clear()
                if self._connection.in_transaction:  # SQLite has already rolled back after some errors
                    self._connection.execute("ROLLBACK")

    def entering(self, path: Path) -> None:
        """Mark a file before a transaction writes and enters it: a mark that outlives it says that it was broken off.

        Raises:
            StoreError: if the disk refuses.
        """
        mark = path.with_name(f".{path.name}{MARK_SUFFIX}")
        unpromised = mark.exists() or not path.exists()
        try:
            mark.touch()  # it is synced with the folder, when the file is
        except OSError as error:
            raise store_error("write", mark, error) from error
        self._marks[mark] = path if unpromised else None

    def _unmark(self, *, withdraw: bool) -> None:
        with contextlib.suppress(OSError):  # a file that cannot be deleted keeps its mark
            for mark, new in self._marks.items():
                if withdraw and new is not None:
                    new.unlink(missing_ok=True)
                mark.unlink(missing_ok=True)

    def empty_log(self) -> None:
        """Write the log's pages into the file and empty it: what was deleted is gone from both.

        Another process that is reading just now keeps the log until the next time.

        Raises:
            StoreError: if the disk refuses.
        """
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one writing statement inside a transaction; returns the new row's id or 0."""
        return self._connection.execute(sql, values).lastrowid or 0

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one writing statement for each row inside a transaction."""
        self._connection.executemany(sql, rows)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows of a query.

        Raises:
            StoreError: if the file cannot be read.
        """
        with self._lock, self._errors():
            self._check_open()
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def close(self) -> None:
        """Close the connection; more than once is fine."""
        with self._lock:
            self._closed = True
            self._connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the pool {self._path.parent} is closed: open it again")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _explain(self._path, error) from error


def identify(database: Database, label_space: LabelSpace) -> str:
    """The pool's own id, 6 hexadecimal digits, drawn at its first opening.

    Raises:
        StoreError: if the pool holds labels of another label space.
    """
    with database.transaction(durable=True):
        found: dict[str, str] = {row["key"]: row["value"] for row in database.rows("SELECT key, value FROM meta")}
        if not found:
            found = {"pool_id": secrets.token_hex(3), "label_space": label_space.to_json()}
            database.execute_many("INSERT INTO meta VALUES (?, ?)", list(found.items()))
    kept = LabelSpace.from_dict(json.loads(found["label_space"]), source=str(database.root))
    if kept.classes != label_space.classes:
        raise StoreError(
            f"the pool {database.root} holds labels of label space '{kept.name}' ({kept.num_classes} classes), not "
            f"'{label_space.name}' ({label_space.num_classes}): use that one, or another folder"
        )
    return found["pool_id"]


def pool_id(database: Database) -> str:
    """The id of an identified pool."""
    return str(database.rows("SELECT value FROM meta WHERE key='pool_id'")[0][0])


def _explain(path: Path, error: sqlite3.Error) -> StoreError:
    text = str(error)
    if "full" in text:
        return DiskFullError(f"cannot write {path}: the disk is full: free some space, or choose another disk")
    if "locked" in text:
        return StoreError(f"{path} was locked for {BUSY_MS // 1000} s by another process: stop it, then try again")
    if "readonly" in text or "unable to open" in text:
        return StoreError(f"cannot write {path} ({text}): give this user write access, or choose another folder")
    if "malformed" in text or "not a database" in text:
        return StoreError(
            f"{path} is damaged ({text}): put a copy in its place and "
            f"remove {path.name}-wal and {path.name}-shm, or name a new folder"
        )
    return StoreError(f"{path}: {text}: check the disk, or choose a folder on a local one")
