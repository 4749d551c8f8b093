"""The cameras that a node subscribes to: topics, names and message types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from rclpy.exceptions import InvalidTopicNameException
from rclpy.serialization import deserialize_message
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CompressedImage, Image

from ssada_core.data.camera_names import camera_name
from ssada_core.data.encodings import picture_size
from ssada_core.data.samples import Array
from ssada_core.errors import ConfigError, EncodingError
from ssada_ros.conversions import compressed_to_bgr, image_to_bgr
from ssada_ros.regions import WHOLE, Region, list_regions

T = TypeVar("T")
Transport = Literal["auto", "raw", "compressed"]
MIB = 1 << 20
_COMPRESSED = "/compressed"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Source:
    """Where a camera's frames may come from: a topic, and whether it carries ``CompressedImage``."""

    topic: str
    compressed: bool

    @property
    def message_type(self) -> Any:  # noqa: ANN401 (message classes have no common base)
        """The type to subscribe with."""
        return CompressedImage if self.compressed else Image

    @property
    def type_name(self) -> str:
        """The type as the graph names it."""
        return f"sensor_msgs/msg/{self.message_type.__name__}"


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        name: in topics and pool.
        topic: as it was given.
        transport: as it was given.
        region: the part of its frames that is looked at.
    """

    name: str
    topic: str
    transport: Transport = "auto"
    region: Region = WHOLE

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where its frames may come from; the first one is what is expected before any publisher is seen."""
        raw, compressed = Source(self.topic, compressed=False), Source(self.topic, compressed=True)
        both: tuple[Source, ...] = (compressed, raw)
        if not self.topic.endswith(_COMPRESSED):  # image_transport's convention: compressed frames are one name below
            both = (raw, compressed, Source(self.topic + _COMPRESSED, compressed=True))
        if self.transport == "auto":
            return both
        return tuple(source for source in both if source.compressed == (self.transport == "compressed"))

    @property
    def info_topic(self) -> str:
        """Its ``CameraInfo``, beside the image: ``front/image_raw/compressed`` → ``front/camera_info``."""
        parent, _, _ = self.topic.removesuffix(_COMPRESSED).rpartition("/")
        return f"{parent}/camera_info" if parent or self.topic.startswith("/") else "camera_info"


def list_cameras(
    topics: Sequence[str], names: Sequence[str], transport: Transport, regions: Sequence[float] = ()
) -> dict[str, Camera]:
    """Cameras by name; names are derived from the topics where none are given.

    Raises:
        ConfigError: if there are no cameras, names, regions and topics do not fit each other, or ROS cannot use them.
    """
    if not topics:
        raise ConfigError("cameras is empty: name at least one image topic")
    for topic in topics:
        _check_topic(topic)
    chosen = list(names) or [camera_name(topic) for topic in topics]
    if len(chosen) != len(topics):
        raise ConfigError(f"camera_names has {len(chosen)} names for {len(topics)} cameras: give one each")
    if len(set(chosen)) != len(chosen):
        raise ConfigError(f"camera names are not unique ({', '.join(chosen)}): set camera_names")
    for name in chosen:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"camera name '{name}' cannot be part of a topic: letters, digits and _; set camera_names"
            )
    parts = zip(chosen, topics, list_regions(regions, len(topics)), strict=True)
    return {name: Camera(name, topic, transport, region) for name, topic, region in parts}


def decode(message: bytes, *, compressed: bool, max_bytes: int = 1 << 30) -> tuple[Image | CompressedImage, Array]:
    """Deserialise a camera message: the message itself, and its frame as uint8 H×W×3 BGR.

    Args:
        message: serialised, as it came off the wire.
        compressed: whether it is a ``CompressedImage``.
        max_bytes: larger messages, and pictures that decode to more, are refused before memory is taken for them.

    Raises:
        EncodingError: if the message is malformed or too large, or the image in it cannot be read.
    """
    if len(message) > max_bytes:
        raise _too_large("a message is", max_bytes)
    if not compressed:
        image = _deserialized(message, Image)
        if image.height * image.width * 3 > max_bytes:
            raise _too_large("a decoded image is", max_bytes)
        return image, image_to_bgr(image)
    picture = _deserialized(message, CompressedImage)
    height, width = picture_size(memoryview(picture.data))
    if height * width * 3 > max_bytes:
        raise _too_large("a decoded picture is", max_bytes)
    return picture, compressed_to_bgr(picture)


def _deserialized(message: bytes, kind: type[T]) -> T:
    try:
        content: T = deserialize_message(message, kind)
    except RuntimeError as error:  # rclpy's RMWError: a publisher whose type of this name is another one
        raise EncodingError(f"a message is no sensor_msgs/{kind.__name__}: {_first_line(error)}") from error
    return content


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(", at ")[0][:120]


def _too_large(what: str, max_bytes: int) -> EncodingError:
    return EncodingError(f"{what} larger than {max_bytes / MIB:g} MiB: raise max_message_mib, or send less")


def _check_topic(topic: str) -> None:
    try:
        validate_topic_name(topic)
    except InvalidTopicNameException as error:
        raise ConfigError(f"cameras: '{topic}' is no topic name: {' '.join(str(error).split())}") from error
