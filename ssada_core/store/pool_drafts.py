"""Drafts of labels, which the annotation page keeps beside the pool's database: they go with their frame."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ssada_core.errors import StoreError

DRAFTS_FILE = "annotate.sqlite"
_BUSY_S = 30.0


def queries(root: Path) -> list[str]:
    """Queries of which there are drafts.

    Raises:
        StoreError: if the file cannot be read.
    """
    with _opened(root) as database:
        if database is None:
            return []
        return [row[0] for row in database.execute("SELECT DISTINCT query_id FROM drafts")]


def forget(root: Path, query_ids: Sequence[str]) -> None:
    """Delete every draft of these queries, also from the write-ahead log.

    Raises:
        StoreError: if the file cannot be written.
    """
    if not query_ids:
        return
    with _opened(root) as database:
        if database is not None:
            database.execute("PRAGMA secure_delete=ON")
            database.executemany("DELETE FROM drafts WHERE query_id=?", [(query_id,) for query_id in query_ids])
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


@contextmanager
def _opened(root: Path) -> Iterator[sqlite3.Connection | None]:
    """The database of the drafts; None where there is none, or none of it yet."""
    path = root / DRAFTS_FILE
    if not path.exists():
        yield None
        return
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)) as database:
            made = database.execute("SELECT 1 FROM sqlite_master WHERE name='drafts'").fetchone()
            yield database if made else None
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}: the drafts of what was purged stay, delete the file to end them") from error
