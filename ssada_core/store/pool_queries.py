"""The pool's rows as records: finding frames, asking for labels, counting."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from ssada_core.errors import StoreError
from ssada_core.settings import nearest
from ssada_core.store.pool_records import STATES, Choice, FrameRecord, PoolStats, State
from ssada_core.store.pool_schema import Database

T = TypeVar("T")

COLUMNS = ", ".join(field.name for field in fields(FrameRecord))
_CHUNK = 500
_FLAGGED = {True: "clip IS NOT NULL", False: "clip IS NULL"}


def to_record(row: sqlite3.Row) -> FrameRecord:
    """A row of ``frames`` as a record."""
    values = dict(row)
    values["audit"] = bool(values["audit"])
    return FrameRecord(**values)


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Parts that are small enough for one SQL statement."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def marks(values: Sequence[object]) -> str:
    """One question mark for each value."""
    return ",".join("?" * len(values))


def frames(
    database: Database,
    *,
    states: Collection[State] | None = None,
    audit: bool | None = None,
    camera: str | None = None,
    after_id: int | None = None,
    domain: str | None = None,
    flagged: bool | None = None,
) -> list[FrameRecord]:
    """Frames that fit every condition given, in the drive's order: by stamp, then id."""
    wanted = check_states(states if states is not None else STATES)
    conditions: list[tuple[str, Iterable[Any]]] = [(f"state IN ({marks(wanted)})", wanted)]
    if audit is not None:
        conditions.append(("audit = ?", [int(audit)]))
    if camera is not None:
        conditions.append(("camera = ?", [camera]))
    if after_id is not None:
        conditions.append(("id > ?", [after_id]))
    if domain is not None:
        conditions.append(("domain = ?", [domain]))
    if flagged is not None:
        conditions.append((_FLAGGED[flagged], []))
    where = " AND ".join(condition for condition, _ in conditions)
    rows = database.rows(
        f"SELECT {COLUMNS} FROM frames WHERE {where} ORDER BY stamp_ns, id",  # noqa: S608  (constants and marks)
        [value for _, values in conditions for value in values],
    )
    return [to_record(row) for row in rows]


def count(
    database: Database,
    *,
    states: Collection[State],
    audit: bool | None = None,
    after_id: int = 0,
    model_version: str | None = None,
    at_most: int | None = None,
    domain: str | None = None,
    flagged: bool | None = None,
) -> int:
    """How many frames fit every condition given; counting ends at ``at_most``. Cheap in a full pool, unlike a list."""
    wanted = check_states(states)
    conditions, values = [f"state IN ({marks(wanted)})", "id > ?"], [*wanted, after_id]
    if audit is not None:
        conditions.append("audit = ?")
        values.append(int(audit))
    if model_version is not None:
        conditions.append("model_version = ?")
        values.append(model_version)
    if domain is not None:
        conditions.append("domain = ?")
        values.append(domain)
    if flagged is not None:
        conditions.append(_FLAGGED[flagged])
    where = " AND ".join(conditions)
    row = database.row(
        f"SELECT COUNT(*) FROM (SELECT 1 FROM frames WHERE {where} LIMIT ?)",  # noqa: S608  (constants and marks)
        [*values, -1 if at_most is None else at_most],
    )
    return int(row[0]) if row is not None else 0


def get(database: Database, frame_id: int) -> FrameRecord:
    """One frame by number.

    Raises:
        StoreError: if there is no such frame (any more).
    """
    row = database.row(f"SELECT {COLUMNS} FROM frames WHERE id = ?", (frame_id,))  # noqa: S608  (constants)
    if row is None:
        raise StoreError(f"no frame {frame_id} in {database.root}: it may have been evicted, list the frames again")
    return to_record(row)


def by_query(database: Database, query_id: str) -> FrameRecord:
    """One frame by its query's id.

    Raises:
        StoreError: if no such question was asked here.
    """
    row = database.row(f"SELECT {COLUMNS} FROM frames WHERE query_id = ?", (query_id,))  # noqa: S608  (constants)
    if row is None:
        raise StoreError(f"no query '{query_id}' in {database.root}: see `ssada pool list` for the open ones")
    return to_record(row)


def ask(database: Database, pool_id: str, choices: Sequence[Choice]) -> None:
    """Turn buffered frames into the next query batch. Inside a transaction.

    Raises:
        StoreError: if a frame is unknown, chosen twice or not buffered.
    """
    ids = [choice.frame_id for choice in choices]
    found = {row["id"]: row["state"] for part in chunks(ids) for row in _states_of(database, part)}
    for index, frame_id in enumerate(ids):
        state = "already in this batch" if frame_id in ids[:index] else found.get(frame_id, "not there")
        if state != "buffered":
            raise StoreError(f"frame {frame_id} cannot be asked for, it is {state}: choose among the buffered frames")
    newest = database.rows("SELECT COALESCE(MAX(batch), 0) FROM frames")[0][0]
    database.execute_many(
        "UPDATE frames SET state='queried', query_id=?, batch=?, score=?, audit=?, reason=? WHERE id=?",
        [(f"{pool_id}-{c.frame_id:06d}", newest + 1, c.score, int(c.audit), c.reason, c.frame_id) for c in choices],
    )


def stats(database: Database) -> PoolStats:
    """Count everything."""
    counts = dict.fromkeys(STATES, 0)
    image_bytes = 0
    for row in database.rows("SELECT state, COUNT(*) AS frames, SUM(bytes) AS size FROM frames GROUP BY state"):
        counts[row["state"]] = row["frames"]
        image_bytes += row["size"]
    audit = database.rows(
        "SELECT COALESCE(SUM(state IN ('queried', 'held')), 0), COALESCE(SUM(state='labelled'), 0) "
        "FROM frames WHERE audit=1 AND clip IS NULL"
    )[0]
    cameras = database.rows("SELECT camera, COUNT(*) FROM frames WHERE state != 'rejected' GROUP BY camera")
    return PoolStats(
        counts=counts,
        audit_open=audit[0],
        audit_labelled=audit[1],
        image_bytes=image_bytes,
        label_versions=database.rows("SELECT COUNT(*) FROM labels")[0][0],
        batches=database.rows("SELECT COALESCE(MAX(batch), 0) FROM frames")[0][0],
        cameras={row[0]: row[1] for row in cameras},
    )


def _states_of(database: Database, ids: Sequence[int]) -> list[sqlite3.Row]:
    return database.rows(f"SELECT id, state FROM frames WHERE id IN ({marks(ids)})", ids)  # noqa: S608


def check_states(states: Collection[State]) -> list[str]:
    """The states as a list.

    Raises:
        StoreError: if one does not exist.
    """
    for state in states:
        if state not in STATES:
            raise StoreError(f"unknown frame state '{state}'{nearest(state, list(STATES))}")
    return list(states)
