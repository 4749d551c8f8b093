"""What a replay writes frame by frame: a table of the frames, a bag with the masks, a video of the overlays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TextIO

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from ssada_core.data.bag_messages import (
    COMPRESSED_TYPE,
    IMAGE_TYPE,
    UNWRITABLE,
    bag_errors,
    image_message,
    jpeg_message,
    typestore,
)
from ssada_core.data.encodings import encode_jpeg
from ssada_core.data.samples import Array
from ssada_core.errors import ConfigError, StoreError, require
from ssada_core.evaluation.overlay import overlay
from ssada_core.labels import LabelSpace
from ssada_core.replay.driver import Served
from ssada_core.replay.tally import Row

OPACITY = 0.5
_STRING_TYPE = "std_msgs/msg/String"
_TIME_BASE = 90_000


class Output(Protocol):
    """Sees every frame."""

    def see(self, served: Served) -> None:
        """Take a frame with its answers."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


class FramesTable:
    """``frames.csv``: one line for each frame and series."""

    def __init__(self, path: Path) -> None:
        try:
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}") from error
        self._file.write(f"{Row.HEADER}\n")

    def write(self, rows: Sequence[Row]) -> None:
        """Append a frame's rows."""
        self._file.writelines(f"{row.line()}\n" for row in rows)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class MaskBag:
    """A bag for Foxglove and RViz: frames, masks, overlays and ground truth, with the frames' own headers."""

    def __init__(self, path: Path, label_space: LabelSpace) -> None:
        """Create the bag (MCAP).

        Raises:
            ConfigError: if it exists already.
            BagError: if it cannot be written.
        """
        if path.exists():
            raise ConfigError(f"bag {path} exists already: remove it or choose another name")
        self._path = path
        self._space = label_space
        self._palette = label_space.palette_bgr()
        self._topics: dict[str, Connection] = {}
        with bag_errors(path, "written", UNWRITABLE):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()

    def see(self, served: Served) -> None:
        """See :class:`Output`."""
        frame, answer = served.frame, served.answers[-1]
        node = f"/segmentation_node/{frame.camera}"
        colours = overlay(frame.image, answer.label, self._palette, opacity=OPACITY)
        jpeg = frame.jpeg if frame.jpeg is not None else encode_jpeg(frame.image)
        stamp, name = frame.stamp_ns, frame.frame_id
        with bag_errors(self._path, "written", UNWRITABLE):
            if not self._topics:
                text = typestore().types[_STRING_TYPE](data=self._space.to_json())
                self._put("/segmentation_node/label_space", _STRING_TYPE, stamp, text)
            self._put(f"/{frame.camera}/image/compressed", COMPRESSED_TYPE, stamp, jpeg_message(stamp, name, jpeg))
            self._put(f"{node}/mask", IMAGE_TYPE, stamp, image_message(stamp, name, answer.label))
            picture = jpeg_message(stamp, name, encode_jpeg(colours, 90))
            self._put(f"{node}/overlay/compressed", COMPRESSED_TYPE, stamp, picture)
            if frame.label is not None:
                self._put(f"/{frame.camera}/label", IMAGE_TYPE, stamp, image_message(stamp, name, frame.label))

    def close(self) -> None:
        """See :class:`Output`."""
        with bag_errors(self._path, "written", UNWRITABLE):
            self._writer.close()

    def _put(self, topic: str, kind: str, stamp_ns: int, message: Any) -> None:  # noqa: ANN401
        if topic not in self._topics:
            self._topics[topic] = self._writer.add_connection(topic, kind, typestore=typestore())
        self._writer.write(self._topics[topic], stamp_ns, typestore().serialize_cdr(message, kind))


class OverlayVideo:
    """H.264 in MP4, one file for each camera, in the pace of the recording."""

    def __init__(self, path: Path, label_space: LabelSpace) -> None:
        """Prepare; nothing is written before the first frame.

        Raises:
            MissingExtraError: if PyAV is not installed.
        """
        self._av: ModuleType = require("av", extra="video", purpose="writing a video")
        self._path = path
        self._palette = label_space.palette_bgr()
        self._videos: dict[str, _Video] = {}

    def see(self, served: Served) -> None:
        """See :class:`Output`."""
        frame = served.frame
        if frame.camera not in self._videos:
            many = self._path.with_name(f"{self._path.stem}-{frame.camera}{self._path.suffix}")
            path = many if self._videos else self._path
            self._videos[frame.camera] = _Video(self._av, path, frame.image.shape, frame.stamp_ns)
        colours = overlay(frame.image, served.answers[-1].label, self._palette, opacity=OPACITY)
        self._videos[frame.camera].add(colours, frame.stamp_ns)

    def close(self) -> None:
        """See :class:`Output`."""
        for video in self._videos.values():
            video.close()


class _Video:
    def __init__(self, av: ModuleType, path: Path, shape: tuple[int, ...], first_ns: int) -> None:
        self._av = av
        self._first_ns = first_ns
        self._last = -1
        # H.264 with halved colours needs even sizes.
        self._size = (shape[0] // 2 * 2, shape[1] // 2 * 2)
        try:
            self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}") from error
        self._stream = self._container.add_stream("libx264", rate=30, options={"crf": "23", "preset": "veryfast"})
        self._stream.height, self._stream.width = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TIME_BASE)

    def add(self, image: Array, stamp_ns: int) -> None:
        if image.shape[0] < self._size[0] or image.shape[1] < self._size[1]:
            return  # a camera that changed its size in the middle of the drive
        height, width = self._size
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="bgr24")
        self._last = frame.pts = max(self._last + 1, round((stamp_ns - self._first_ns) * _TIME_BASE / 1e9))
        frame.time_base = Fraction(1, _TIME_BASE)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def remove_unfinished(paths: Sequence[Path]) -> None:
    """Delete what a failed replay left half written."""
    for path in paths:
        remove: Callable[[Path], None] = shutil.rmtree if path.is_dir() else Path.unlink
        if path.exists():
            remove(path)
