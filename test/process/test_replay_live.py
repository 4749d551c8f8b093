"""A replay asks for the frames that the live node asks for, fed the same frames over reliable QoS."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from adaptation_fixtures import DRIVE
from replay_fixtures import ENGINE, models, replay, settings
from sensor_msgs.msg import Image

from ssada_core.data.bags import BagFrame, write_bag
from ssada_ros.adaptation_settings import AdaptationNodeSettings
from ssada_ros.conversions import fill_image, make_header, stamp_to_ns
from ssada_ros.parameters import write_parameters_file
from ssada_ros.processes import ProcessDescription
from ssada_ros.qos import query_profile, reliable_profile
from ssada_ros.supervisor import Supervisor

FRAMES, STEP_NS = 12, 10**9
NODE = "adaptation_node"
ADAPTATION = {
    "pool": {"rate": 100.0, "keep_free_share": 0.0, "standstill_threshold": 0.0, "duplicate_threshold": 0.0},
    "cycle": {"budget": 5, "batch": 5, "max_open": 5, "min_frames": FRAMES, "new_labels": 5},
    "acquisition": {"strategy": "eis", "diverse": True, "audit_every": 2},
    "engine": ENGINE,
}


def drive() -> list[tuple[int, object]]:
    return [(10**18 + index * STEP_NS, DRIVE.frame(4 * index, "night")[0]) for index in range(FRAMES)]


@pytest.mark.ros
def test_the_first_batch_is_that_of_the_live_node(tmp_path: Path, ros_domain: int):
    write_bag(tmp_path / "bag", [BagFrame(stamp, "front", image) for stamp, image in drive()], compressed=False)
    references = models(tmp_path / "registry")
    given = settings(adaptation=ADAPTATION, answers="none", seed=7)
    report = replay(tmp_path / "bag", tmp_path / "out", references, given, adapt=True)
    assert [query.stamp_ns for query in report.adaptation.queries] == live_batch(tmp_path)
    assert sum(query.audit for query in report.adaptation.queries) == 2


def live_batch(root: Path) -> list[int]:
    """Stamps of the frames that the node asks for, in its order."""
    values = {
        **ADAPTATION,
        "registry_dir": str(root / "registry"),
        "pool_dir": str(root / "pool"),
        "rounds_dir": str(root / "rounds"),
        "camera_reliability": "reliable",
        "seed": 7,
    }
    write_parameters_file(root / "parameters.yaml", {NODE: AdaptationNodeSettings.model_validate(values)})
    process = ProcessDescription(NODE, f"ssada_ros.{NODE}", parameters_file=root / "parameters.yaml")
    asked: list[int] = []
    rclpy.init(args=[])
    node = rclpy.create_node("camera")
    try:
        frames = node.create_publisher(Image, "camera/image", reliable_profile(depth=10))
        node.create_subscription(
            Image, "ssada/query", lambda query: asked.append(stamp_to_ns(query.header.stamp)), query_profile(depth=5)
        )
        with Supervisor([process], root / "logs"):
            until(node, lambda: frames.get_subscription_count() > 0)
            for stamp, image in drive():
                frames.publish(fill_image(Image(), image, "bgr8", make_header(stamp, "front")))
                spin(node, 0.3)
            until(node, lambda: len(asked) == 5)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return asked


def spin(node, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.02)


def until(node, condition, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the node did not answer"
        rclpy.spin_once(node, timeout_sec=0.05)
