"""The camera node as its own process, over real DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ssada_core.data.encodings import encode_jpeg, encode_png
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_ros import qos
from ssada_ros.conversions import image_to_bgr, label_from_image, stamp_to_ns

pytestmark = pytest.mark.ros

SMALL = {"width": 160, "height": 96}


class Watcher:
    """A node in this process that keeps what it receives."""

    def __init__(self, node):
        self.node = node
        self.received = {}

    def watch(self, kind, topic, profile):
        kept = self.received.setdefault(topic, [])
        self.node.create_subscription(kind, topic, kept.append, profile)
        return kept

    def until(self, condition, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.05)
        assert condition(), {topic: len(kept) for topic, kept in self.received.items()}

    def set_parameter(self, name, value):
        client = self.node.create_client(SetParameters, "/camera_node/set_parameters")
        assert client.wait_for_service(timeout_sec=10)
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        for _ in range(4):  # a server that does not know a new client yet drops its answer; twice does no harm here
            future = client.call_async(request)
            rclpy.spin_until_future_complete(self.node, future, timeout_sec=5)
            if future.done():
                return future.result().results[0]
        raise AssertionError(f"camera_node did not answer when {name} was set")


@pytest.fixture
def watcher(ros_domain):
    rclpy.init()
    node = rclpy.create_node("watcher")
    yield Watcher(node)
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture
def camera(ros_domain):
    started = []

    def start(*extra, **parameters):
        given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
        command = [sys.executable, "-m", "ssada_ros.camera_node", "--ros-args", *given, *map(str, extra)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process, number=signal.SIGINT):
    asked = time.monotonic()
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    return process.returncode, said, time.monotonic() - asked


def test_frames_infos_and_labels_share_their_headers_and_are_the_drive(watcher, camera):
    topics = (Image, "camera/image"), (CameraInfo, "camera/camera_info"), (Image, "camera/label")
    kept = [watcher.watch(kind, topic, qos.reliable_profile(depth=50)) for kind, topic in topics]
    before = time.time_ns()
    camera(rate=10.0, limit=8, wait_for_subscribers=1, start_delay_s=0.5, seed=3, frame_id="front", **SMALL)

    def complete():
        """Frames of which all three arrived: a writer of depth 2 may overwrite images on a busy machine."""
        by_header = [{stamp_to_ns(one.header.stamp): one for one in messages} for messages in kept]
        return [[found[stamp] for found in by_header] for stamp in sorted(set.intersection(*map(set, by_header)))]

    watcher.until(lambda: len(complete()) >= 3)
    frames = [SimulatedDrive(seed=3, size=(96, 160), rate=10.0).frame(index, "day") for index in range(8)]
    shown = []
    for image, info, label in complete():
        assert image.header == info.header == label.header
        assert image.header.frame_id == "front"
        assert stamp_to_ns(image.header.stamp) > before
        assert (info.width, info.height) == (160, 96)
        shown += [index for index in range(8) if np.array_equal(image_to_bgr(image), frames[index][0])]
        np.testing.assert_array_equal(label_from_image(label), frames[shown[-1]][1])
    assert shown == sorted(set(shown))
    assert len(shown) == len(complete())


def test_the_rate_is_kept_and_can_change(watcher, camera, folder):
    infos = watcher.watch(CameraInfo, "camera/camera_info", qos.reliable_profile(depth=50))
    camera(source=f"images:{folder / 'images'}", rate=5.0)

    def median_gap(first, last):
        stamps = np.array([stamp_to_ns(info.header.stamp) for info in infos[first:last]])
        return np.median(np.diff(stamps)) / 1e9

    watcher.until(lambda: len(infos) >= 9)
    assert median_gap(0, 9) == pytest.approx(1 / 5, rel=0.2)
    assert watcher.set_parameter("rate", 2.0).successful
    changed = len(infos) + 1
    watcher.until(lambda: len(infos) >= changed + 4)
    assert median_gap(changed, changed + 4) == pytest.approx(1 / 2, rel=0.2)
    refused = watcher.set_parameter("rate", 0.0)
    assert not refused.successful


def test_the_stamp_is_not_older_than_the_publication(watcher, camera):
    ages = []

    def note(message):
        ages.append(time.time_ns() - stamp_to_ns(message.header.stamp))

    watcher.received["camera/image"] = ages
    watcher.node.create_subscription(Image, "camera/image", note, qos.camera_profile())
    camera(rate=5.0, **SMALL)
    watcher.until(lambda: len(ages) >= 8)
    # Rendering takes tens of milliseconds even at this size; transport alone takes a few.
    assert 0 < np.median(ages) < 0.1e9


def test_night_falls_when_it_is_told_to(watcher, camera):
    images = watcher.watch(Image, "camera/image", qos.camera_profile())
    camera(rate=10.0, **SMALL)
    watcher.until(lambda: len(images) >= 3)
    day = np.mean([image_to_bgr(image).mean() for image in images])
    assert watcher.set_parameter("domain", "night").successful
    images.clear()
    watcher.until(lambda: len(images) >= 6)
    assert image_to_bgr(images[-1]).mean() < 0.6 * day
    wrong = watcher.set_parameter("domain", "nigth")
    assert not wrong.successful
    assert "did you mean 'night'" in wrong.reason


@pytest.fixture
def vga(tmp_path):
    """Images of 640x480 that cost less to read than the simulated drive to render."""
    rng = np.random.default_rng(1)
    (tmp_path / "vga").mkdir()
    for index in range(4):
        image = np.kron(rng.integers(0, 256, (12, 16, 3), np.uint8), np.ones((40, 40, 1), np.uint8))
        (tmp_path / "vga" / f"{index}.jpg").write_bytes(encode_jpeg(image, 80))
    return f"images:{tmp_path / 'vga'}"


@pytest.fixture
def folder(tmp_path):
    """Two JPEG images with labels, as DirectorySamples reads them."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / "drive" / name).mkdir(parents=True)
    for index in range(2):
        image = rng.integers(0, 256, (48, 64, 3), np.uint8)
        (tmp_path / "drive" / "images" / f"{index}.jpg").write_bytes(encode_jpeg(image, 80))
        label = rng.integers(0, 11, (48, 64), np.uint8)
        (tmp_path / "drive" / "labels" / f"{index}.png").write_bytes(encode_png(label))
    return tmp_path / "drive"


