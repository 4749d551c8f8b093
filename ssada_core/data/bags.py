"""ROS 2 recordings (rosbag2, MCAP and sqlite3) in and out, without ROS.

Recordings made here have frames on ``/camera/image`` (bgr8) or ``/camera/image/compressed`` (JPEG) and labels on
``/camera/label`` (mono8, the frame's own header). They are written in metadata version 8, which Humble reads too.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from ssada_core.data.bag_messages import (
    COMPRESSED_TOPIC,
    COMPRESSED_TYPE,
    IMAGE_TOPIC,
    IMAGE_TYPE,
    LABEL_TOPIC,
    UNWRITABLE,
    BagFrame,
    bag_errors,
    image_connection,
    image_message,
    jpeg_message,
    label_connection,
    messages,
    open_reader,
    read_frame,
    read_label,
    stamp_of,
    typestore,
)
from ssada_core.data.samples import Array, Samples, check_sizes, jpeg_of
from ssada_core.errors import BagError

__all__ = [
    "COMPRESSED_TOPIC",
    "IMAGE_TOPIC",
    "LABEL_TOPIC",
    "START_NS",
    "BagFrame",
    "BagInfo",
    "BagTopic",
    "Storage",
    "bag_info",
    "create_bag",
    "read_bag",
    "storage_of",
    "write_bag",
]

Storage = Literal["mcap", "sqlite3"]
STORAGES: dict[str, StoragePlugin] = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
START_NS = 1_700_000_000 * 1_000_000_000
"""Stamp of the first frame of a created bag: fixed, so that the same frames make the same bag."""
# Labels held while looking for a frame's own: some frames have none, and recorders swap neighbours.
_LABELS_KEPT = 8


@dataclass(frozen=True)
class BagTopic:
    """A topic of a recording: its name, its message type and the number of its messages."""

    name: str
    type: str
    count: int


@dataclass(frozen=True)
class BagInfo:
    """What a recording holds. Times are record times in nanoseconds; 0 for an empty one."""

    topics: tuple[BagTopic, ...]
    count: int
    start_ns: int
    end_ns: int
    duration_s: float
    storage: str


def bag_info(path: Path) -> BagInfo:
    """Topics, counts, span and storage of a recording, from its metadata.

    Raises:
        BagError: if it is missing, cut short or corrupt.
    """
    with open_reader(path) as reader:
        topics = tuple(BagTopic(c.topic, c.msgtype, c.msgcount) for c in reader.connections)
        count = reader.message_count
        # The library's end is exclusive, a nanosecond after the last message.
        start, end = (reader.start_time, reader.end_time - 1) if count else (0, 0)
    return BagInfo(topics, count, start, end, (end - start) / 1e9, storage_of(path))


def storage_of(path: Path) -> str:
    """``"mcap"`` or ``"sqlite3"``, by the names of a recording's files."""
    names = [path.name] if path.is_file() else [file.name for file in path.iterdir()]
    return "mcap" if any(".mcap" in name for name in names) else "sqlite3"


def read_bag(path: Path, *, topic: str | None = None, label_topic: str | None = None) -> Iterator[BagFrame]:
    """Frames of a recording in record order, each with the label that has the same stamp.

    Lazy, in memory that does not grow with the recording. JPEG stays JPEG.

    Args:
        path: the bag's folder, or a single storage file.
        topic: the frames' topic; None finds it by type.
        label_topic: the labels' topic; None takes the one named ``…/label``, if there is one.

    Raises:
        BagError: if the bag is missing, cut short or corrupt, or lacks the topic (naming those it has).
    """
    with ExitStack() as stack:
        reader = stack.enter_context(open_reader(path))
        images = image_connection(reader, path, topic)
        label_of = stack.enter_context(_labels(path, label_topic))
        for _, message in messages(reader, path, images):
            with bag_errors(path, "read"):
                frame = read_frame(message)
            frame.label = label_of(frame.stamp_ns)
            yield frame


