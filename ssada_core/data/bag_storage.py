"""One storage file of a recording, read as far as it goes.

The strict readers (:mod:`ssada_core.data.bags`) refuse a damaged file, which is right for training. A replay wants
what is left of it: a truncated MCAP file without its index, a SQLite file whose last pages are missing, a chunk whose
checksum is wrong. Messages come in the order in which they were recorded.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, Protocol, cast

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, Header, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk, get_chunk_data_stream

from ssada_core.data.damage import Damage
from ssada_core.errors import BagError

CUT_SHORT = "file that is cut short or unreadable from some point on"
BROKEN_PART = "damaged part of a file that was passed over"
_MCAP_ERRORS = (
    *(McapError, zstandard.ZstdError, struct.error, OSError),
    *(ValueError, LookupError, MemoryError, OverflowError, RuntimeError),
)
# Messages of a damaged database, and its names of columns, need not be text.
_SQLITE_ERRORS = (sqlite3.Error, OSError, ValueError, OverflowError)
_LARGEST_CHUNK = 2**31
_MCAP_MAGIC = b"\x89MCAP0\r\n"
_MESSAGE, _CHUNK = 0x05, b"\x06"
_MAX_RETRIES = 64
"""Places at which a damaged SQLite table is tried again behind the damage."""


@dataclass(frozen=True)
class RawMessage:
    """A message as recorded: topic, type, record time in nanoseconds, serialised bytes."""

    topic: str
    type: str
    time_ns: int
    data: bytes


class StorageFile(Protocol):
    """One file of a recording."""

    def topics(self, damage: Damage) -> dict[str, str]:
        """Type of every topic, as far as the file can be read."""
        ...

    def messages(self, topics: Collection[str], damage: Damage) -> Iterator[RawMessage]:
        """Messages of the topics in record order, as far as the file can be read; what is broken is counted."""
        ...


def open_storage(path: Path) -> StorageFile:
    """The reader for a storage file, told by its first bytes, or by its name where these are damaged.

    Raises:
        BagError: if it is neither MCAP nor SQLite.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise BagError(f"{path} cannot be read: {error.strerror}") from error
    if start.startswith(_MCAP_MAGIC) or path.suffix == ".mcap":
        return McapFile(path)
    if start.startswith(b"SQLite format 3") or path.suffix == ".db3":
        return SqliteFile(path)
    raise BagError(f"{path} is neither an MCAP nor a SQLite recording")


class _Bounded:
    """A file that never tries to read more than there is: a damaged length would ask for terabytes."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(self._left if count < 0 else min(count, self._left))
        self._left -= len(data)
        return data


class McapFile:
    """An MCAP file, read from its beginning without its index."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def topics(self, damage: Damage) -> dict[str, str]:
        """See :class:`StorageFile`; reads the whole file."""
        found: dict[str, str] = {}
        schemas: dict[int, str] = {}
        for record in self._records(damage):
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                found[record.topic] = schemas.get(record.schema_id, "")
        return found

    def messages(self, topics: Collection[str], damage: Damage) -> Iterator[RawMessage]:
        """See :class:`StorageFile`."""
        schemas: dict[int, str] = {}
        channels: dict[int, Channel] = {}
        for record in self._records(damage):
            if isinstance(record, Message):
                channel = channels.get(record.channel_id)
                if channel is not None and channel.topic in topics:
                    kind = schemas.get(channel.schema_id, "")
                    yield RawMessage(channel.topic, kind, record.log_time, record.data)
            elif isinstance(record, Schema):
                schemas.setdefault(record.id, record.name)
            elif isinstance(record, Channel):
                channels.setdefault(record.id, record)

    def _records(self, damage: Damage) -> Iterator[McapRecord]:
        whole = 0  # where the last whole record ends
        try:
            with self._path.open("rb") as file:
                bounded = _Bounded(file, self._path.stat().st_size)
                records = StreamReader(cast("IO[bytes]", bounded), emit_chunks=True, record_size_limit=None).records
                for record in records:
                    whole = file.tell()
                    yield from self._unpacked(record, damage)
        except _MCAP_ERRORS as error:
            damage.note(CUT_SHORT, f"{self._path.name}: {_words(error)}")
            yield from self._last_chunk(whole)

    def _last_chunk(self, place: int) -> list[McapRecord]:
        """What is left of a chunk that the end of the file cuts through."""
        with self._path.open("rb") as file:
            file.seek(place)
            if file.read(1) != _CHUNK:
                return []
            file.seek(place + 9)
            try:
                return list(_before_the_cut(Chunk.read(ReadDataStream(BytesIO(file.read(_LARGEST_CHUNK))))))
            except _MCAP_ERRORS:
                return []

    def _unpacked(self, record: McapRecord, damage: Damage) -> list[McapRecord]:
        if isinstance(record, Header) and record.profile not in {"ros2", ""}:
            damage.note("file of another profile than ros2", f"{self._path.name}: {record.profile!r}")
        if not isinstance(record, Chunk):
            return [record]
        try:
            return sorted(_unpack(record), key=_log_time)
        except _MCAP_ERRORS as error:
            damage.note(BROKEN_PART, f"{self._path.name}: {_words(error)}")
            return []


