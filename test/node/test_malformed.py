"""Messages that are no good, over real DDS: nothing crashes, each is counted, each reason is said once, and the next
good frame is segmented."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from ros_fixtures import Bench, make_registry, night, steady
from sensor_msgs.msg import CompressedImage, Image

from ssada_core.data.encodings import ENCODINGS, encode_jpeg, encode_png
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine
from ssada_ros import qos
from ssada_ros.conversions import fill_compressed, fill_image, make_header, stamp_to_ns
from ssada_ros.segmentation_loop import MAX_REASONS
from ssada_ros.segmentation_node import SegmentationNode

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

CASES = 2000
SMALL = np.random.default_rng(5).integers(0, 256, (12, 16, 3), np.uint8)
SIDES = st.one_of(st.integers(0, 40), st.sampled_from([65535, 65536, 2**31 - 1, 2**32 - 1]), st.integers(0, 5000))
NAMES = st.one_of(st.sampled_from(sorted(ENCODINGS)), st.text(max_size=12).filter(lambda text: "\0" not in text))
PICTURES = [encode_jpeg(SMALL), encode_png(SMALL), encode_png(SMALL[..., 0])]


@st.composite
def images(draw):
    """Numbers, name and bytes that do not belong together; now and then they do."""
    message = Image(height=draw(SIDES), width=draw(SIDES), step=draw(SIDES), encoding=draw(NAMES))
    message.is_bigendian = draw(st.integers(0, 255))
    message.header.stamp.sec = draw(st.integers(-(2**31), 2**31 - 1))
    message.header.stamp.nanosec = draw(st.integers(0, 2**32 - 1))
    message.data.frombytes(draw(st.binary(max_size=3000)))
    return False, serialize_message(message)


@st.composite
def pictures(draw):
    """JPEG and PNG that were cut, bent or replaced."""
    data = bytearray(draw(st.sampled_from(PICTURES)))
    for position, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)):
        data[position] = value
    data = bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=20))
    message = CompressedImage(format=draw(st.text(max_size=5).filter(lambda text: "\0" not in text)))
    message.data.frombytes(draw(st.one_of(st.just(data), st.binary(max_size=200))))
    return True, serialize_message(message)


@st.composite
def garbage(draw):
    """Bytes that are no message of the type at all, or one that was cut."""
    compressed = draw(st.booleans())
    whole = CompressedImage() if compressed else fill_image(Image(), SMALL, "bgr8", make_header(0, "camera"))
    cut = serialize_message(whole)
    data = draw(st.one_of(st.binary(min_size=4, max_size=300), st.integers(4, len(cut) - 1).map(lambda n: cut[:n])))
    return compressed, data


@pytest.fixture
def bench(ros_domain, tmp_path):
    given_parameters = {
        "model": make_registry(tmp_path / "registry").root,
        "engine__backend": "torch",
        "engine__threads": 1,
        "cameras": "[raw/image, packed/image/compressed]",
        "camera_reliability": "reliable",
        "regions": "[0.0, 0.25, 1.0, 1.0]",
    }
    with Bench(SegmentationNode, **given_parameters) as made:
        made.node.trigger_configure()
        made.node.trigger_activate()
        yield made


def test_nothing_that_is_sent_stops_the_masks(bench, tmp_path, capfd):
    profile = qos.reliable_profile(depth=10)
    publishers = {
        False: bench.watcher.create_publisher(Image, "raw/image", profile),
        True: bench.watcher.create_publisher(CompressedImage, "packed/image/compressed", profile),
    }
    channels = {False: bench.node._channels["raw"], True: bench.node._channels["packed"]}
    bench.until(lambda: all(publisher.get_subscription_count() for publisher in publishers.values()))
    kinds = {"images": 0, "pictures": 0, "garbage": 0}

    @settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(images(), pictures(), garbage()))
    def send(case):
        compressed, data = case
        channel = channels[compressed]
        before = channel.error_count + channel.timing.summary(time.monotonic_ns()).frames
        publishers[compressed].publish(data)
        end = time.monotonic() + 20
        while channel.error_count + channel.timing.summary(time.monotonic_ns()).frames == before:
            assert time.monotonic() < end, f"neither counted nor segmented: {data[:80]!r}"
            bench.executor.spin_once(timeout_sec=0.002)
        kinds["garbage" if "no sensor_msgs" in channel.last_error else "pictures" if compressed else "images"] += 1

    send()
    said = capfd.readouterr().err
    for channel in channels.values():
        assert channel.error_count > CASES // 10
        assert channel.error_count == sum(channel.errors.values())
        assert len(channel.errors) <= MAX_REASONS + 1
        assert said.count(f"{channel.camera.topic}: frame skipped: ") == len(channel.errors)
    assert sum(kinds.values()) >= CASES
    assert all(count > CASES // 20 for count in kinds.values()), kinds
    assert_the_next_good_frame_is_segmented(bench, publishers, tmp_path / "registry" / "v0001")


def assert_the_next_good_frame_is_segmented(bench, publishers, model):
    frame = night(0)[0]
    header = make_header(1_700_000_000_000_000_001, "good")
    good = {
        "raw": (publishers[False], fill_image(Image(), frame, "bgr8", header)),
        "packed": (publishers[True], fill_compressed(CompressedImage(), encode_png(frame), "png", header)),
    }
    engine = load_engine(model, EngineSettings(backend="torch", threads=1))
    expected = engine.infer([frame[frame.shape[0] // 4 :]])[0].label
    engine.close()
    for name, (publisher, message) in good.items():
        masks = bench.watch(Image, f"/segmentation_node/{name}/mask", qos.latest_profile())
        bench.until(lambda kept=masks: kept, every=steady(lambda one=publisher, sent=message: one.publish(sent)))
        mask = np.frombuffer(masks[-1].data, np.uint8).reshape(masks[-1].height, masks[-1].width)
        assert stamp_to_ns(masks[-1].header.stamp) == stamp_to_ns(header.stamp)
        assert (mask[: frame.shape[0] // 4] == 255).all()
        np.testing.assert_array_equal(mask[frame.shape[0] // 4 :], expected)
