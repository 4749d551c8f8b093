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
from ssada_ros.regions import WHOLE, Region

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


RAW, JPEG = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@pytest.mark.parametrize(
    ("topic", "transport", "sources"),
    [
        ("a/image", "auto", [("a/image", RAW), ("a/image", JPEG), ("a/image/compressed", JPEG)]),
        ("a/image/compressed", "auto", [("a/image/compressed", JPEG), ("a/image/compressed", RAW)]),
        ("a/image/compressed", "raw", [("a/image/compressed", RAW)]),
        ("a/image", "compressed", [("a/image", JPEG), ("a/image/compressed", JPEG)]),
        ("a/image", "raw", [("a/image", RAW)]),
    ],
)
def test_the_transport_decides_where_frames_may_come_from(topic, transport, sources):
    (camera,) = list_cameras([topic], ["front"], transport).values()
    assert [(source.topic, source.type_name) for source in camera.sources] == sources
    assert camera.sources[0].message_type is (Image if sources[0][1] == RAW else CompressedImage)


@pytest.mark.parametrize(
    ("topic", "info"),
    [
        ("camera/image", "camera/camera_info"),
        ("/front/image_raw/compressed", "/front/camera_info"),
        ("image", "camera_info"),
        ("/image", "/camera_info"),
        ("~/left/image", "~/left/camera_info"),
    ],
)
def test_the_calibration_is_beside_the_image(topic, info):
    assert Camera("x", topic).info_topic == info


def test_regions_are_given_once_or_once_for_each():
    half, whole = [0.0, 0.5, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]
    both = list_cameras(["a/image", "b/image"], [], "auto", half)
    assert [camera.region for camera in both.values()] == [Region(*half)] * 2
    each = list_cameras(["a/image", "b/image"], [], "auto", [*half, *whole])
    assert [camera.region for camera in each.values()] == [Region(*half), WHOLE]
    assert list_cameras(["a/image"], [], "auto")["a"].region is WHOLE


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([0.0, 0.0, 1.0], "regions has 3 numbers for 2 cameras"),
        ([0.0] * 12, "regions has 12 numbers for 2 cameras"),
        ([0.5, 0.0, 0.5, 1.0], "0.5, 0, 0.5, 1 is no part of a frame"),
        ([0.0, 0.2, 1.0, 1.2], "0, 0.2, 1, 1.2 is no part of a frame"),
        ([float("nan"), 0.0, 1.0, 1.0], "is no part of a frame"),
    ],
)
def test_regions_that_cannot_be(numbers, words):
    with pytest.raises(ConfigError, match=words):
        list_cameras(["a/image", "b/image"], [], "auto", numbers)


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


@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_that_are_no_message_are_an_encoding_error(compressed):
    with pytest.raises(EncodingError, match="a message is no sensor_msgs/"):
        decode(b"\x00\x01\x00\x00 what is this", compressed=compressed)


def test_what_is_too_large_is_refused_before_it_is_decoded():
    pixels = np.zeros((64, 64, 3), np.uint8)
    image = serialize_message(fill_image(Image(), pixels, "bgr8", make_header(0, "")))
    png = serialize_message(fill_compressed(CompressedImage(), encode_png(pixels), "png", make_header(0, "")))
    grey = serialize_message(fill_image(Image(), pixels[..., 0], "mono8", make_header(0, "")))
    for data, compressed, words in (
        (image, False, "a message is larger"),
        (grey, False, "a decoded image is larger"),
        (png, True, "a decoded picture is larger"),
    ):
        with pytest.raises(EncodingError, match=f"{words} than .* MiB: raise max_message_mib"):
            decode(data, compressed=compressed, max_bytes=12_000)
        decode(data, compressed=compressed, max_bytes=13_000)