def _unpack(chunk: Chunk) -> list[McapRecord]:
    if chunk.uncompressed_size > _LARGEST_CHUNK:
        raise ValueError(f"a chunk says that it holds {chunk.uncompressed_size} bytes")
    return breakup_chunk(chunk, validate_crc=True)


def _log_time(record: McapRecord) -> int:
    # Schemas and channels come before the messages that need them.
    return record.log_time if isinstance(record, Message) else -1


def _before_the_cut(chunk: Chunk) -> Iterator[McapRecord]:
    """Whole messages of an uncompressed chunk that ends too early; nothing where bytes were changed."""
    if chunk.compression or len(chunk.data) >= chunk.uncompressed_size:
        return
    stream, length = get_chunk_data_stream(chunk)
    kinds: dict[int, Callable[[], McapRecord]] = {3: lambda: Schema.read(stream), 4: lambda: Channel.read(stream)}
    try:
        while stream.count < length:
            opcode, size = stream.read1(), stream.read8()
            if stream.count + size > length:
                return
            if opcode == _MESSAGE:
                yield Message.read(stream, size)
            elif opcode in kinds:
                yield kinds[opcode]()
            else:
                stream.read(size)
    except _MCAP_ERRORS:
        return


class SqliteFile:
    """A SQLite file of rosbag2, read by row number; behind damage it is tried again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def topics(self, damage: Damage) -> dict[str, str]:
        """See :class:`StorageFile`."""
        return dict(self._topics(damage).values())

    def messages(self, topics: Collection[str], damage: Damage) -> Iterator[RawMessage]:
        """See :class:`StorageFile`."""
        wanted = {number: entry for number, entry in self._topics(damage).items() if entry[0] in topics}
        if not wanted:
            return
        with closing(self._connect()) as database:
            for number, time_ns, data in self._rows(database, sorted(wanted), damage):
                if isinstance(data, bytes) and isinstance(time_ns, int):
                    yield RawMessage(*wanted[number], time_ns, data)

    def _connect(self) -> sqlite3.Connection:
        # A recorder that was killed leaves the newest messages in a file of its own, which immutable=1 would ignore.
        unfinished = self._path.with_name(f"{self._path.name}-wal").exists()
        mode = "mode=ro" if unfinished else "immutable=1"
        connection = sqlite3.connect(f"{self._path.resolve().as_uri()}?{mode}", uri=True, check_same_thread=False)
        # Otherwise SQLite refuses a file that is shorter than it says, instead of reading what is there.
        connection.execute("PRAGMA writable_schema=ON")
        connection.text_factory = lambda data: data.decode("utf-8", errors="replace")
        return connection

    def _topics(self, damage: Damage) -> dict[int, tuple[str, str]]:
        try:
            with closing(self._connect()) as database:
                rows = database.execute("SELECT id, name, type FROM topics ORDER BY id").fetchall()
        except _SQLITE_ERRORS as error:
            damage.note(CUT_SHORT, f"{self._path.name}: {_words(error)}")
            return {}
        return {int(number): (str(name), str(kind)) for number, name, kind in rows if isinstance(number, int)}

    def _rows(
        self, database: sqlite3.Connection, wanted: list[int], damage: Damage
    ) -> Iterator[tuple[int, object, object]]:
        """Rows in the order of their numbers; after damage from further and further behind it."""
        marks = ",".join("?" * len(wanted))
        query = f"SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? AND topic_id IN ({marks}) ORDER BY id"  # noqa: S608
        last, jump, retries = -(2**63), 0, 0
        while True:
            try:
                for row in database.execute(query, (min(last + jump, 2**63 - 1), *wanted)):
                    last, jump = int(row[0]), 0
                    yield row[1], row[2], row[3]
            except _SQLITE_ERRORS as error:
                damage.note(BROKEN_PART if retries else CUT_SHORT, f"{self._path.name}: {_words(error)}")
                retries += 1
                last = max(last, 0)
                jump = max(1, 2 * jump)
                if retries <= _MAX_RETRIES and last + jump < 2**62:
                    continue
            return


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
