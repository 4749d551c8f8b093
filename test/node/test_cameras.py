"""Which cameras there are, from topics and names."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from ssada_core.data.encodings import encode_png
from ssada_core.errors import ConfigError, EncodingError
from ssada_ros.cameras import Camera, camera_name, decode, list_cameras
from ssada_ros.conversions import fill_compressed, fill_image, make_header

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("camera/image", "camera"),
        ("/front/image_raw/compressed", "front"),
        ("/robot1/left/image_rect_color", "robot1_left"),
        ("image", "image"),
        ("/zed/zed_node/rgb/compressed", "zed_zed_node_rgb"),
    ],
)
def test_names_come_from_topics(topic, name):
    assert camera_name(topic) == name


@pytest.mark.parametrize(
    ("topic", "transport", "compressed"),
    [
        ("a/image", "auto", False),
        ("a/image/compressed", "auto", True),
        ("a/image/compressed", "raw", False),
        ("a/image", "compressed", True),
    ],
)
def test_the_transport_decides_the_type(topic, transport, compressed):
    (camera,) = list_cameras([topic], ["front"], transport).values()
    assert camera == Camera("front", topic, compressed)
    assert camera.message_type is (CompressedImage if compressed else Image)


@pytest.mark.parametrize(
    ("topics", "names", "words"),
    [
        ([], [], "cameras is empty"),
        (["a/image", "b/image"], ["a"], "camera_names has 1 names for 2 cameras"),
        (["a/image", "a/image_raw"], [], "camera names are not unique (a, a)"),
        (["a/image"], ["front-left"], "camera name 'front-left' cannot be part of a topic"),
        (["a/image"], ["1"], "camera name '1'"),
        (["/"], [], "'/' is no topic name"),
        (["front camera/image"], [], "'front camera/image' is no topic name"),
        ([""], [], "'' is no topic name"),
        (["~/image"], [], "camera name '~'"),
    ],
)
def test_what_ros_cannot_use_is_said_in_one_line(topics, names, words):
    with pytest.raises(ConfigError) as caught:
        list_cameras(topics, names, "auto")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_decoding_keeps_header_and_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    header = make_header(1_234_567_890_123_456_789, "front")
    image = serialize_message(fill_image(Image(), pixels, "bgr8", header))
    png = serialize_message(fill_compressed(CompressedImage(), encode_png(pixels), "png", header))
    for data, compressed in ((image, False), (png, True)):
        message, frame = decode(data, compressed=compressed)
        assert message.header == header
        np.testing.assert_array_equal(frame, pixels)


def test_bytes_that_are_no_image_are_an_encoding_error():
    message = serialize_message(fill_compressed(CompressedImage(), b"not a picture", "jpeg", make_header(0, "")))
    with pytest.raises(EncodingError):
        decode(message, compressed=True)