def test_jpeg_passes_byte_for_byte_and_loops_with_new_stamps(watcher, camera, folder):
    images = watcher.watch(CompressedImage, "camera/image/compressed", qos.reliable_profile(depth=50))
    labels = watcher.watch(Image, "camera/label", qos.reliable_profile(depth=50))
    camera(source=f"images:{folder}", compressed=True, rate=20.0, limit=5, wait_for_subscribers=1, start_delay_s=0.5)
    watcher.until(lambda: len(images) == len(labels) == 5)
    files = [path.read_bytes() for path in sorted((folder / "images").iterdir())]
    assert [bytes(image.data) for image in images] == [files[index % 2] for index in range(5)]
    assert {image.format for image in images} == {"jpeg"}
    stamps = [stamp_to_ns(image.header.stamp) for image in images]
    assert stamps == sorted(set(stamps))
    assert [label.header for label in labels] == [image.header for image in images]


def test_a_source_that_ends_ends_the_node(camera, folder):
    process = camera(source=f"images:{folder}", loop=False, rate=50.0)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "ended after 2 frames" in said


def test_labels_are_kept_back_when_asked(watcher, camera):
    infos = watcher.watch(CameraInfo, "camera/camera_info", qos.reliable_profile(depth=50))
    camera(rate=20.0, publish_labels=False, **SMALL)
    watcher.until(lambda: infos)
    assert watcher.node.get_publishers_info_by_topic("/camera/label") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quickly_and_silently(watcher, camera, number):
    infos = watcher.watch(CameraInfo, "camera/camera_info", qos.reliable_profile(depth=50))
    process = camera(rate=20.0, **SMALL)
    watcher.until(lambda: len(infos) >= 2)
    status, said, seconds = end(process, number)
    assert (status, "Traceback" in said) == (0, False), said
    assert seconds < 5


@pytest.mark.parametrize(
    ("parameters", "status", "words"),
    [
        ({"source": "vidio:x.mp4"}, 2, ["vidio", "'video'"]),
        ({"source": "video:/nowhere/x.mp4"}, 1, ["/nowhere/x.mp4"]),
        ({"rate": -1.0}, 2, ["'rate' is -1.0"]),
        ({"domain": "snow"}, 2, ["snow", "night"]),
    ],
)
def test_what_cannot_be_is_one_line_and_an_exit_status(camera, parameters, status, words):
    process = camera(**parameters)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == status, said
    assert len(said.strip().splitlines()) == 1, said
    assert all(word in said for word in words), said


def test_a_wrong_key_in_a_params_file_names_the_right_one(camera, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("camera_node:\n  ros__parameters:\n    sourc: sim\n")
    process = camera("--params-file", file)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 2, said
    assert "unknown parameter 'sourc' (did you mean 'source'?)" in said


def test_diagnostics_say_how_it_goes(watcher, camera, folder):
    reports = watcher.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=10))
    camera(source=f"images:{folder / 'images'}", rate=5.0)
    watcher.until(lambda: len(reports) >= 3)
    (status,) = reports[-1].status
    figures = {pair.key: pair.value for pair in status.values}
    assert status.level == b"\0", status
    assert float(figures["rate_hz"]) == pytest.approx(5.0, rel=0.25)
    assert int(figures["frames"]) > 5
    assert float(figures["longest_gap_ms"]) > 150


def test_a_stopped_reliable_subscriber_does_not_hold_the_camera_up(watcher, camera, vga):
    infos = watcher.watch(CameraInfo, "camera/camera_info", qos.reliable_profile(depth=50))
    program = (
        "import rclpy, sys; from sensor_msgs.msg import Image; rclpy.init(); node = rclpy.create_node('slow')\n"
        "node.create_subscription(Image, 'camera/image', lambda m: print('got', flush=True), 1)\n"
        "rclpy.spin(node)"
    )
    slow = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        camera(source=vga, rate=20.0)
        assert slow.stdout.readline() == b"got\n"
        os.kill(slow.pid, signal.SIGSTOP)
        watcher.until(lambda: len(infos) >= 5)
        first = len(infos)
        watcher.until(lambda: len(infos) >= first + 60)
    finally:
        slow.kill()
        slow.communicate()
    gaps = np.diff([stamp_to_ns(info.header.stamp) for info in infos[first:]]) / 1e9
    assert np.median(gaps) == pytest.approx(1 / 20, rel=0.5)
    assert gaps.max() < 1.0


def test_with_the_profile_best_effort_at_depth_one_receives_nearly_everything(watcher, camera, vga):
    images = watcher.watch(Image, "camera/image", qos.camera_profile())
    infos = watcher.watch(CameraInfo, "camera/camera_info", qos.reliable_profile(depth=50))
    camera(source=vga, rate=20.0, limit=60, wait_for_subscribers=1, start_delay_s=1.0)
    watcher.until(lambda: len(infos) == 60)
    # Without the profile it is fewer than one in ten.
    assert len(images) >= 50
