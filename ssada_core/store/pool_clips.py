"""Moments that a driver flagged, and the kinds of road that frames were taken on, as rows of the pool."""

from __future__ import annotations

import time

from ssada_core.store import pool_queries
from ssada_core.store.pool_records import Clip, FrameRecord
from ssada_core.store.pool_schema import Database


def flag(database: Database, stamp_ns: int) -> Clip:
    """Enter a flag. Inside a transaction."""
    now = time.time_ns()
    number = database.execute("INSERT INTO clips (stamp_ns, flagged_at) VALUES (?, ?)", (stamp_ns, now))
    return Clip(number, stamp_ns, now)


def clips(database: Database) -> list[Clip]:
    """Every flag, oldest first."""
    return [Clip(**dict(row)) for row in database.rows("SELECT id, stamp_ns, flagged_at FROM clips ORDER BY id")]


def unasked(database: Database) -> list[Clip]:
    """Flags without a frame to judge by that could have one, oldest first; cheap however many there are."""
    rows = database.rows(
        "SELECT id, stamp_ns, flagged_at FROM clips WHERE EXISTS "
        "(SELECT 1 FROM frames WHERE clip=clips.id AND state='buffered') AND NOT EXISTS "
        "(SELECT 1 FROM frames WHERE clip=clips.id AND query_id IS NOT NULL AND audit=1) ORDER BY id"
    )
    return [Clip(**dict(row)) for row in rows]


def mark(database: Database, clip: int, camera: str, stamp_ns: int) -> FrameRecord | None:
    """Make a stored frame part of a clip, unless it is of another already; None if it is not stored. Inside one."""
    row = database.row("SELECT id FROM frames WHERE camera=? AND stamp_ns=? AND state!='rejected'", (camera, stamp_ns))
    if row is None:
        return None
    database.execute("UPDATE frames SET clip=COALESCE(clip, ?) WHERE id=?", (clip, row["id"]))
    return pool_queries.get(database, row["id"])


def name_domain(database: Database, domain: str, *, since_id: int) -> int:
    """Give a frame and all later ones, labelled or not, to a domain; returns how many there are. Inside one."""
    database.execute("UPDATE frames SET domain=? WHERE id>=?", (domain, since_id))
    row = database.row("SELECT COUNT(*) FROM frames WHERE id>=?", (since_id,))
    return int(row[0]) if row is not None else 0
