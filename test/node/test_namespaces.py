"""Two robots in one ROS domain: their nodes' diagnostics are told apart by the namespace in the names."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from ros_fixtures import Bench, make_registry

from ssada_ros import qos
from ssada_ros.adaptation_node import AdaptationNode
from ssada_ros.camera_node import CameraNode
from ssada_ros.segmentation_node import SegmentationNode

pytestmark = pytest.mark.ros

OK = TransitionCallbackReturn.SUCCESS
PARTS = {
    SegmentationNode: ("segmentation_node", {"model", "camera"}),
    AdaptationNode: ("adaptation_node", {"work", "pool", "training", "gate", "road"}),
    CameraNode: ("camera_node", {"camera"}),
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return make_registry(tmp_path_factory.mktemp("registry"))


def parameters_of(kind, registry, folder):
    engine = {"engine__backend": "torch", "engine__threads": 1}
    return {
        SegmentationNode: {"model": registry.root, **engine},
        AdaptationNode: {
            "registry_dir": registry.root,
            "pool_dir": folder / "pool",
            "rounds_dir": folder / "rounds",
            "nice": 0,
            **engine,
        },
        CameraNode: {"source": "sim", "width": 96, "height": 64},
    }[kind]


@pytest.mark.parametrize("namespace", ["", "/robot1"])
@pytest.mark.parametrize("kind", list(PARTS), ids=[name for name, _ in PARTS.values()])
def test_a_status_carries_the_namespace_of_its_node(ros_domain, registry, tmp_path, kind, namespace):
    name, parts = PARTS[kind]
    prefix = f"{namespace[1:]}/{name}" if namespace else name
    with Bench(kind, namespace=namespace, **parameters_of(kind, registry, tmp_path)) as b:
        arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
        assert b.node.trigger_configure() == OK
        assert b.node.trigger_activate() == OK
        b.until(lambda: arrays)
        found = {status.name for message in arrays for status in message.status}
    assert found == {f"{prefix}: {part}" for part in parts}
