"""What comes out of the segmentation node and how it is set: sizes, regions, calibration, thresholds, rate, weights."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.parameter import Parameter
from ros_fixtures import (
    NETWORK,
    Bench,
    Elsewhere,
    assert_same,
    footprint,
    make_registry,
    newest,
    night,
    steady,
    values_of,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ssada_core.data.encodings import encode_jpeg
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine
from ssada_core.labels import CAMVID
from ssada_ros import qos
from ssada_ros.conversions import fill_compressed, fill_image, make_header, ns_to_stamp, stamp_to_ns
from ssada_ros.segmentation_node import SegmentationNode
from ssada_ros.segmentation_settings import DYNAMIC, SegmentationSettings

pytestmark = pytest.mark.ros

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "diagnostics.md"
NODE = "/segmentation_node"
MASK = f"{NODE}/camera/mask"
STAMP = 1_700_000_000_123_456_789
NETWORK_SIZE = (NETWORK.input_height, NETWORK.input_width)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return make_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def engine(registry):
    return load_engine(registry.path("v0001"), EngineSettings(backend="torch", threads=1))


@pytest.fixture(scope="module")
def small_engine(registry):
    settings = EngineSettings(backend="torch", threads=1, output_size="network")
    return load_engine(registry.path("v0001"), settings)


@pytest.fixture
def start(ros_domain, registry):
    made = []

    def make(**parameters):
        given = {"model": registry.root, "engine__backend": "torch", "engine__threads": 1, **parameters}
        made.append(Bench(SegmentationNode, **given))
        made[-1].node.trigger_configure()
        made[-1].node.trigger_activate()
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


def camera_of(bench, topic="camera/image", stamps=None):
    """Publishes one simulated frame at a time, with stamps of its own."""
    publisher = bench.watcher.create_publisher(Image, topic, qos.latest_profile())
    sent = []

    def publish(pixels=None):
        stamp = STAMP + len(sent) * 200_000_000 if stamps is None else stamps(len(sent))
        pixels = night(0)[0] if pixels is None else pixels
        sent.append(fill_image(Image(), pixels, "bgr8", make_header(stamp, f"frame_{len(sent)}")))
        publisher.publish(sent[-1])

    return publish


def set_parameter(bench, name, value):
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return bench.call(SetParameters, f"{NODE}/set_parameters", request).results[0]


def pixels_of(message):
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1).squeeze()


# -- QoS and formats -----------------------------------------------------------------------------


def test_every_publisher_is_heard_without_touching_a_parameter(start):
    b = start()
    masks = b.watch(Image, MASK, qos.latest_profile())
    for reliability in ("best_effort", "reliable"):
        for durability in ("volatile", "transient_local"):
            for depth in (1, 10):
                profile = qos.TopicQos(reliability, durability, depth).profile()
                name = f"{reliability} {durability} {depth}"
                message = fill_image(Image(), night(0)[0], "bgr8", make_header(STAMP, name))
                publisher = b.watcher.create_publisher(Image, "camera/image", profile)
                b.until(
                    lambda wanted=name: any(mask.header.frame_id == wanted for mask in masks),
                    every=steady(lambda one=publisher, sent=message: one.publish(sent)),
                )
                b.watcher.destroy_publisher(publisher)


def test_a_publisher_that_does_not_fit_is_said_once_and_in_the_diagnostics(start, capfd):
    b = start(camera_reliability="reliable", silence_s=1.0)
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    weak = b.watcher.create_publisher(Image, "camera/image", qos.latest_profile(reliability="best_effort"))
    b.until(lambda: newest(arrays, ": camera") and newest(arrays, ": camera").level == DiagnosticStatus.ERROR)
    b.until(lambda: "set the parameter 'camera_reliability' to best_effort" in newest(arrays, ": camera").message)
    b.spin(1.5)
    assert "/camera/image: a publisher offers less reliability" in newest(arrays, ": camera").message
    assert capfd.readouterr().err.count("so nothing is received from it") == 1
    b.watcher.destroy_publisher(weak)
    masks = b.watch(Image, MASK, qos.latest_profile())
    b.until(lambda: masks, every=steady(camera_of(b)))
    b.until(lambda: newest(arrays, ": camera").level == DiagnosticStatus.OK, every=steady(camera_of(b)))


def test_size_and_encoding_change_in_mid_stream(start, engine):
    b = start()
    masks = b.watch(Image, MASK, qos.latest_profile())
    publisher = b.watcher.create_publisher(Image, "camera/image", qos.latest_profile())
    frame = night(0)[0]
    grey = np.ascontiguousarray(frame[..., 1])
    steps = [(frame, "bgr8"), (grey, "mono8"), (frame[:50, :70], "bgr8"), (np.repeat(frame, 3, 1), "rgb8")]
    for number, (pixels, encoding) in enumerate([*steps, steps[0]]):
        message = fill_image(Image(), pixels, encoding, make_header(STAMP + number, ""))
        b.until(
            lambda wanted=STAMP + number: masks and stamp_to_ns(masks[-1].header.stamp) == wanted,
            every=steady(lambda sent=message: publisher.publish(sent)),
        )
        bgr = np.repeat(pixels[..., None], 3, 2) if encoding == "mono8" else pixels
        bgr = bgr[..., ::-1] if encoding == "rgb8" else bgr
        assert_same(masks[-1], engine.infer([np.ascontiguousarray(bgr)])[0].label)


def test_a_camera_that_turns_compressed_goes_on(start):
    b = start()
    masks = b.watch(Image, MASK, qos.latest_profile())
    jpeg = encode_jpeg(night(0)[0])
    with Elsewhere() as elsewhere:
        raw = fill_image(Image(), night(0)[0], "bgr8", make_header(1, "raw"))
        with elsewhere.publishing(Image, "camera/image", qos.latest_profile()) as publisher:
            b.until(lambda: masks, every=steady(lambda: publisher.publish(raw)))
        packed = fill_compressed(CompressedImage(), jpeg, "jpeg", make_header(2, "packed"))
        with elsewhere.publishing(CompressedImage, "camera/image/compressed", qos.latest_profile()) as publisher:
            b.until(lambda: masks[-1].header.frame_id == "packed", every=steady(lambda: publisher.publish(packed)))


# -- sizes, regions, calibration -----------------------------------------------------------------


def info_for(height, width, stamp):
    k = [100.0, 0.0, 79.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0]
    return CameraInfo(height=height, width=width, k=k, header=make_header(stamp, "camera"))


@pytest.mark.parametrize("output_size", ["frame", "network"])
@pytest.mark.parametrize("regions", ["[]", "[0.25, 0.5, 1.0, 1.0]"])
def test_masks_and_calibration_of_either_size_and_any_region(start, engine, small_engine, output_size, regions):
    b = start(engine__output_size=output_size, regions=regions)
    masks = b.watch(Image, MASK, qos.latest_profile())
    confidences = b.watch(Image, f"{NODE}/camera/confidence", qos.latest_profile())
    overlays = b.watch(Image, f"{NODE}/camera/overlay", qos.latest_profile())
    infos = b.watch(CameraInfo, f"{NODE}/camera/camera_info", qos.latest_profile())
    calibration = b.watcher.create_publisher(CameraInfo, "camera/camera_info", qos.reliable_profile())
    camera = camera_of(b)
    frame = night(0)[0]
    height, width = frame.shape[:2]

    def both():
        calibration.publish(info_for(height, width, STAMP))
        camera()

    def stamped_alike():  # four topics: what is sent together does not arrive together
        return infos and confidences and overlays and infos[-1].header in [mask.header for mask in masks]

    b.until(stamped_alike, every=steady(both))
    part = frame if regions == "[]" else frame[height // 2 :, width // 4 :]
    answer = engine.infer([part])[0]
    if output_size == "frame":
        expected = np.full((height, width), 255, np.uint8)
        expected[height - part.shape[0] :, width - part.shape[1] :] = answer.label
        shown, scale = frame.shape[:2], (1.0, 1.0)
    else:
        expected = small_engine.infer([part])[0].label
        shown, scale = part.shape[:2], (NETWORK_SIZE[1] / part.shape[1], NETWORK_SIZE[0] / part.shape[0])
    np.testing.assert_array_equal(pixels_of(masks[-1]), expected)
    assert pixels_of(confidences[-1]).shape == expected.shape
    assert pixels_of(overlays[-1]).shape[:2] == shown
    assert (infos[-1].height, infos[-1].width) == expected.shape
    assert infos[-1].k[0] == pytest.approx(100.0 * scale[0])
    assert infos[-1].k[4] == pytest.approx(100.0 * scale[1])


def test_a_calibration_of_other_frames_is_named_and_not_passed_on(start):
    b = start()
    infos = b.watch(CameraInfo, f"{NODE}/camera/camera_info", qos.latest_profile())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    calibration = b.watcher.create_publisher(CameraInfo, "camera/camera_info", qos.reliable_profile())
    camera = camera_of(b)

    def both():
        calibration.publish(info_for(720, 1280, STAMP))
        camera()

    def said():
        status = newest(arrays, ": camera")
        return status is not None and "camera_info is for 1280x720" in status.message

    b.until(said, every=steady(both))
    assert newest(arrays, ": camera").level == DiagnosticStatus.WARN
    assert infos == []


def test_coloured_masks(start):
    b = start()
    masks = b.watch(Image, MASK, qos.latest_profile())
    colors = b.watch(Image, f"{NODE}/camera/color", qos.latest_profile())
    camera = camera_of(b)
    b.until(lambda: masks and colors, every=steady(camera))
    np.testing.assert_array_equal(pixels_of(colors[-1]), CAMVID.palette_bgr()[pixels_of(masks[-1])])


# -- parameters ----------------------------------------------------------------------------------


def test_a_threshold_leaves_uncertain_pixels_unlabelled(start, engine):
    b = start()
    masks = b.watch(Image, MASK, qos.latest_profile())
    camera = camera_of(b)
    b.until(lambda: masks, every=steady(camera))
    answer = engine.infer([night(0)[0]])[0]
    assert_same(masks[-1], answer.label)
    threshold = float(np.median(answer.confidence)) / 255.0 + 0.001
    assert set_parameter(b, "confidence_threshold", threshold).successful
    expected = np.where(answer.confidence < threshold * 255.0, 255, answer.label)
    assert 0.2 < (expected == 255).mean() < 0.9
    b.until(lambda: np.array_equal(pixels_of(masks[-1]), expected), every=steady(camera))


def test_the_rate_is_limited_while_it_runs(start):
    b = start()
    masks = b.watch(Image, MASK, qos.latest_profile())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    camera = camera_of(b)
    b.until(lambda: masks, every=steady(camera))
    assert set_parameter(b, "rate", 0.25).successful
    b.until(lambda: newest(arrays, ": camera"), every=steady(camera))
    b.until(lambda: int(values_of(newest(arrays, ": camera"))["limited"]) > 2, every=steady(camera))
    assert newest(arrays, ": camera").level == DiagnosticStatus.OK
    assert set_parameter(b, "rate", 0.0).successful
    b.spin(0.3)
    limited, count = b.node._mailbox.counts("camera").limited, len(masks)
    b.until(lambda: len(masks) > count + 3, every=steady(camera))
    assert b.node._mailbox.counts("camera").limited == limited


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("camera_weights", [1.0], "camera_weights has 1 numbers for 2 cameras"),
        ("camera_weights", [1.0, 0.0], "0 is not between 0.001 and 1000"),
        ("rate", -1.0, "rate"),
        ("rate", float("nan"), "rate"),
        ("confidence_threshold", 1.5, "confidence_threshold"),
        ("silence_s", 0.0, "silence_s"),
        ("model", "other", "read-only"),
        ("engine.backend", "openvino", "read-only"),
        ("camera_depth", 3, "read-only"),
        ("overlay_opacity", "much", "wrong parameter type"),
    ],
)
def test_what_cannot_be_set_is_refused_with_a_reason(start, name, value, words):
    b = start(cameras="[a/image, b/image]")
    before = b.node.get_parameter(name).value
    refused = set_parameter(b, name, value)
    assert not refused.successful
    assert words.lower() in refused.reason.lower()
    assert b.node.get_parameter(name).value == before


def test_weights_change_while_it_runs(start):
    b = start(cameras="[a/image, b/image]", camera_weights="[2.0, 1.0]")
    assert b.node._mailbox._boxes["a"].weight == 2.0
    assert set_parameter(b, "camera_weights", [1.0, 3.0]).successful
    assert [b.node._mailbox._boxes[name].weight for name in "ab"] == [1.0, 3.0]
    assert b.node.trigger_deactivate()
    assert b.node.trigger_activate()
    assert b.node._mailbox._boxes["b"].weight == 3.0


def test_every_parameter_is_described_and_says_whether_it_may_change(start):
    b = start()
    names = [name for name in b.node.get_parameters_by_prefix("") if not name.startswith(("qos_", "start_type"))]
    names.remove("use_sim_time")
    described = b.call(DescribeParameters, f"{NODE}/describe_parameters", DescribeParameters.Request(names=names))
    assert {one.name for one in described.descriptors} >= set(SegmentationSettings.model_fields) - {"engine"}
    assert [one.name for one in described.descriptors if not one.description] == []
    assert {one.name for one in described.descriptors if not one.read_only} == DYNAMIC


def test_every_figure_of_the_diagnostics_is_documented(start):
    b = start()
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    b.until(lambda: arrays)
    named = set(re.findall(r"`(\w+)`", DOCUMENT.read_text(encoding="utf-8")))
    published = {key for status in arrays[-1].status for key in values_of(status)}
    assert {"rate_hz", "age_days"} <= published
    assert sorted(published - named) == []


# -- time ----------------------------------------------------------------------------------------


def test_masks_come_while_simulated_time_stands_and_diagnostics_carry_it(start):
    b = start(use_sim_time="true")
    masks = b.watch(Image, MASK, qos.latest_profile())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    clock = b.watcher.create_publisher(Clock, "/clock", qos.latest_profile())
    camera = camera_of(b)
    b.until(lambda: len(masks) > 3 and len(arrays) > 1, every=steady(camera))
    assert stamp_to_ns(arrays[-1].header.stamp) == 0  # no clock yet
    now = 123 * 1_000_000_000
    b.until(
        lambda: stamp_to_ns(arrays[-1].header.stamp) == now,
        every=steady(lambda: clock.publish(Clock(clock=ns_to_stamp(now)))),
    )


def test_stamps_that_jump_are_kept_counted_and_named(start):
    stamps = [STAMP, STAMP + 100, STAMP - 3_000_000_000, STAMP - 3_000_000_000, STAMP + 3_600_000_000_000, 0]
    b = start()
    masks = b.watch(Image, MASK, qos.reliable_profile(depth=50))
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    camera = camera_of(b, stamps=lambda number: stamps[min(number, len(stamps) - 1)])
    b.until(lambda: b.node.count_subscribers("/camera/image") and b.watcher.count_publishers(MASK))
    b.spin(0.3)
    for number, stamp in enumerate(stamps):
        camera()
        b.until(lambda wanted=number: len(masks) > wanted)
        assert stamp_to_ns(masks[-1].header.stamp) == stamp
    b.until(lambda: newest(arrays, ": camera") and values_of(newest(arrays, ": camera"))["stamp_jumps"] == "4")
    assert newest(arrays, ": camera").level == DiagnosticStatus.WARN
    assert "stamps jumped by -170" in newest(arrays, ": camera").message
    b.until(lambda: newest(arrays, ": camera").level == DiagnosticStatus.OK, seconds=10)


# -- memory --------------------------------------------------------------------------------------


def test_cleaning_up_gives_the_memory_back(start):
    b = start()
    masks = b.watch(Image, MASK, qos.latest_profile())
    overlays = b.watch(Image, f"{NODE}/camera/overlay", qos.latest_profile())
    camera = camera_of(b)
    large = np.repeat(np.repeat(night(0)[0], 8, 0), 8, 1)
    b.until(lambda: masks and overlays, every=steady(lambda: camera(large)))
    channel = b.node._channels["camera"]
    held = [weakref.ref(one) for one in (channel, channel.output, b.node._slot, b.node._slot.model.engine)]
    del channel
    b.node.trigger_deactivate()
    b.node.trigger_cleanup()
    b.spin(0.3)  # the executor lets go of what it waited for last
    gc.collect()
    assert [one() for one in held] == [None] * 4
    assert "inference" not in footprint(b.node)["threads"]
    b.node.trigger_configure()
    b.node.trigger_activate()
    count = len(masks)
    b.until(lambda: len(masks) > count, every=steady(camera))
