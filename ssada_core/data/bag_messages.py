"""What the messages in a recording look like, and one error for everything that can be wrong with one."""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError, WriterError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_typestore
from rosbags.typesys.store import Typestore

from ssada_core.data.encodings import decode_compressed, encode_jpeg, sniff, to_bgr, to_label
from ssada_core.data.samples import Array
from ssada_core.errors import BagError, EncodingError
from ssada_core.settings import nearest

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError
else:
    from backports.zstd import ZstdError

IMAGE_TOPIC = "/camera/image"
COMPRESSED_TOPIC = "/camera/image/compressed"
LABEL_TOPIC = "/camera/label"
IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
# Last parts of names under which perception nodes publish masks, not frames.
_NOT_FRAMES = frozenset({"label", "mask", "confidence", "overlay"})
_NANO = 1_000_000_000
# The library does not check what it parses: a damaged file ends in whatever its bytes lead to.
UNREADABLE = (
    *(ReaderError, WriterError, SerdeError, TypesysError, apsw.Error, ZstdError, struct.error),
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError),
    *(AssertionError, MemoryError, RuntimeError),
)
# Written frames come from the caller, whose own mistakes must stay visible.
UNWRITABLE = (WriterError, SerdeError, struct.error, sqlite3.Error, OSError, OverflowError)


@dataclass
class BagFrame:
    """One frame of a recording.

    Attributes:
        stamp_ns: the header's stamp in nanoseconds.
        frame_id: the header's frame id.
        image: uint8 H×W×3 BGR, or None where ``jpeg`` is there.
        jpeg: the camera's own JPEG bytes, or None.
        label: class ids and 255, uint8 H×W, or None.
    """

    stamp_ns: int
    frame_id: str
    image: Array | None = None
    jpeg: bytes | None = None
    label: Array | None = None

    def decoded(self) -> Array:
        """The frame as uint8 H×W×3 BGR, decoded now if it is JPEG.

        Raises:
            BagError: if it has neither image nor JPEG.
            EncodingError: if the JPEG is corrupt.
        """
        if self.image is not None:
            return self.image
        if self.jpeg is None:
            raise BagError(f"frame at {self.stamp_ns} ns has neither an image nor JPEG bytes: give one")
        return decode_compressed(self.jpeg)

    def encoded(self) -> bytes:
        """The frame as JPEG: its own bytes where it has them, else quality 95.

        Raises:
            BagError: if it has neither image nor JPEG.
        """
        return self.jpeg if self.jpeg is not None else encode_jpeg(self.decoded())


@cache
def typestore() -> Typestore:
    """The message types of Humble; those used here are the same in every later release."""
    return get_typestore(Stores.ROS2_HUMBLE)


@contextmanager
def bag_errors(path: Path, doing: str, kinds: tuple[type[Exception], ...] = UNREADABLE) -> Iterator[None]:
    """Turn whatever the library raises for ``path`` into a :class:`BagError` of one line."""
    try:
        yield
    except EncodingError as error:
        raise BagError(f"bag {path}: {error}") from error
    except kinds as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BagError(f"bag {path} cannot be {doing}: {reason}") from error


@contextmanager
def open_reader(path: Path) -> Iterator[Reader]:
    """Open a bag (its folder, or a single ``.mcap`` or ``.db3`` file) for reading.

    Raises:
        BagError: if it is missing, cut short or corrupt.
    """
    if path.is_dir() and not (path / "metadata.yaml").exists():
        raise BagError(f"bag {path} has no metadata.yaml: if it was cut short, try 'ros2 bag reindex {path}'")
    with bag_errors(path, "opened"):
        reader = Reader(path)
        reader.open()
    try:
        yield reader
    finally:
        reader.close()


def messages(reader: Reader, path: Path, connection: Connection, **span: int) -> Iterator[tuple[int, Any]]:
    """Record times in nanoseconds and decoded messages of one topic, lazily, in record order.

    Raises:
        BagError: where the recording is damaged.
    """
    # A topic that several publishers shared has a connection for each.
    same = [c for c in reader.connections if (c.topic, c.msgtype) == (connection.topic, connection.msgtype)]
    raw = reader.messages(same, **span)
    while True:
        with bag_errors(path, "read"):
            entry = next(raw, None)
            if entry is None:
                return
            message = typestore().deserialize_cdr(entry[2], connection.msgtype)
        yield entry[1], message


