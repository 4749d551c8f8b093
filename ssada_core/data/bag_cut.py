"""Parts of a recording as a recording of their own: a span of time, some topics, every n-th message.

Messages are copied as they are. It reads as far as a damaged recording goes, so it also mends one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Writer
from rosbags.typesys import TypesysError

from ssada_core.data.bag_messages import UNWRITABLE, bag_errors, typestore
from ssada_core.data.bag_recovery import RecoveredBag
from ssada_core.data.bags import STORAGES, Storage
from ssada_core.data.damage import Damage
from ssada_core.errors import BagError
from ssada_core.settings import nearest

UNKNOWN_TYPE = "message of a type that is not known here, left out"
TOLD_EVERY = 50
"""Messages between two reports of the progress."""


@dataclass(frozen=True)
class Cut:
    """What to take.

    Attributes:
        start_s: seconds after the first message.
        end_s: seconds after the first message; 0 is the end.
        topics: names; empty takes all.
        every: every n-th message of each topic with images and of its label, by record time; 1 takes all.
    """

    start_s: float = 0.0
    end_s: float = 0.0
    topics: tuple[str, ...] = ()
    every: int = 1


def cut_bag(
    path: Path,
    out: Path,
    cut: Cut,
    *,
    storage: Storage = "mcap",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, Damage]:
    """Copy a part of a recording, all or nothing.

    Args:
        path: the recording.
        out: folder of the new one, which must not exist yet.
        cut: what to take.
        storage: ``"mcap"`` or ``"sqlite3"``.
        progress: called with (messages read, messages expected; 0 where that is not known).

    Returns:
        Messages written, and what was broken.

    Raises:
        BagError: if ``out`` exists, there is no such topic, nothing is left, or it cannot be read or written.
    """
    if out.exists():
        raise BagError(f"bag {out} exists already: remove it or choose another name")
    if storage not in STORAGES:
        raise BagError(f"unknown bag storage '{storage}': choose {' or '.join(STORAGES)}")
    damage = Damage()
    bag = RecoveredBag(path, damage)
    topics = _topics(bag, cut.topics)
    with bag_errors(out, "written", UNWRITABLE):
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            count = _copy(bag, work / out.name, topics, cut, storage, progress)
            (work / out.name).rename(out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return count, damage


def _topics(bag: RecoveredBag, asked: Collection[str]) -> list[str]:
    for topic in asked:
        if topic not in bag.topics:
            raise BagError(f"bag {bag.path} has no topic {topic}{nearest(topic, sorted(bag.topics))}")
    return sorted(asked or bag.topics)


def _copy(
    bag: RecoveredBag,
    path: Path,
    topics: list[str],
    cut: Cut,
    storage: Storage,
    progress: Callable[[int, int], None] | None,
) -> int:
    known = {topic for topic in topics if bag.topics[topic] in typestore().types}
    for topic in set(topics) - known:
        bag.damage.note(UNKNOWN_TYPE, f"{topic} is {bag.topics[topic]}", count=bag.counts.get(topic, 1))
    expected = sum(bag.counts.get(topic, 0) for topic in known)
    written, first_ns, chosen = 0, None, _Every(cut.every)
    with Writer(path, version=8, storage_plugin=STORAGES[storage]) as writer:
        connections: dict[str, Connection] = {}
        for number, message in enumerate(bag.messages(known), 1):
            first_ns = message.time_ns if first_ns is None else first_ns
            seconds = (message.time_ns - first_ns) / 1e9
            inside = seconds >= cut.start_s and (not cut.end_s or seconds < cut.end_s)
            if inside and chosen.takes(message.topic, message.time_ns):
                if message.topic not in connections:
                    connections[message.topic] = _connect(writer, message.topic, bag.topics[message.topic])
                writer.write(connections[message.topic], message.time_ns, message.data)
                written += 1
            if progress is not None and number % TOLD_EVERY == 0:
                progress(number, max(number, expected))
        if not written:
            raise BagError(f"nothing of {bag.path} lies in that part: {bag.damage.words() or 'choose another span'}")
    return written


def _connect(writer: Writer, topic: str, kind: str) -> Connection:
    try:
        return writer.add_connection(topic, kind, typestore=typestore())
    except TypesysError as error:
        raise BagError(f"topic {topic} cannot be copied: {error}") from error


class _Every:
    """Takes every n-th record time: what was recorded at one time, a frame and its label, stays together."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._counts: dict[str, int] = {}
        self._taken: dict[int, bool] = {}

    def takes(self, topic: str, time_ns: int) -> bool:
        if self._every == 1:
            return True
        if time_ns not in self._taken:
            number = self._counts.get(topic, 0)
            self._counts[topic] = number + 1
            self._taken = {**dict(list(self._taken.items())[-8:]), time_ns: number % self._every == 0}
        return self._taken[time_ns]
