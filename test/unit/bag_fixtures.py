"""Bags for tests: whole ones, split and compressed ones, damaged ones."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ssada_core.data.bags import BagFrame, write_bag
from ssada_core.data.encodings import encode_jpeg

SECOND = 1_000_000_000
FIRST_NS = 1_000 * SECOND
SIZE = (24, 32)
TYPES = get_typestore(Stores.ROS2_HUMBLE)
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
STORAGES = ("mcap", "sqlite3")


def picture(index: int) -> np.ndarray:
    """A frame that differs from the others."""
    image = np.full((*SIZE, 3), (index * 7 % 256, index * 3 % 256, 90), np.uint8)
    image[index % SIZE[0]] = 255
    return image


def truth(index: int) -> np.ndarray:
    return np.full(SIZE, index % 11, np.uint8)


def frames(count: int, *, jpeg: bool = False, first: int = 0, step_ns: int = SECOND // 5) -> list[BagFrame]:
    """Frames with labels, 5 Hz."""
    found = []
    for index in range(first, first + count):
        image = picture(index)
        found.append(
            BagFrame(
                stamp_ns=FIRST_NS + index * step_ns,
                frame_id="front",
                image=None if jpeg else image,
                jpeg=encode_jpeg(image, 95) if jpeg else None,
                label=truth(index),
            )
        )
    return found


def whole_bag(path: Path, count: int = 20, *, storage: str = "mcap", jpeg: bool = False) -> Path:
    write_bag(path, frames(count, jpeg=jpeg), compressed=jpeg, storage=storage)
    return path


def storage_file(bag: Path) -> Path:
    (found,) = (file for file in bag.iterdir() if file.suffix in {".mcap", ".db3"})
    return found


def split_bag(path: Path, parts: int = 3, each: int = 6, *, storage: str = "mcap") -> Path:
    """A recording in several files, as ``ros2 bag record --max-bag-size`` leaves it; more than nine need numbers."""
    path.mkdir()
    names, merged = [], None
    for part in range(parts):
        whole = path.parent / f"{path.name}_part{part}"
        write_bag(whole, frames(each, first=part * each), compressed=False, storage=storage)
        file = storage_file(whole)
        names.append(f"{path.name}_{part}{file.suffix}")
        file.rename(path / names[-1])
        merged = merged or yaml.safe_load((whole / "metadata.yaml").read_text())
        shutil.rmtree(whole)
    information = merged["rosbag2_bagfile_information"]
    information["relative_file_paths"] = names
    information["message_count"] *= parts
    for topic in information["topics_with_message_count"]:
        topic["message_count"] *= parts
    information["duration"]["nanoseconds"] = (parts * each - 1) * SECOND // 5
    information["files"] = []
    (path / "metadata.yaml").write_text(yaml.safe_dump(merged))
    return path


def compressed_bag(path: Path, mode: str, *, storage: str = "mcap", count: int = 12) -> Path:
    """A recording compressed by file, by message, or (MCAP's own) by chunk."""
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        pass
    shutil.rmtree(path)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
    with writer:
        put(writer, "/camera/image", "/camera/label", frames(count))
    return path


def put(writer: Writer, topic: str, label_topic: str, items: Sequence[BagFrame]) -> None:
    images = writer.add_connection(topic, IMAGE, typestore=TYPES)
    labels = writer.add_connection(label_topic, IMAGE, typestore=TYPES)
    for frame in items:
        for connection, pixels in ((images, frame.image), (labels, frame.label)):
            message = image(frame.stamp_ns, pixels)
            writer.write(connection, frame.stamp_ns, TYPES.serialize_cdr(message, IMAGE))


def foreign_bag(path: Path, messages: Sequence[tuple[str, int, object]], *, storage: str = "mcap") -> Path:
    """Any messages: topic, record time, message."""
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        topics = {}
        for topic, time_ns, message in messages:
            kind = message.__msgtype__
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(topics[topic], time_ns, TYPES.serialize_cdr(message, kind))
    return path


def header(stamp_ns: int) -> object:
    time = TYPES.types["builtin_interfaces/msg/Time"](sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return TYPES.types["std_msgs/msg/Header"](stamp=time, frame_id="front")


def image(stamp_ns: int, pixels: np.ndarray, **changes: object) -> object:
    """An ``Image``, bgr8 or mono8; ``changes`` make it wrong."""
    height, width = pixels.shape[:2]
    values = {
        "header": header(stamp_ns),
        "height": height,
        "width": width,
        "encoding": "mono8" if pixels.ndim == 2 else "bgr8",
        "is_bigendian": 0,
        "step": pixels.size // height,
        "data": np.ascontiguousarray(pixels).reshape(-1),
    }
    return TYPES.types[IMAGE](**{**values, **changes})


def jpeg(stamp_ns: int, data: bytes) -> object:
    return TYPES.types[COMPRESSED](header=header(stamp_ns), format="jpeg", data=np.frombuffer(data, np.uint8))