def image_connection(reader: Reader, path: Path, topic: str | None) -> Connection:
    """The connection of ``topic``, or of the only topic with frames.

    Raises:
        BagError: naming the topics that are there.
    """
    if topic is not None:
        return _named(reader, path, topic, (IMAGE_TYPE, COMPRESSED_TYPE))
    found = {
        c.topic: c for c in reader.connections if c.msgtype in {IMAGE_TYPE, COMPRESSED_TYPE} and not is_mask(c.topic)
    }
    for known in (IMAGE_TOPIC, COMPRESSED_TOPIC):
        if known in found:
            return found[known]
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise BagError(f"bag {path} has no topic with images; it has {_topics(reader)}")
    raise BagError(f"bag {path} has several topics with images ({', '.join(sorted(found))}): name one")


def label_connection(reader: Reader, path: Path, topic: str | None) -> Connection | None:
    """The connection of the labels: ``topic``, else the only topic named ``…/label``, else None.

    Raises:
        BagError: if ``topic`` is not there, naming those that are.
    """
    if topic is not None:
        return _named(reader, path, topic, (IMAGE_TYPE,))
    images = (c for c in reader.connections if c.msgtype == IMAGE_TYPE)
    found = {c.topic: c for c in images if c.topic.rpartition("/")[2] == "label"}
    if LABEL_TOPIC in found:
        return found[LABEL_TOPIC]
    return next(iter(found.values())) if len(found) == 1 else None


def stamp_of(message: Any) -> int:  # noqa: ANN401 - the library makes message classes at run time
    """The header's stamp in nanoseconds."""
    return int(message.header.stamp.sec) * _NANO + int(message.header.stamp.nanosec)


def read_frame(message: Any) -> BagFrame:  # noqa: ANN401
    """A frame from an ``Image`` (decoded) or ``CompressedImage`` (JPEG stays JPEG).

    Raises:
        EncodingError: if the bytes do not fit what the message says.
    """
    frame = BagFrame(stamp_of(message), str(message.header.frame_id))
    if hasattr(message, "encoding"):
        image = to_bgr(message.data, **_geometry(message), is_bigendian=bool(message.is_bigendian))
        # A view of the record would be read-only and keep the whole record alive.
        frame.image = image if image.flags.writeable else image.copy()
    elif sniff(message.data) == "jpeg":
        frame.jpeg = message.data.tobytes()
    else:
        frame.image = decode_compressed(message.data)
    return frame


def read_label(message: Any) -> Array:  # noqa: ANN401
    """Class ids of a mono8 ``Image``.

    Raises:
        EncodingError: if the message cannot carry class ids.
    """
    return to_label(message.data, **_geometry(message)).copy()


def image_message(stamp_ns: int, frame_id: str, pixels: Array) -> Any:  # noqa: ANN401
    """An ``Image``: bgr8 for H×W×3, mono8 for H×W."""
    height, width = pixels.shape[:2]
    flat = np.ascontiguousarray(pixels).reshape(-1)
    return typestore().types[IMAGE_TYPE](
        header=_header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="mono8" if pixels.ndim == 2 else "bgr8",
        is_bigendian=0,
        step=flat.size // height,
        data=flat,
    )


def jpeg_message(stamp_ns: int, frame_id: str, jpeg: bytes) -> Any:  # noqa: ANN401
    """A ``CompressedImage``."""
    make = typestore().types[COMPRESSED_TYPE]
    return make(header=_header(stamp_ns, frame_id), format="jpeg", data=np.frombuffer(jpeg, np.uint8))


def _header(stamp_ns: int, frame_id: str) -> Any:  # noqa: ANN401
    types = typestore().types
    seconds, nanoseconds = divmod(stamp_ns, _NANO)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def _geometry(message: Any) -> dict[str, Any]:  # noqa: ANN401
    return {key: getattr(message, key) for key in ("encoding", "height", "width", "step")}


def _named(reader: Reader, path: Path, topic: str, kinds: tuple[str, ...]) -> Connection:
    for connection in reader.connections:
        if connection.topic == topic:
            if connection.msgtype in kinds:
                return connection
            raise BagError(f"bag {path}: topic {topic} is {connection.msgtype}, not {' or '.join(kinds)}")
    close = nearest(topic, [c.topic for c in reader.connections])
    raise BagError(f"bag {path} has no topic {topic}{close if 'mean' in close else ''}; it has {_topics(reader)}")


def _topics(reader: Reader) -> str:
    return ", ".join(f"{c.topic} ({c.msgtype})" for c in reader.connections) or "no topics at all"


def is_mask(topic: str) -> bool:
    """Whether a topic's name is that of a mask, a label or an overlay, not of a camera's frames."""
    return not _NOT_FRAMES.isdisjoint(topic.split("/")[-2:])
