"""The adaptation hears of the masks' latency over real DDS and tells the training to wait."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor

from ssada_core.adaptation import sharing
from ssada_core.adaptation.sharing import SharingSettings, told
from ssada_ros import diagnostics, neighbour
from ssada_ros.neighbour import Neighbour
from ssada_ros.qos import reliable_profile
from ssada_ros.statistics import LATENCY_KEY

pytestmark = pytest.mark.ros


def around():
    """What else is heard on the topic: slow masks of other robots, and values that are no figures."""
    others = [
        diagnostics.status(name, diagnostics.OK, "", {LATENCY_KEY: 500.0})
        for name in ("robot2/segmentation_node: front", "robot1/arm/segmentation_node: front")
    ]
    strange = [
        diagnostics.status(f"{prefix}planner: 7", diagnostics.OK, "", {LATENCY_KEY: words})
        for prefix in ("", "robot1/")
        for words in ("n/a", "inf", "nan", "")
    ]
    return [*others, *strange]


@pytest.mark.parametrize("namespace", ["", "/robot1"])
def test_training_waits_while_the_own_masks_are_slow_and_no_longer(ros_domain, tmp_path, monkeypatch, namespace):
    monkeypatch.setattr(neighbour, "too_hot", lambda: "")
    rclpy.init(args=[])
    node, masks = (rclpy.create_node(name, namespace=namespace) for name in ("listening", "masks"))
    name = f"{diagnostics.node_name(masks)}: front"
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(masks)
    publisher = masks.create_publisher(DiagnosticArray, "/diagnostics", reliable_profile())

    def until(condition, p99):
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            status = diagnostics.status(name, diagnostics.OK, "", {LATENCY_KEY: p99})
            publisher.publish(diagnostics.diagnostic_array(masks, [*around(), status]))
            executor.spin_once(timeout_sec=0.2)

    try:
        with ExitStack() as undo:
            settings = SharingSettings(max_latency_ms=50, least_pause_s=0)
            watch = Neighbour(node, settings, tmp_path, Clock(clock_type=ClockType.STEADY_TIME), undo)
            until(lambda: told(tmp_path), 80.0)
            assert told(tmp_path) == watch.reason == "masks take 80 ms (p99), the bound is 50"
            until(lambda: not told(tmp_path), 20.0)
            assert watch.reason == ""
            until(lambda: told(tmp_path), 80.0)
        assert not (tmp_path / sharing.PAUSE_FILE).exists(), "nobody is left to say when it may go on"
    finally:
        executor.shutdown(timeout_sec=0)
        node.destroy_node()
        masks.destroy_node()
        rclpy.try_shutdown()
