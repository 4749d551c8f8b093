"""Who is working on what: leases and drafts, in ``annotate.sqlite`` beside the pool's own database.

A lease says that somebody edits a query; it ends by itself when they are gone. A draft is unfinished work; each person
has one per query, so that nobody's is overwritten. Both survive a killed server, and two servers may share the file.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssada_core.errors import SsadaError, StoreError
from ssada_core.store.pool_drafts import DRAFTS_FILE

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS leases (query_id TEXT PRIMARY KEY, holder TEXT NOT NULL, person TEXT NOT NULL, "
    "name TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS drafts (query_id TEXT NOT NULL, person TEXT NOT NULL, name TEXT NOT NULL, "
    "saved_at REAL NOT NULL, png BLOB NOT NULL, versions INTEGER NOT NULL DEFAULT 0, "
    "PRIMARY KEY (query_id, person)) WITHOUT ROWID",
)
_ADD_VERSIONS = "ALTER TABLE drafts ADD COLUMN versions INTEGER NOT NULL DEFAULT 0"


class TakenError(SsadaError):
    """Somebody else is editing the query."""


@dataclass(frozen=True)
class Who:
    """An editor.

    Attributes:
        holder: one browser tab.
        person: one browser; all its tabs share drafts.
        name: what the person calls themselves.
    """

    holder: str
    person: str
    name: str


@dataclass(frozen=True)
class Draft:
    """Unfinished work.

    Attributes:
        person: whose.
        name: what they call themselves.
        saved_at: seconds since 1970.
        png: its upper half is the label, its lower half what they have touched.
        versions: labels there were when it was begun; of later ones it knows nothing.
    """

    person: str
    name: str
    saved_at: float
    png: bytes
    versions: int


class Desk:
    """Leases and drafts of one pool; safe from several threads and processes."""

    def __init__(self, folder: Path, lease_s: float) -> None:
        """Open or create the file.

        Raises:
            StoreError: if it cannot be used.
        """
        self._path = folder / DRAFTS_FILE
        self._lease_s = lease_s
        self._lock = threading.Lock()
        with self._errors():
            self._database = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            self._database.row_factory = sqlite3.Row
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            for statement in _SCHEMA:
                self._database.execute(statement)
            if "versions" not in {row["name"] for row in self._database.execute("PRAGMA table_info(drafts)")}:
                self._database.execute(_ADD_VERSIONS)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def take(self, query_id: str, who: Who, *, force: bool = False) -> None:
        """Take a query, or keep it.

        Args:
            query_id: which.
            who: the editor.
            force: take it over from another tab of the same person. Others' work is never taken from them.

        Raises:
            TakenError: if somebody else has it.
        """
        now = time.time()
        with self._transaction():
            row = self._database.execute(
                "SELECT holder, person, name FROM leases WHERE query_id=? AND until>?", (query_id, now)
            ).fetchone()
            own = row is None or row["holder"] == who.holder or (force and row["person"] == who.person)
            if not own:
                whose = "you, in another tab" if row["person"] == who.person else row["name"] or "somebody"
                raise TakenError(f"query {query_id} is being edited by {whose}")
            self._database.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                (query_id, who.holder, who.person, who.name, now + self._lease_s),
            )

    def release(self, query_id: str, holder: str) -> None:
        """Give a query back; nothing happens if it is not held by this tab."""
        with self._transaction():
            self._database.execute("DELETE FROM leases WHERE query_id=? AND holder=?", (query_id, holder))

    def leases(self) -> dict[str, Who]:
        """Who edits what now, by query."""
        rows = self._rows("SELECT * FROM leases WHERE until>?", (time.time(),))
        return {row["query_id"]: Who(row["holder"], row["person"], row["name"]) for row in rows}

    def save(self, query_id: str, who: Who, png: bytes, versions: int = 0) -> float:
        """Keep a draft; on return it is on the disk. Returns when, in seconds since 1970."""
        now = time.time()
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO drafts (query_id, person, name, saved_at, png, versions) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (query_id, who.person, who.name, now, png, versions),
            )
        return now

    def draft(self, query_id: str, person: str, *, others: bool = True) -> Draft | None:
        """The person's own draft, else the newest of anybody, if ``others`` count."""
        rows = self._rows(
            "SELECT person, name, saved_at, png, versions FROM drafts WHERE query_id=? AND (? OR person=?) "
            "ORDER BY person=? DESC, saved_at DESC",
            (query_id, others, person, person),
        )
        return Draft(**dict(rows[0])) if rows else None

    def drafts(self, person: str) -> dict[str, bool]:
        """Queries of which there are drafts, and whether one is this person's own."""
        rows = self._rows("SELECT query_id, MAX(person=?) AS own FROM drafts GROUP BY query_id", (person,))
        return {row["query_id"]: bool(row["own"]) for row in rows}

    def answered(self, query_id: str, person: str, versions: int) -> None:
        """The person's draft became a label themselves gave: it knows of so many now."""
        with self._transaction():
            self._database.execute(
                "UPDATE drafts SET versions=? WHERE query_id=? AND person=?", (versions, query_id, person)
            )

    def forget(self, query_id: str, person: str | None = None) -> None:
        """Delete the drafts of a query: one person's, or all."""
        with self._transaction():
            self._database.execute(
                "DELETE FROM drafts WHERE query_id=? AND (? IS NULL OR person=?)", (query_id, person, person)
            )

    def _rows(self, sql: str, values: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        with self._lock, self._errors():
            return self._database.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}: check the disk, or choose a folder on a local one") from error
