"""Messages ↔ arrays, against arrays laid out by hand and against a real trip through serialisation."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from ssada_core.data.encodings import encode_jpeg, encode_png
from ssada_core.errors import EncodingError
from ssada_ros import conversions

pytestmark = pytest.mark.ros


@pytest.fixture
def picture():
    return np.random.default_rng(3).integers(0, 256, (6, 5, 3), np.uint8)


def header():
    return conversions.make_header(1_700_000_000_123_456_789, "front")


def test_a_filled_image_survives_the_middleware(picture):
    sent = conversions.fill_image(Image(), picture, "bgr8", header())
    received = deserialize_message(serialize_message(sent), Image)
    assert (received.height, received.width, received.step, received.encoding) == (6, 5, 15, "bgr8")
    assert received.header == header()
    np.testing.assert_array_equal(conversions.image_to_bgr(received), picture)


def test_a_bgr_message_is_read_in_place(picture):
    message = conversions.fill_image(Image(), picture, "bgr8", header())
    view = conversions.image_to_bgr(message)
    message.data[0] = (message.data[0] + 1) % 256
    assert view[0, 0, 0] == message.data[0]


def test_rgb_is_turned_round_and_padding_skipped():
    padded = np.zeros((2, 8), np.uint8)
    padded[:, :6] = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    message = Image(height=2, width=2, step=8, encoding="rgb8")
    message.data.frombytes(padded.tobytes())
    expected = [[[3, 2, 1], [6, 5, 4]], [[9, 8, 7], [12, 11, 10]]]
    np.testing.assert_array_equal(conversions.image_to_bgr(message), expected)


def test_a_message_is_filled_again_with_another_size_and_kind(picture):
    message = conversions.fill_image(Image(), picture, "bgr8", header())
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    conversions.fill_image(message, label, "mono8", Header())
    assert (message.step, len(message.data)) == (4, 12)
    np.testing.assert_array_equal(conversions.label_from_image(message), label)
    conversions.fill_image(message, label + 1, "mono8", Header())
    np.testing.assert_array_equal(conversions.label_from_image(message), label + 1)


def test_a_strided_array_is_published_as_it_looks(picture):
    message = conversions.fill_image(Image(), picture[::-1, ::2], "bgr8", header())
    np.testing.assert_array_equal(conversions.image_to_bgr(message), picture[::-1, ::2])


@pytest.mark.parametrize(
    ("shape", "dtype", "encoding"),
    [
        ((4, 4), np.uint8, "bgr8"),
        ((4, 4, 3), np.uint8, "mono8"),
        ((4, 4), np.float32, "mono8"),
        ((4, 4), np.uint8, "x"),
    ],
)
def test_what_does_not_fit_its_encoding_is_refused(shape, dtype, encoding):
    with pytest.raises(EncodingError, match=encoding):
        conversions.fill_image(Image(), np.zeros(shape, dtype), encoding, Header())


def test_a_label_comes_only_as_ids(picture):
    with pytest.raises(EncodingError, match="bgr8"):
        conversions.label_from_image(conversions.fill_image(Image(), picture, "bgr8", Header()))


@pytest.mark.parametrize("encode", [encode_png, encode_jpeg])
def test_compressed_bytes_pass_unchanged_and_decode(picture, encode):
    data = encode(np.repeat(np.repeat(picture, 8, 0), 8, 1))
    message = conversions.fill_compressed(CompressedImage(), data, "jpeg", header())
    received = deserialize_message(serialize_message(message), CompressedImage)
    assert bytes(received.data) == data
    assert conversions.compressed_to_bgr(received).shape == (48, 40, 3)


def test_an_unknown_encoding_is_named_where_cv_bridge_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # as if it were not installed
    message = Image(height=1, width=1, step=1, encoding="16SC7")
    with pytest.raises(EncodingError, match="16SC7"):
        conversions.image_to_bgr(message)


def test_unknown_encodings_agree_with_cv_bridge(picture):
    cv_bridge = pytest.importorskip("cv_bridge", reason="apt's cv_bridge is not installed")
    if not hasattr(cv_bridge, "CvBridge"):
        pytest.skip("cv_bridge is not the ROS 2 one")
    for encoding in ("bgr8", "rgb8"):
        message = conversions.fill_image(Image(), picture, encoding, header())
        theirs = cv_bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding="bgr8")
        np.testing.assert_array_equal(conversions.image_to_bgr(message), theirs)


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_700_000_000_123_456_789, -1])
def test_stamps_are_exact(stamp_ns):
    stamp = conversions.ns_to_stamp(stamp_ns)
    assert 0 <= stamp.nanosec < 1_000_000_000
    assert conversions.stamp_to_ns(stamp) == stamp_ns


def test_json_goes_there_and_back():
    content = {"version": "v2", "first": {"front": 12345678901234567}, "worst": "Fußgänger"}
    assert conversions.json_of(conversions.string_message(content)) == content


@pytest.mark.parametrize("data", ["", "{", "[1]", "3"])
def test_what_is_no_json_object_is_refused(data):
    with pytest.raises(EncodingError, match="message"):
        conversions.json_of(String(data=data))


def test_nan_is_no_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        conversions.string_message({"x": float("nan")})
