"""Every encoding × {tight, padded rows} × {little, big endian} through the node, over real DDS, against OpenCV.

With an opacity of 0 the overlay is the frame as the node read it.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from ros_fixtures import Bench, assert_same, make_registry, steady
from sensor_msgs.msg import CompressedImage, Image

from ssada_core.data.encodings import ENCODINGS
from ssada_ros import qos
from ssada_ros.conversions import fill_compressed, make_header, stamp_to_ns
from ssada_ros.segmentation_node import SegmentationNode

pytestmark = pytest.mark.ros

HEIGHT, WIDTH = 48, 64
RNG = np.random.default_rng(11)


def random(*channels, dtype=np.uint8):
    high = 1 << 8 * np.dtype(dtype).itemsize
    return RNG.integers(0, high, (HEIGHT, WIDTH, *channels), dtype)


def converted(code):
    """OpenCV's own reading, of values of 16 bits by their high byte."""
    return lambda pixels: cv2.cvtColor(high_byte(pixels), code)


def high_byte(pixels):
    return (pixels // 256).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def stretched(values):
    """OpenCV's normalisation of a depth image; what is not finite is black."""
    finite = np.isfinite(values)
    grey = cv2.normalize(values, None, 0, 255, cv2.NORM_MINMAX, mask=finite.astype(np.uint8))
    return cv2.cvtColor(np.where(finite, np.rint(grey), 0).astype(np.uint8), cv2.COLOR_GRAY2BGR)


def depth():
    values = RNG.uniform(0.3, 80.0, (HEIGHT, WIDTH)).astype(np.float32)
    values[:4, :4] = np.nan
    values[8, 8] = np.inf
    return values


def semi_planar():
    return RNG.integers(0, 256, (HEIGHT * 3 // 2, WIDTH), np.uint8)


COLOURS = {
    "mono": ((), cv2.COLOR_GRAY2BGR),
    "bgr": ((3,), None),
    "rgb": ((3,), cv2.COLOR_RGB2BGR),
    "bgra": ((4,), cv2.COLOR_BGRA2BGR),
    "rgba": ((4,), cv2.COLOR_RGBA2BGR),
    "bayer_rggb": ((), cv2.COLOR_BayerRGGB2BGR),
    "bayer_bggr": ((), cv2.COLOR_BayerBGGR2BGR),
    "bayer_gbrg": ((), cv2.COLOR_BayerGBRG2BGR),
    "bayer_grbg": ((), cv2.COLOR_BayerGRBG2BGR),
}
PLAIN = {
    f"{name}{bits}": (random(*channels, dtype=dtype), high_byte if code is None else converted(code))
    for name, (channels, code) in COLOURS.items()
    for bits, dtype in ((8, np.uint8), (16, np.uint16))
}
TABLE = {
    **PLAIN,
    "8UC1": PLAIN["mono8"],
    "8UC3": PLAIN["bgr8"],
    "8UC4": PLAIN["bgra8"],
    "16UC1": PLAIN["mono16"],
    "16UC3": PLAIN["bgr16"],
    "16UC4": PLAIN["bgra16"],
    "32FC1": (depth(), stretched),
    "yuv422": (random(2), converted(cv2.COLOR_YUV2BGR_UYVY)),
    "uyvy": (random(2), converted(cv2.COLOR_YUV2BGR_UYVY)),
    "yuv422_yuy2": (random(2), converted(cv2.COLOR_YUV2BGR_YUY2)),
    "yuyv": (random(2), converted(cv2.COLOR_YUV2BGR_YUY2)),
    "nv12": (semi_planar(), converted(cv2.COLOR_YUV2BGR_NV12)),
    "nv21": (semi_planar(), converted(cv2.COLOR_YUV2BGR_NV21)),
}
"""Encoding: pixels as they are in the machine, and OpenCV's reading of them."""
PADDINGS = {"tight": 0, "padded": 20}


def message_of(encoding, padding, *, big):
    pixels = TABLE[encoding][0]
    wire = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")))
    rows = wire.view(np.uint8).reshape(len(wire), -1)
    junk = np.full((len(rows), padding), 0xA5, np.uint8)
    message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, is_bigendian=int(big), step=rows.shape[1] + padding)
    message.data.frombytes(np.hstack([rows, junk]).tobytes())
    return message


def is_of(stamp_ns, kept):
    return kept and stamp_to_ns(kept[-1].header.stamp) == stamp_ns


@pytest.fixture
def bench(ros_domain, tmp_path):
    registry = make_registry(tmp_path / "registry")
    given = {"model": registry.root, "engine__backend": "torch", "engine__threads": 1, "overlay_opacity": 0.0}
    with Bench(SegmentationNode, **given, cameras="[a/image, b/image/compressed]") as made:
        made.node.trigger_configure()
        made.node.trigger_activate()
        yield made


def test_the_table_names_every_encoding():
    assert set(TABLE) == set(ENCODINGS)


def test_every_encoding_is_documented():
    text = (Path(__file__).resolve().parents[2] / "docs" / "cameras.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w{},/]+)`", text))
    written = {one for entry in named for one in expanded(entry)}
    assert sorted(set(ENCODINGS) - written) == []


def expanded(entry):
    """``bayer_{rggb,bggr}{8,16}`` and ``bgr8/16``, written out."""
    if braces := re.match(r"(\w*)\{([\w,]+)\}(.*)", entry):
        before, inside, after = braces.groups()
        return {one for part in inside.split(",") for one in expanded(f"{before}{part}{after}")}
    first, *others = entry.split("/")
    stem = first.rstrip("0123456789")
    return {first, *(f"{stem}{other}" for other in others)}


def test_every_encoding_is_read_as_opencv_reads_it(bench):
    frames = bench.watch(Image, "/segmentation_node/a/overlay", qos.latest_profile())
    masks = bench.watch(Image, "/segmentation_node/a/mask", qos.latest_profile())
    publisher = bench.watcher.create_publisher(Image, "a/image", qos.latest_profile())
    hello = message_of("bgr8", 0, big=False)
    bench.until(lambda: frames and masks, every=steady(lambda: publisher.publish(hello)))
    cases = [(name, kind, big) for name in TABLE for kind in PADDINGS for big in (False, True)]
    for number, (encoding, kind, big) in enumerate(cases, start=1):
        message = message_of(encoding, PADDINGS[kind], big=big)
        message.header = make_header(number, f"{encoding} {kind} {'big' if big else 'little'}")
        publisher.publish(message)
        bench.until(
            lambda wanted=number: all(is_of(wanted, kept) for kept in (frames, masks)),
            every=steady(lambda again=message: publisher.publish(again), 1.0),
        )
        pixels, read = TABLE[encoding]
        try:
            assert_same(frames[-1], read(pixels))
        except AssertionError as wrong:
            raise AssertionError(message.header.frame_id) from wrong
        assert frames[-1].header == masks[-1].header == message.header
        assert (masks[-1].height, masks[-1].width) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("extension", ["jpeg", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_read_as_opencv_reads_them(bench, extension, channels):
    frames = bench.watch(Image, "/segmentation_node/b/overlay", qos.latest_profile())
    publisher = bench.watcher.create_publisher(CompressedImage, "b/image/compressed", qos.latest_profile())
    pixels = random(channels)
    data = cv2.imencode(f".{extension}", pixels)[1].tobytes()
    message = fill_compressed(CompressedImage(), data, extension, make_header(7, "b"))
    bench.until(lambda: frames, every=steady(lambda: publisher.publish(message)))
    assert_same(frames[-1], cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
