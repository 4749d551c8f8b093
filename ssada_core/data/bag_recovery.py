"""A whole recording, read as far as it goes: split, compressed, without metadata, cut short."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import Any

import yaml
import zstandard

from ssada_core.data.bag_messages import COMPRESSED_TYPE, IMAGE_TYPE, UNREADABLE, is_mask, typestore
from ssada_core.data.bag_storage import RawMessage, StorageFile, open_storage
from ssada_core.data.damage import Damage
from ssada_core.data.image_files import natural
from ssada_core.errors import BagError
from ssada_core.settings import nearest

NO_METADATA = "metadata.yaml that is missing or unreadable"
MISSING_FILE = "storage file that is missing or of no known kind"
UNKNOWN_MESSAGE = "message that cannot be read"
_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class RecoveredBag:
    """A recording, opened without being strict.

    Attributes:
        path: the bag's folder or a single storage file.
        damage: what was broken; grows while messages are read.
        topics: type of every topic.
        counts: messages by topic, as the metadata says; empty where it cannot be read.
    """

    def __init__(self, path: Path, damage: Damage) -> None:
        """Find the files and the topics.

        Raises:
            BagError: if there is nothing to read at all.
        """
        if not path.exists():
            raise BagError(f"bag {path} does not exist: name a rosbag2 folder, or an .mcap or .db3 file")
        self.path = path
        self.damage = damage
        metadata = self._metadata()
        self._files = self._find_files(metadata)
        if not self._files:
            raise BagError(f"bag {path} holds no .mcap or .db3 file: is it a rosbag2 folder?")
        self.topics, self.counts = _topics(metadata)
        if not self.topics:
            self.topics = self._topics_of_files()

    def messages(self, topics: Collection[str], *, damage: Damage | None = None) -> Iterator[RawMessage]:
        """Messages of the topics, file after file in record order; single messages are decompressed.

        Args:
            topics: names.
            damage: where to count what is broken, instead of :attr:`damage`.
        """
        counted = self.damage if damage is None else damage
        for file in self._files:
            with self._opened(file, counted) as storage:
                if storage is None:
                    continue
                for message in storage.messages(topics, counted):
                    yield _decompressed(message)

    def decoded(self, topics: Collection[str], *, damage: Damage | None = None) -> Iterator[tuple[RawMessage, Any]]:
        """The same with each message's content; those that cannot be read are counted and left out."""
        counted = self.damage if damage is None else damage
        for message in self.messages(topics, damage=counted):
            kind = self.topics.get(message.topic) or message.type
            try:
                yield message, typestore().deserialize_cdr(message.data, kind)
            except UNREADABLE as error:
                counted.note(UNKNOWN_MESSAGE, f"{message.topic} at {message.time_ns} ns: {error}")

    def image_topics(self, asked: Collection[str] = ()) -> list[str]:
        """The cameras' topics: those asked for, else all with images that are no masks, sorted.

        A camera that was recorded both raw and compressed is taken raw.

        Raises:
            BagError: naming the topics that are there.
        """
        found = [name for name, kind in self.topics.items() if kind in {IMAGE_TYPE, COMPRESSED_TYPE}]
        for topic in asked:
            if topic not in found:
                raise BagError(
                    f"bag {self.path} has no images on {topic}{nearest(topic, found)}; {self._what_is_there()}"
                )
        if asked:
            return list(asked)
        frames = {name for name in found if not is_mask(name)}
        cameras = sorted(name for name in frames if name.removesuffix("/compressed") not in frames - {name})
        if not cameras:
            raise BagError(f"bag {self.path} has no topic with images; {self._what_is_there()}")
        return cameras

    def label_topics(self) -> list[str]:
        """Topics named ``…/label``, which hold ground truth."""
        return sorted(
            name for name, kind in self.topics.items() if kind == IMAGE_TYPE and name.rpartition("/")[2] == "label"
        )

    def _what_is_there(self) -> str:
        topics = ", ".join(f"{name} ({kind})" for name, kind in sorted(self.topics.items()))
        return f"it has {topics or 'no topics at all'}"

    # -- files -----------------------------------------------------------------------------------

    def _metadata(self) -> dict[str, Any]:
        if self.path.is_file():
            return {}
        try:
            values = yaml.safe_load((self.path / "metadata.yaml").read_text(encoding="utf-8"))
            return dict(values["rosbag2_bagfile_information"])
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
            self.damage.note(NO_METADATA, f"{type(error).__name__}: the files are taken in the order of their names")
            return {}

    def _find_files(self, metadata: dict[str, Any]) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        files = [file for file in self.path.iterdir() if file.name.endswith(_SUFFIXES)]
        there = sorted(files, key=lambda file: natural(file.name))  # parts 2 and 10 in this order
        named = metadata.get("relative_file_paths")
        if not isinstance(named, list):
            return there
        wanted = [self.path / PurePath(str(name)).name for name in named]
        for file in wanted:
            if not file.is_file():
                self.damage.note(MISSING_FILE, file.name)
        found = [file for file in wanted if file.is_file()]
        return found or there

    @contextmanager
    def _opened(self, file: Path, damage: Damage) -> Iterator[StorageFile | None]:
        with ExitStack() as stack:
            try:
                if file.suffix == ".zstd":
                    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssada-bag-"))
                    file = _unpacked(file, Path(folder), damage)
                storage = open_storage(file)
            except BagError as error:
                damage.note(MISSING_FILE, str(error))
                storage = None
            yield storage

    def _topics_of_files(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in self._files:
            with self._opened(file, Damage()) as storage:
                if storage is not None:
                    found = {**storage.topics(Damage()), **found}  # damage is counted when messages are read
        return found


def _unpacked(file: Path, folder: Path, damage: Damage) -> Path:
    """A compressed storage file, decompressed into ``folder`` as far as it goes."""
    target = folder / file.stem
    with file.open("rb") as source, target.open("wb") as out:
        try:
            with zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True) as stream:
                shutil.copyfileobj(stream, out)
        except (zstandard.ZstdError, MemoryError) as error:
            damage.note("compressed file that is damaged", f"{file.name}: {error}")
    return target


def _decompressed(message: RawMessage) -> RawMessage:
    """Messages may be compressed one by one; serialised ones never begin like that."""
    if not message.data.startswith(_ZSTD_MAGIC):
        return message
    try:
        data = zstandard.ZstdDecompressor().decompressobj().decompress(message.data)
    except (zstandard.ZstdError, MemoryError):
        return message  # which then cannot be read, and is counted
    return RawMessage(message.topic, message.type, message.time_ns, data)


def _topics(metadata: dict[str, Any]) -> tuple[dict[str, str], dict[str, int]]:
    """Types and message counts by topic."""
    types: dict[str, str] = {}
    counts: dict[str, int] = {}
    try:
        for entry in metadata.get("topics_with_message_count") or []:
            name = str(entry["topic_metadata"]["name"])
            types[name] = str(entry["topic_metadata"]["type"])
            counts[name] = counts.get(name, 0) + int(entry["message_count"])
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}, {}
    return types, counts
