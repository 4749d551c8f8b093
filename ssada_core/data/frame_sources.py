"""Where a camera's frames come from: a simulated drive, images, a video, a recording, a device.

A source gives one frame after another and knows nothing of time: whoever asks sets the pace and the stamps. JPEG
passes through as it is and is decoded by whoever needs pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ssada_core.data.bag_messages import image_connection, label_connection, open_reader
from ssada_core.data.bags import read_bag
from ssada_core.data.lists import check_simulated, open_samples
from ssada_core.data.samples import Samples, jpeg_of, mapped_space
from ssada_core.data.simulated_drive import DOMAINS, SimulatedDrive
from ssada_core.data.source_kinds import DeviceSource, FrameSource, RecordedSource, SimulatedSource, SourceFrame
from ssada_core.errors import ConfigError, DataError
from ssada_core.labels import LabelSpace
from ssada_core.settings import nearest

__all__ = [
    "DeviceSource",
    "FrameSource",
    "RecordedSource",
    "SimulatedSource",
    "SourceFrame",
    "open_source",
]


@dataclass(frozen=True)
class _Request:
    """The arguments of :func:`open_source`, for the openers."""

    rest: str
    loop: bool
    seed: int
    size: tuple[int, int]
    rate: float
    label_space: LabelSpace
    topic: str | None


def open_source(
    spec: str,
    *,
    loop: bool,
    seed: int,
    size: tuple[int, int],
    rate: float,
    label_space: LabelSpace,
    topic: str | None = None,
) -> FrameSource:
    """Open a source by its specification.

    Args:
        spec: ``sim[:DOMAIN]``, ``images:DIR`` (of images, or with ``images/`` and ``labels/``; or a list file),
            ``video:FILE``, ``bag:PATH`` or ``device:N``.
        loop: begin again at the end (images, video, bag).
        seed: of the simulated drive.
        size: height and width of simulated frames, and those asked of a device.
        rate: frames per second of the simulated drive, and those asked of a device.
        label_space: in which labels are read.
        topic: image topic of a bag; None finds it by type.

    Raises:
        ConfigError: if the scheme or the domain is unknown, or what follows it is missing.
        DataError: if the source cannot be read.
    """
    scheme, _, rest = spec.partition(":")
    opener = OPENERS.get(scheme)
    if opener is None:
        raise ConfigError(f"unknown source '{spec}': '{scheme}' is no scheme{nearest(scheme, list(OPENERS))}")
    if not rest and scheme != "sim":
        raise ConfigError(f"source '{spec}' names nothing: write '{scheme}:' and what to open")
    return opener(_Request(rest, loop, seed, size, rate, label_space, topic))


def _open_sim(request: _Request) -> FrameSource:
    check_simulated(request.label_space)
    drive = SimulatedDrive(seed=request.seed, size=request.size, rate=request.rate)
    return SimulatedSource(drive, request.rest or DOMAINS[0])


def _open_images(request: _Request) -> FrameSource:
    samples = open_samples(request.rest, request.label_space)
    labelled = any(samples.label(index) is not None for index in range(len(samples)))
    return RecordedSource(
        lambda: _sample_frames(samples), what=f"images:{request.rest}", loop=request.loop, has_labels=labelled
    )


def _open_video(request: _Request) -> FrameSource:
    path = Path(request.rest)
    if not path.is_file():
        raise DataError(f"video {path} is not there")
    return RecordedSource(lambda: _video_frames(path), what=f"video {path}", loop=request.loop)


def _open_bag(request: _Request) -> FrameSource:
    path = Path(request.rest)
    with open_reader(path) as reader:
        image_connection(reader, path, request.topic)
        labelled = label_connection(reader, path, None) is not None
    return RecordedSource(
        lambda: _bag_frames(path, request.topic, request.label_space),
        what=f"bag {path}",
        loop=request.loop,
        has_labels=labelled,
    )


def _open_device(request: _Request) -> FrameSource:
    if not request.rest.isdecimal():
        raise ConfigError(f"source 'device:{request.rest}' needs a number, such as device:0")
    return DeviceSource(int(request.rest), size=request.size, rate=request.rate)


OPENERS: dict[str, Callable[[_Request], FrameSource]] = {
    "sim": _open_sim,
    "images": _open_images,
    "video": _open_video,
    "bag": _open_bag,
    "device": _open_device,
}
"""Scheme → how it is opened."""


def _sample_frames(samples: Samples) -> Iterator[SourceFrame]:
    for index in range(len(samples)):
        jpeg = jpeg_of(samples, index)
        image = samples.image(index) if jpeg is None else None
        yield SourceFrame(image, jpeg, samples.label(index))


def _video_frames(path: Path) -> Iterator[SourceFrame]:
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(f"video {path} cannot be read: OpenCV has no decoder for it, or it is corrupt")
        while True:
            read, image = capture.read()
            if not read:
                return
            yield SourceFrame(image=np.asarray(image, np.uint8))
    finally:
        capture.release()


def _bag_frames(path: Path, topic: str | None, label_space: LabelSpace) -> Iterator[SourceFrame]:
    space = mapped_space(label_space)
    for frame in read_bag(path, topic=topic):
        label = frame.label
        if label is not None:
            label = space.decode(label, source=f"label in bag {path} at {frame.stamp_ns} ns")
        yield SourceFrame(frame.image, frame.jpeg, label, frame.frame_id)
