"""Four cameras on one segmentation node, all real processes: one stops, one comes back larger and compressed."""

from __future__ import annotations

import sys
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_fixtures import newest, values_of

from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.inference.export import deploy
from ssada_core.inference.load import read_model
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.models import resolve_model
from ssada_core.store.registry import ModelRegistry
from ssada_ros import qos
from ssada_ros.camera_settings import CameraSettings
from ssada_ros.parameters import write_parameters_file
from ssada_ros.processes import ProcessDescription
from ssada_ros.segmentation_settings import SegmentationSettings
from ssada_ros.supervisor import Supervisor

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(600)]

RATE = 5.0
NAMES = ("front", "left", "right", "rear")
STOPS, SWITCHES, STAY = "right", "rear", ("front", "left")
LARGE = "rear_large"
SETTLE_S, WINDOW_S = 8.0, 15.0
FEWEST = 0.8
"""Share of the camera's own frames that must become masks, on two cores that nobody else uses."""


def camera(name, namespace, **parameters):
    settings = CameraSettings(rate=RATE, publish_labels=False, frame_id=namespace, **parameters)
    return name, namespace, settings


def describe(folder, cameras):
    """The segmentation node and the cameras, each camera with a parameters file of its own."""
    segmentation = SegmentationSettings(
        model=str(folder / "registry"),
        cameras=[f"/{name}/camera/image" for name in NAMES],
        camera_names=list(NAMES),
        engine={"backend": "auto", "precision": "auto"},
    )
    write_parameters_file(folder / "segmentation.yaml", {"segmentation_node": segmentation})
    yield ProcessDescription("segmentation_node", "ssada_ros.segmentation_node", folder / "segmentation.yaml")
    for name, namespace, settings in cameras:
        write_parameters_file(folder / f"{name}.yaml", {name: settings})
        yield ProcessDescription(name, "ssada_ros.camera_node", folder / f"{name}.yaml", namespace=f"/{namespace}")


class Story:
    """What the diagnostics tell."""

    def __init__(self, supervisor):
        rclpy.init()
        self.supervisor = supervisor
        self.node = rclpy.create_node("watcher")
        self.arrays = []
        profile = qos.reliable_profile(depth=100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.arrays.append, profile)

    def close(self):
        self.node.destroy_node()
        rclpy.try_shutdown()

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def until(self, condition, seconds=90.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.supervisor.log_tail("segmentation_node", 30)
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def of(self, name):
        return newest(self.arrays, f"segmentation_node: {name}")

    def level(self, name):
        status = self.of(name)
        return None if status is None else status.level

    def count(self, name, key):
        return int(values_of(self.of(name))[key])

    def served(self, names, seconds):
        """Masks and frames of each camera in a window of time."""
        before = {name: (self.count(name, "masks"), self.count(name, "received")) for name in names}
        self.spin(seconds)
        return {
            name: (self.count(name, "masks") - masks, self.count(name, "received") - received)
            for name, (masks, received) in before.items()
        }


def make_small_model(root):
    """The shipped model's weights at 320×192, as it would be deployed: int8 where it answers like fp32."""
    network, manifest = read_model(resolve_model("sim-day"))
    small = manifest.network.model_copy(update={"input_height": 192, "input_width": 320})
    drive = SimulatedDrive(seed=3, size=(192, 320), rate=RATE)
    frames, labels = zip(*(drive.frame(index * 10, "day") for index in range(24)), strict=True)
    registry = ModelRegistry(root)
    registry.add(
        network.state_dict(),
        ModelManifest(version="", created="", network=small, label_space=manifest.label_space),
        deploy=lambda folder: deploy(folder, frames=frames, labels=labels) and None,
    )
    registry.promote("v0001")


@pytest.fixture
def story(ros_domain, tmp_path):
    make_small_model(tmp_path / "registry")
    cameras = [camera(f"camera_{name}", name) for name in NAMES]
    cameras.append(camera(LARGE, SWITCHES, compressed=True, width=1280, height=720))
    descriptions = list(describe(tmp_path, cameras))
    (tmp_path / "log").mkdir()
    supervisor = Supervisor(descriptions, tmp_path / "log")
    one = Story(supervisor)
    try:
        for description in descriptions[:-1]:
            supervisor.start_one(description.name)
        yield one
    finally:
        supervisor.stop()
        one.close()


def test_the_others_keep_their_rate_and_the_diagnostics_tell_the_story(story):
    story.until(lambda: all(story.level(name) == DiagnosticStatus.OK for name in NAMES))
    pid = story.supervisor.pid("segmentation_node")
    story.spin(SETTLE_S)
    before = story.served(NAMES, WINDOW_S)

    story.supervisor.stop_one(f"camera_{STOPS}")
    story.supervisor.stop_one(f"camera_{SWITCHES}")
    story.supervisor.start_one(LARGE)
    story.until(lambda: story.level(STOPS) == DiagnosticStatus.ERROR)
    story.until(lambda: values_of(story.of(SWITCHES))["format"] == "jpeg 1280x720")
    story.spin(SETTLE_S)
    after = story.served((*STAY, SWITCHES), WINDOW_S)

    assert "no frame for" in story.of(STOPS).message
    assert f"/{STOPS}/camera/image" in story.of(STOPS).message
    switched = values_of(story.of(SWITCHES))
    assert switched["type"] == "CompressedImage"
    assert switched["topic"] == f"/{SWITCHES}/camera/image/compressed"
    assert [story.level(name) for name in (*STAY, SWITCHES)] == [DiagnosticStatus.OK] * 3
    figures = {"before": before, "after": after, "model": values_of(story.of("model")), **values_of(story.of(STAY[0]))}
    sys.stderr.write(f"{figures}\n")
    assert all(masks >= FEWEST * received for masks, received in (*before.values(), *after.values())), figures
    assert all(after[name][0] >= 0.9 * before[name][0] for name in STAY), figures
    assert story.supervisor.poll()["segmentation_node"] is None
    assert story.supervisor.pid("segmentation_node") == pid
    assert "Traceback" not in story.supervisor.log_tail("segmentation_node", 1000)
