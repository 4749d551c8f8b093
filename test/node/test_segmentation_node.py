"""The segmentation node in process: every transition, masks, model exchange, diagnostics, over real DDS."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_fixtures import Bench, assert_same, footprint, make_registry, newest, night, steady, values_of
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ssada_core.data.encodings import decode_compressed, encode_jpeg
from ssada_core.errors import BackendError, ConfigError
from ssada_core.evaluation.overlay import overlay
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine
from ssada_core.labels import CAMVID, LabelSpace
from ssada_ros import camera_output, qos
from ssada_ros.backend_watch import FAILING_S, MOST_FAILURES, BackendWatch
from ssada_ros.conversions import fill_compressed, fill_image, image_to_bgr, make_header, stamp_to_ns
from ssada_ros.label_topics import class_map
from ssada_ros.segmentation_node import SegmentationNode

pytestmark = pytest.mark.ros

OK, FAILURE, ERROR = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.ERROR
STAMP = 1_700_000_000_123_456_789
PERIOD_NS = 200_000_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return make_registry(tmp_path_factory.mktemp("registry"), seeds=(0, 1))


@pytest.fixture
def bench(ros_domain, registry):
    made = []

    def make(**parameters):
        given = {"model": registry.root, "engine__backend": "torch", "engine__threads": 1, **parameters}
        made.append(Bench(SegmentationNode, **given))
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


class CameraPublisher:
    """Publishes simulated frames, each with a stamp of its own."""

    def __init__(self, bench, topic="camera/image", reliability="reliable"):
        self.publisher = bench.watcher.create_publisher(Image, topic, qos.latest_profile(reliability=reliability))
        self.sent = 0

    def __call__(self, pixels=None, encoding="bgr8"):
        pixels = night(self.sent % 6)[0] if pixels is None else pixels
        header = make_header(STAMP + self.sent * PERIOD_NS, f"front_{self.sent}")
        message = fill_image(Image(), pixels, "bgr8", header)
        message.encoding = encoding
        self.publisher.publish(message)
        self.sent += 1
        return header


def started(bench):
    assert bench.node.trigger_configure() == OK
    assert bench.node.trigger_activate() == OK
    return bench


def model_of(received):
    return json.loads(received[-1].data)["version"] if received else ""


# -- transitions ---------------------------------------------------------------------------------


def test_every_transition_gives_back_what_it_took_again_and_again(bench):
    b = bench()
    masks = b.watch(Image, "/segmentation_node/camera/mask", qos.latest_profile())
    camera = CameraPublisher(b)
    unconfigured = footprint(b.node)
    inactive = None
    for _ in range(2):
        assert b.node.trigger_configure() == OK
        inactive = inactive or footprint(b.node)
        assert footprint(b.node) == inactive
        for _ in range(2):
            assert b.node.trigger_activate() == OK
            assert "inference" in footprint(b.node)["threads"]
            seen = len(masks)
            b.until(lambda seen=seen: len(masks) > seen, every=steady(camera))
            assert b.node.trigger_deactivate() == OK
            assert footprint(b.node) == inactive
        assert b.node.trigger_cleanup() == OK
        assert footprint(b.node) == unconfigured
    assert b.node.trigger_shutdown() == OK
    assert b.where == "finalized"


def test_nothing_is_published_while_inactive(bench):
    b = started(bench())
    masks = b.watch(Image, "/segmentation_node/camera/mask", qos.latest_profile())
    camera = CameraPublisher(b)
    b.until(lambda: masks, every=steady(camera))
    b.node.trigger_deactivate()
    b.spin(0.3)
    seen = len(masks)
    for _ in range(5):
        camera()
        b.spin(0.1)
    assert len(masks) == seen


def test_transitions_out_of_order_are_refused_and_change_nothing(bench):
    b = bench()
    before = footprint(b.node)
    for name in ("trigger_activate", "trigger_deactivate", "trigger_cleanup"):
        assert getattr(b.node, name)() == ERROR
    assert (b.where, footprint(b.node)) == ("unconfigured", before)
    started(b)
    before = footprint(b.node)
    for name in ("trigger_configure", "trigger_activate", "trigger_cleanup"):
        assert getattr(b.node, name)() == ERROR
    assert (b.where, footprint(b.node)) == ("active", before)


def test_a_failing_configure_leaves_nothing_and_can_be_tried_again(bench, registry, tmp_path):
    b = bench(model=tmp_path / "registry")
    before = footprint(b.node)
    assert b.node.trigger_configure() == FAILURE
    assert "no model '" in str(b.node.failure)
    (tmp_path / "registry").mkdir()
    shutil.copytree(registry.path("v0001"), tmp_path / "registry" / "v0001")
    assert b.node.trigger_configure() == FAILURE
    assert "has no current model" in str(b.node.failure)
    assert (b.where, footprint(b.node)) == ("unconfigured", before)
    shutil.copyfile(registry.root / "current", tmp_path / "registry" / "current")
    assert b.node.trigger_configure() == OK


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"cameras": "[a/image, b/image]", "camera_names": "[x]"}, "1 names for 2 cameras"),
        ({"camera_names": "[front-left]"}, "camera name 'front-left'"),
        ({"cameras": "['bad topic']"}, "'bad topic' is no topic name"),
    ],
)
def test_cameras_that_cannot_be(bench, parameters, words):
    b = bench(**parameters)
    before = footprint(b.node)
    assert b.node.trigger_configure() == FAILURE
    assert words in str(b.node.failure)
    assert isinstance(b.node.failure, ConfigError)
    assert footprint(b.node) == before


def test_an_activation_that_fails_half_way_is_undone(bench, monkeypatch):
    b = bench()
    b.node.trigger_configure()
    before = footprint(b.node)

    def refuse(*_, **__):
        raise ConfigError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(b.node, "_subscribe", refuse)
        assert b.node.trigger_activate() == FAILURE
    assert (b.where, footprint(b.node)) == ("inactive", before)
    assert b.node.trigger_activate() == OK


# -- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("offered", ["reliable", "best_effort"])
def test_masks_are_the_engines_with_the_frames_header_for_both_kinds_of_subscriber(bench, registry, offered):
    b = started(bench())
    topic = "/segmentation_node/camera/mask"
    reliable = b.watch(Image, topic, qos.latest_profile())
    best_effort = b.watch(Image, topic, qos.latest_profile(reliability="best_effort"))
    confidences = b.watch(Image, "/segmentation_node/camera/confidence", qos.latest_profile())
    camera = CameraPublisher(b, reliability=offered)
    b.until(lambda: reliable and best_effort and confidences, every=steady(camera))
    headers = {}
    for _ in range(4):
        seen = len(reliable)
        frame = night(camera.sent % 6)[0]
        header = camera()
        headers[stamp_to_ns(header.stamp)] = (header, frame)
        b.until(lambda seen=seen: len(reliable) > seen)
    engine = load_engine(registry.path("v0001"), EngineSettings(backend="torch"))
    compared = 0
    for message in (*reliable, *best_effort):
        if stamp_to_ns(message.header.stamp) in headers:
            header, frame = headers[stamp_to_ns(message.header.stamp)]
            assert message.header == header
            assert message.encoding == "mono8"
            assert_same(message, engine.infer([frame])[0].label)
            compared += 1
    assert compared >= 5
    index = confidences[-1].header.frame_id.partition("_")[2]
    assert_same(confidences[-1], engine.infer([night(int(index) % 6)[0]])[0].confidence)
    engine.close()


def test_compressed_cameras_and_several_at_once(bench, registry):
    b = bench(cameras="[left/image, right/image/compressed]")
    started(b)
    masks = {
        name: b.watch(Image, f"/segmentation_node/{name}/mask", qos.latest_profile()) for name in ("left", "right")
    }
    left = CameraPublisher(b, "left/image")
    right = b.watcher.create_publisher(CompressedImage, "right/image/compressed", qos.latest_profile())
    jpeg = encode_jpeg(night(0)[0])
    header = make_header(STAMP + 5, "right")
    b.until(
        lambda: all(masks.values()),
        every=lambda: (left(), right.publish(fill_compressed(CompressedImage(), jpeg, "jpeg", header))),
    )
    engine = load_engine(registry.path("v0001"), EngineSettings(backend="torch"))
    assert_same(masks["right"][-1], engine.infer([decode_compressed(jpeg)])[0].label)
    assert masks["right"][-1].header == header
    engine.close()


def test_the_overlay_costs_nothing_unless_somebody_looks(bench, monkeypatch):
    computed = []

    def counting(*arguments, **options):
        computed.append(1)
        return overlay(*arguments, **options)

    monkeypatch.setattr(camera_output, "overlay", counting)
    b = started(bench())
    masks = b.watch(Image, "/segmentation_node/camera/mask", qos.latest_profile())
    camera = CameraPublisher(b)
    b.until(lambda: len(masks) >= 3, every=steady(camera))
    assert computed == []
    jpegs = b.watch(CompressedImage, "/segmentation_node/camera/overlay/compressed", qos.latest_profile())
    b.until(lambda: len(jpegs) >= 2, every=steady(camera))
    assert decode_compressed(jpegs[-1].data.tobytes()).shape == night(0)[0].shape
    overlays = b.watch(Image, "/segmentation_node/camera/overlay", qos.latest_profile())
    b.until(lambda: overlays, every=steady(camera))
    assert overlays[-1].encoding == "bgr8"


def test_the_overlays_opacity_changes_while_it_runs(bench):
    b = started(bench(overlay_opacity=0.0))
    masks = b.watch(Image, "/segmentation_node/camera/mask", qos.reliable_profile(depth=50))
    overlays = b.watch(Image, "/segmentation_node/camera/overlay", qos.reliable_profile(depth=50))
    camera = CameraPublisher(b)

    def pair():
        """Mask and overlay of a frame that is sent from now on."""
        first = camera.sent
        found = {}

        def both():
            for kind, kept in (("mask", masks), ("overlay", overlays)):
                for message in kept:
                    found.setdefault(message.header.frame_id, {})[kind] = message
            return [one for name, one in found.items() if len(one) == 2 and int(name.partition("_")[2]) > first + 1]

        b.until(both, every=steady(camera, 0.3))
        return both()[0]

    def set_opacity(value):
        request = SetParameters.Request(parameters=[Parameter("overlay_opacity", value=value).to_parameter_msg()])
        return b.call(SetParameters, "/segmentation_node/set_parameters", request).results[0]

    clear = pair()
    index = int(clear["overlay"].header.frame_id.partition("_")[2])
    assert_same(clear["overlay"], night(index % 6)[0])
    assert set_opacity(1.0).successful
    opaque = pair()
    label = np.frombuffer(opaque["mask"].data, np.uint8).reshape(opaque["mask"].height, -1)
    np.testing.assert_array_equal(image_to_bgr(opaque["overlay"]), CAMVID.palette_bgr()[label])
    refused = set_opacity(1.5)
    assert not refused.successful
    assert "overlay_opacity" in refused.reason


def test_the_times_of_each_frame_are_published_while_somebody_reads_them(bench):
    b = started(bench())
    camera = CameraPublisher(b)
    masks = b.watch(Image, "/segmentation_node/camera/mask", qos.latest_profile())
    timings = b.watch(String, "/segmentation_node/camera/timing", qos.reliable_profile(depth=10))
    before = time.monotonic_ns()
    b.until(lambda: len(timings) >= 3 and len(masks) >= 3, every=steady(camera))
    times = [json.loads(message.data) for message in timings]
    assert {entry["stamp_ns"] for entry in times} & {stamp_to_ns(mask.header.stamp) for mask in masks}
    for entry in times:
        assert before < entry["received_ns"] < entry["published_ns"] < time.monotonic_ns()
        assert 0 < entry["engine_ns"] < entry["published_ns"] - entry["received_ns"]
        assert entry["version"] == "v0001"
        assert entry["received"] > entry["dropped"] >= 0
    assert times[-1]["received"] > times[0]["received"]


# -- models --------------------------------------------------------------------------------------


def promote(bench):
    publisher = bench.watcher.create_publisher(String, "ssada/promoted", qos.latched_profile())
    return lambda text: publisher.publish(String(data=text))


def test_a_promoted_version_takes_over_and_the_topics_say_from_which_frame(bench, registry):
    b = started(bench())
    masks = b.watch(Image, "/segmentation_node/camera/mask", qos.reliable_profile(depth=100))
    models = b.watch(String, "/segmentation_node/model", qos.latched_profile())
    spaces = b.watch(String, "/segmentation_node/label_space", qos.latched_profile())
    camera = CameraPublisher(b)
    announce = promote(b)
    b.until(lambda: len(masks) >= 2 and models, every=steady(camera))
    said = json.loads(models[-1].data)
    assert said["version"] == "v0001"
    assert stamp_to_ns(masks[0].header.stamp) >= said["first_stamp_ns"]["camera"]
    announce('{"version": "v0002", "reason": "test"}')
    b.until(lambda: model_of(models) == "v0002", every=steady(camera))
    first = json.loads(models[-1].data)["first_stamp_ns"]["camera"]
    count = len(masks)
    b.until(lambda: len(masks) > count + 1, every=steady(camera))
    engines = {v: load_engine(registry.path(v), EngineSettings(backend="torch")) for v in ("v0001", "v0002")}
    for message in masks:
        version = "v0002" if stamp_to_ns(message.header.stamp) >= first else "v0001"
        index = int(message.header.frame_id.partition("_")[2])
        assert_same(message, engines[version].infer([night(index % 6)[0]])[0].label)
    assert LabelSpace.from_dict(json.loads(spaces[-1].data), source="test") == CAMVID
    announce('{"version": "v0001", "reason": "back"}')
    b.until(lambda: model_of(models) == "v0001", every=steady(camera))


def test_a_version_that_cannot_be_loaded_is_reported_and_the_old_one_stays(bench):
    b = started(bench())
    masks = b.watch(Image, "/segmentation_node/camera/mask", qos.latest_profile())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    camera = CameraPublisher(b)
    announce = promote(b)
    b.until(lambda: masks, every=steady(camera))
    for nonsense in ("not json", "[1]", "{}", '{"version": 3}', '{"version": "../../etc"}', '{"version": "v0099"}'):
        announce(nonsense)
        b.spin(0.2)

    def warned():
        status = newest(arrays, ": model")
        return status is not None and status.level == DiagnosticStatus.WARN

    b.until(lambda: warned() and "v0099" in newest(arrays, ": model").message, every=steady(camera))
    assert "v0001 stays" in newest(arrays, ": model").message
    count = len(masks)
    b.until(lambda: len(masks) > count, every=steady(camera))
    announce('{"version": "v0002"}')
    b.until(lambda: values_of(newest(arrays, ": model"))["version"] == "v0002", every=steady(camera))
    assert newest(arrays, ": model").level == DiagnosticStatus.OK


def test_a_model_outside_a_registry_says_what_to_do_about_promotions(bench, registry, tmp_path):
    shutil.copytree(registry.path("v0001"), tmp_path / "models" / "mine")
    b = started(bench(model=tmp_path / "models" / "mine"))
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    promote(b)('{"version": "v0002"}')
    b.until(lambda: newest(arrays, ": model") and "is in no registry" in newest(arrays, ": model").message)
    assert not (tmp_path / "models" / "lock").exists()


def test_a_node_that_does_not_follow_stays(bench):
    b = started(bench(follow_promotions="false"))
    camera = CameraPublisher(b)
    models = b.watch(String, "/segmentation_node/model", qos.latched_profile())
    promote(b)('{"version": "v0002"}')
    b.until(lambda: models, every=steady(camera))
    b.spin(1.0)
    assert model_of(models) == "v0001"


def test_a_pinned_version_stays_whatever_is_announced(bench, registry, capfd):
    b = started(bench(model=f"{registry.root}@v0002"))
    camera = CameraPublisher(b)
    models = b.watch(String, "/segmentation_node/model", qos.latched_profile())
    promote(b)('{"version": "v0001", "reason": "in use at the start"}')
    b.until(lambda: models, every=steady(camera))
    b.spin(1.0)
    assert model_of(models) == "v0002"
    assert capfd.readouterr().err.count("is pinned: promotions are not followed") == 1


def test_label_info(bench):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not on PyPI: needs a ROS installation")
    b = started(bench())
    infos = b.watch(vision_msgs.LabelInfo, "/segmentation_node/label_info", qos.latched_profile())
    b.until(lambda: infos)
    assert [(c.class_id, c.class_name) for c in infos[-1].class_map] == class_map(CAMVID)


def test_every_id_of_a_mask_has_a_name():
    assert class_map(CAMVID) == [*enumerate(CAMVID.classes), (255, "unlabelled")]


# -- what goes wrong -----------------------------------------------------------------------------


def test_an_unknown_encoding_is_counted_and_said_once(bench, capfd):
    b = started(bench(silence_s=1.0))
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    camera = CameraPublisher(b)

    def skipped():
        status = newest(arrays, ": camera")
        return status is not None and int(values_of(status)["errors"]) >= 8

    last = [0.0]

    def strange():
        if time.monotonic() - last[0] > 0.1:
            last[0] = time.monotonic()
            camera(encoding="octarine8")

    b.until(skipped, every=strange)
    b.until(lambda: newest(arrays, ": camera").level == DiagnosticStatus.ERROR, every=strange)
    status = newest(arrays, ": camera")
    assert "frames come, but no mask for" in status.message
    assert "octarine8" in status.message
    assert values_of(status)["masks"] == "0"
    assert capfd.readouterr().err.count("frame skipped") == 1
    b.until(lambda: newest(arrays, ": camera").level == DiagnosticStatus.OK, every=steady(camera))


def test_a_silent_camera_is_reported_with_the_topics_there_are(bench, capfd):
    b = bench()
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    elsewhere = CameraPublisher(b, "front/image_raw", reliability="best_effort")
    started(b)
    since = time.monotonic()

    def reported():
        status = newest(arrays, ": camera")
        return status is not None and status.level == DiagnosticStatus.ERROR

    b.until(reported, every=steady(elsewhere))
    assert time.monotonic() - since < 8  # 5 on a machine that has time
    message = newest(arrays, ": camera").message
    assert "/camera/image (best effort)" in message
    assert "/front/image_raw [Image, best effort, volatile]" in message
    camera = CameraPublisher(b)
    b.until(lambda: not reported(), every=steady(camera))
    said = capfd.readouterr().err
    assert said.count("no frame for") == 1
    assert "camera: frames come again" in said


def test_while_inactive_the_diagnostics_are_stale(bench):
    b = bench()
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    b.node.trigger_configure()
    b.until(lambda: newest(arrays, ": camera"))
    assert newest(arrays, ": camera").level == DiagnosticStatus.STALE


def test_a_dead_inference_thread_ends_the_process_and_says_so(bench, monkeypatch):
    b = started(bench())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    masks = b.watch(Image, "/segmentation_node/camera/mask", qos.latest_profile())
    camera = CameraPublisher(b)
    b.until(lambda: masks, every=steady(camera))

    def broken(*_, **__):
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr("ssada_ros.segmentation_loop.decode", broken)
    with pytest.raises(ZeroDivisionError, match="nobody foresaw this"):
        b.until(lambda: False, every=steady(camera), seconds=20)
    b.until(lambda: newest(arrays, ": model") and newest(arrays, ": model").level == DiagnosticStatus.ERROR)
    assert "no more masks, the process ends: ZeroDivisionError" in newest(arrays, ": model").message
    assert b.node.trigger_deactivate() == OK  # and what is left can be taken down
    assert b.node.trigger_cleanup() == OK


def test_a_backend_that_is_gone_ends_the_process_and_says_so(bench):
    b = started(bench())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    masks = b.watch(Image, "/segmentation_node/camera/mask", qos.latest_profile())
    camera = CameraPublisher(b)
    b.until(lambda: masks, every=steady(camera))
    b.node._slot.model.engine._graph.to("meta")  # as with a GPU that was lost, torch has no memory to compute on
    with pytest.raises(BackendError, match="torch cannot run the network"):
        b.until(lambda: False, every=steady(camera), seconds=30)
    b.until(lambda: newest(arrays, ": model") and newest(arrays, ": model").level == DiagnosticStatus.ERROR)
    assert "no more masks, the process ends: BackendError" in newest(arrays, ": model").message


def test_a_backend_that_failed_for_a_moment_is_not_gone():
    watch = BackendWatch()
    assert not any(watch.failed(now_s) for now_s in range(MOST_FAILURES - 1))
    watch.worked()
    assert not any(watch.failed(0.1 * index) for index in range(MOST_FAILURES + 5))  # many at once, in less than 2 s
    assert watch.failed(FAILING_S)
