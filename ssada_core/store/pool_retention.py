"""Which frames are too old, by a clock that may leap: a reading counts once the clock has held for a day."""

from __future__ import annotations

import json
import time
from dataclasses import astuple, dataclass

from ssada_core.store.pool_schema import Database

DAY_NS = 86_400 * 10**9
CLOCK_SET_NS = 1_577_836_800 * 10**9
"""2020-01-01: a wall clock before this was never set (boards without a battery start in 1970)."""
LEAP_NS = 2 * DAY_NS
"""What may pass between two readings of a vehicle that is used every day."""
_KEY = "clock"


@dataclass(frozen=True)
class Clock:
    """What was seen of the wall clock, nanoseconds.

    Attributes:
        believed: the reading that age is judged by.
        since: the first reading after its last leap.
        last: the newest reading.
    """

    believed: int
    since: int
    last: int

    def read(self, now: int, ran_ns: int | None) -> Clock:
        """The same after another reading.

        A leap is more than :data:`LEAP_NS` that no process saw pass. That a vehicle stood cannot be told from a clock
        that was set while it was off: then what was read before has held so long. Under a running process it can.

        Args:
            now: the reading.
            ran_ns: how long this process has run since its own last one; None for its first.
        """
        if now < self.last:
            return Clock(min(self.believed, now), min(self.since, now), now)
        if now - self.last - (ran_ns or 0) > LEAP_NS:
            return Clock(self.last if ran_ns is None else self.believed, now, now)
        holds = self.believed == self.last or now - self.since >= DAY_NS
        return Clock(now if holds else self.believed, self.since, now)


def expired(database: Database, days: float, ran_ns: int | None) -> tuple[list[int], str]:
    """Read the clock. Inside a transaction.

    Args:
        database: the pool's.
        days: the limit.
        ran_ns: as for :meth:`Clock.read`.

    Returns:
        Frames older than ``days``, and, where the clock may have leapt, why others are not believed to be.
    """
    now = time.time_ns()
    if now < CLOCK_SET_NS:
        return [], ""
    clock = _seen(database, now).read(now, ran_ns)
    database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_KEY, json.dumps(astuple(clock))))
    old = _older(database, clock.believed - int(days * DAY_NS))
    doubtful = len(_older(database, now - int(days * DAY_NS))) - len(old)
    if not doubtful:
        return old, ""
    return old, (
        f"the clock leapt ahead and {doubtful} frames look older than retention_days: they go when it has held for a "
        f"day, or now with 'ssada pool purge {database.root} --older-than {days:g}'"
    )


def _seen(database: Database, now: int) -> Clock:
    """What was seen before; the frames say it of a pool that had no limit yet."""
    row = database.row("SELECT value FROM meta WHERE key=?", (_KEY,))
    if row is not None:
        return Clock(*json.loads(row["value"]))
    stored = database.rows(
        "SELECT MIN(stored_at) AS first, MAX(stored_at) AS last FROM frames WHERE stored_at BETWEEN ? AND ?",
        (CLOCK_SET_NS, now),
    )[0]
    last = stored["last"] or now
    return Clock(last, stored["first"] or now, last)


def _older(database: Database, limit: int) -> list[int]:
    rows = database.rows("SELECT id FROM frames WHERE stored_at BETWEEN ? AND ?", (CLOCK_SET_NS, limit))
    return [row["id"] for row in rows]