def write_bag(path: Path, frames: Iterable[BagFrame], *, compressed: bool, storage: Storage = "mcap") -> int:
    """Write a recording, all or nothing.

    Args:
        path: folder of the bag, which must not exist yet.
        frames: consumed one by one.
        compressed: JPEG (the frame's own bytes where it has them), or raw bgr8.
        storage: ``"mcap"`` or ``"sqlite3"``.

    Returns:
        Number of frames written.

    Raises:
        BagError: if ``path`` exists, there are no frames, or one cannot be written.
    """
    if storage not in STORAGES:
        raise BagError(f"unknown bag storage '{storage}': choose {' or '.join(STORAGES)}")
    if path.exists():
        raise BagError(f"bag {path} exists already: remove it or choose another name")
    with bag_errors(path, "written", UNWRITABLE):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Same name in a hidden folder beside it: the storage file is called after its folder.
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            count = _write(work / path.name, frames, compressed=compressed, storage=storage)
            (work / path.name).rename(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return count


def create_bag(
    samples: Samples,
    out: Path,
    *,
    rate: float = 5.0,
    compressed: bool = True,
    storage: Storage = "mcap",
    frame_id: str = "camera",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Turn any samples into a recording, stamped from :data:`START_NS` on at ``rate`` frames per second.

    Args:
        samples: frames with or without labels; JPEG files go in byte for byte when ``compressed``.
        out: folder of the bag, which must not exist yet.
        rate: frames per second.
        compressed: JPEG, or raw bgr8.
        storage: ``"mcap"`` or ``"sqlite3"``.
        frame_id: the frame id of every header.
        progress: called with (done, total) after each frame.

    Returns:
        Number of frames written.

    Raises:
        BagError: as :func:`write_bag`, or if the rate is not positive.
        DataError: if a frame or label cannot be read, or their sizes differ.
    """
    if not 0 < rate <= 1e6:
        raise BagError(f"a bag cannot be made at {rate} frames per second: give a positive rate")

    def frames() -> Iterator[BagFrame]:
        for index in range(len(samples)):
            jpeg = jpeg_of(samples, index) if compressed else None
            image = samples.image(index) if jpeg is None else None
            label = samples.label(index)
            if image is not None:
                check_sizes(samples.name(index), image, label)
            yield BagFrame(START_NS + round(index * 1e9 / rate), frame_id, image, jpeg, label)
            if progress is not None:
                progress(index + 1, len(samples))

    return write_bag(out, frames(), compressed=compressed, storage=storage)


@contextmanager
def _labels(path: Path, topic: str | None) -> Iterator[Callable[[int], Array | None]]:
    """A function from a stamp to its label, reading the labels' topic alongside, only as far as needed."""
    with open_reader(path) as reader:
        connection = label_connection(reader, path, topic)
        if connection is None:
            yield lambda _: None
            return
        yield _LabelStream(reader, path, connection).at


class _LabelStream:
    """The labels of a recording, asked for by stamp; it looks only a few labels ahead."""

    def __init__(self, reader: Reader, path: Path, connection: Connection) -> None:
        self._path = path
        self._messages = messages(reader, path, connection)
        self._kept: dict[int, Any] = {}

    def at(self, stamp_ns: int) -> Array | None:
        while stamp_ns not in self._kept and self._make_room(stamp_ns) and self._advance():
            pass
        message = self._kept.pop(stamp_ns, None)
        if message is None:
            return None
        with bag_errors(self._path, "read"):
            return read_label(message)

    def _make_room(self, stamp_ns: int) -> bool:
        """Forget a label older than the frame if there are too many; False if all are newer."""
        if len(self._kept) < _LABELS_KEPT:
            return True
        oldest = min(self._kept)
        if oldest > stamp_ns:
            return False
        del self._kept[oldest]
        return True

    def _advance(self) -> bool:
        entry = next(self._messages, None)
        if entry is not None:
            self._kept[stamp_of(entry[1])] = entry[1]
        return entry is not None


def _write(path: Path, frames: Iterable[BagFrame], *, compressed: bool, storage: Storage) -> int:
    topic, kind = (COMPRESSED_TOPIC, COMPRESSED_TYPE) if compressed else (IMAGE_TOPIC, IMAGE_TYPE)
    count = 0
    with Writer(path, version=8, storage_plugin=STORAGES[storage]) as writer:
        images = writer.add_connection(topic, kind, typestore=typestore())
        labels: Connection | None = None
        for frame in frames:
            _put(writer, images, frame.stamp_ns, _message(frame, compressed=compressed))
            if frame.label is not None:
                _check_label(frame)
                labels = labels or writer.add_connection(LABEL_TOPIC, IMAGE_TYPE, typestore=typestore())
                _put(writer, labels, frame.stamp_ns, image_message(frame.stamp_ns, frame.frame_id, frame.label))
            count += 1
        if count == 0:
            raise BagError("there are no frames to write")
    return count


def _message(frame: BagFrame, *, compressed: bool) -> Any:  # noqa: ANN401 - made by the library at run time
    if compressed:
        return jpeg_message(frame.stamp_ns, frame.frame_id, frame.encoded())
    return image_message(frame.stamp_ns, frame.frame_id, frame.decoded())


def _put(writer: Writer, connection: Connection, stamp_ns: int, message: object) -> None:
    writer.write(connection, stamp_ns, typestore().serialize_cdr(message, connection.msgtype))


def _check_label(frame: BagFrame) -> None:
    label = frame.label
    if label is not None and (label.ndim != 2 or label.dtype != np.uint8):
        raise BagError(f"label at {frame.stamp_ns} ns is {label.shape} {label.dtype}: give uint8 HxW of class ids")
