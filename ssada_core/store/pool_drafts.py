"""Drafts of labels, which the annotation page keeps beside the pool's database: they go with their frame."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ssada_core.errors import StoreError

DRAFTS_FILE = "annotate.sqlite"
_BUSY_S = 30.0


def forget(root: Path, query_ids: Sequence[str]) -> None:
    """Delete every draft of these queries, also from the write-ahead log.

    Raises:
        StoreError: if the file cannot be written.
    """
    path = root / DRAFTS_FILE
    if not query_ids or not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)) as database:
            database.execute("PRAGMA secure_delete=ON")
            if database.execute("SELECT 1 FROM sqlite_master WHERE name='drafts'").fetchone():
                database.executemany("DELETE FROM drafts WHERE query_id=?", [(query_id,) for query_id in query_ids])
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}: the drafts of what was purged stay, delete the file to end them") from error
