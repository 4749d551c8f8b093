"""The cameras that a node subscribes to: topics, names and message types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rclpy.exceptions import InvalidTopicNameException
from rclpy.serialization import deserialize_message
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CompressedImage, Image

from ssada_core.data.samples import Array
from ssada_core.errors import ConfigError
from ssada_ros.conversions import compressed_to_bgr, image_to_bgr

Transport = Literal["auto", "raw", "compressed"]
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Camera:
    """One camera: its name in topics and pool, its topic, and whether it sends ``CompressedImage``."""

    name: str
    topic: str
    compressed: bool

    @property
    def message_type(self) -> Any:  # noqa: ANN401 (message classes have no common base)
        """The type to subscribe with."""
        return CompressedImage if self.compressed else Image


def list_cameras(topics: Sequence[str], names: Sequence[str], transport: Transport) -> dict[str, Camera]:
    """Cameras by name; names are derived from the topics where none are given.

    Raises:
        ConfigError: if there are no cameras, names and topics do not fit each other, or ROS cannot use them.
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
    cameras = [Camera(name, topic, _compressed(topic, transport)) for name, topic in zip(chosen, topics, strict=True)]
    return {camera.name: camera for camera in cameras}


def camera_name(topic: str) -> str:
    """A camera's name from its topic: ``/front/image_raw/compressed`` → ``front``, ``camera/image`` → ``camera``."""
    parts = [part for part in topic.split("/") if part]
    while len(parts) > 1 and (parts[-1] == "compressed" or parts[-1].startswith("image")):
        parts.pop()
    return "_".join(parts)


def decode(message: bytes, *, compressed: bool) -> tuple[Image | CompressedImage, Array]:
    """Deserialise a camera message: the message itself, and its frame as uint8 H×W×3 BGR.

    Raises:
        EncodingError: if the image cannot be read.
    """
    if compressed:
        jpeg = deserialize_message(message, CompressedImage)
        return jpeg, compressed_to_bgr(jpeg)
    image = deserialize_message(message, Image)
    return image, image_to_bgr(image)


def _check_topic(topic: str) -> None:
    try:
        validate_topic_name(topic)
    except InvalidTopicNameException as error:
        raise ConfigError(f"cameras: '{topic}' is no topic name: {' '.join(str(error).split())}") from error


def _compressed(topic: str, transport: Transport) -> bool:
    return topic.endswith("/compressed") if transport == "auto" else transport == "compressed"
