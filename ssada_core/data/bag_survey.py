"""What is in a recording: from its index where it is whole, message by message where it is damaged or asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ssada_core.data.bag_recovery import RecoveredBag
from ssada_core.data.bags import BagInfo, BagTopic, bag_info, storage_of
from ssada_core.data.damage import Damage
from ssada_core.errors import BagError

TOLD_EVERY = 50
"""Messages between two reports of the progress."""

Progress = Callable[[int, int], None]
"""Called with (messages read, messages expected; 0 where that is not known)."""


def survey_bag(path: Path, *, thorough: bool = False, progress: Progress | None = None) -> tuple[BagInfo, Damage]:
    """Topics, counts, span and storage, and what was broken.

    Args:
        path: the bag's folder, or a single storage file.
        thorough: read every message even if metadata and index are whole: damage behind them is not seen otherwise.
        progress: told while messages are read.

    Raises:
        BagError: if there is nothing to read at all.
    """
    if not thorough:
        try:
            return bag_info(path), Damage()
        except BagError:  # damaged, or not there: the next reader says which
            pass
    damage = Damage()
    return _read_through(RecoveredBag(path, damage), progress), damage


def _read_through(bag: RecoveredBag, progress: Progress | None) -> BagInfo:
    counts = dict.fromkeys(bag.topics, 0)
    expected, done = sum(bag.counts.values()), 0
    first, last = 2**63, -(2**63)
    for done, message in enumerate(bag.messages(bag.topics.keys()), 1):
        counts[message.topic] += 1
        first, last = min(first, message.time_ns), max(last, message.time_ns)
        if progress is not None and done % TOLD_EVERY == 0:
            progress(done, expected)
    if not done:
        first = last = 0
    topics = tuple(BagTopic(name, kind, counts[name]) for name, kind in bag.topics.items())
    return BagInfo(topics, done, first, last, (last - first) / 1e9, storage_of(bag.path))
