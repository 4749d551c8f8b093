"""The ROS interface, asked of the nodes themselves: they are configured and activated here, and say what they created.

Needs ``rclpy``. Only the words of :data:`MEANING` are written by hand; a topic without words, or words without a
topic, is an error.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", "101")

import rclpy
from rclpy.qos import QoSProfile

from ssada_core.labels import CAMVID
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.registry import ModelRegistry
from ssada_ros.adaptation_node import AdaptationNode
from ssada_ros.camera_node import CameraNode
from ssada_ros.lifecycle import ManagedNode
from ssada_ros.segmentation_node import SegmentationNode

CAMERA_TOPIC = "camera/image"
MEANING = {
    ("segmentation_node", CAMERA_TOPIC): "Frames. Only the newest is served; what it replaced is counted as dropped.",
    ("segmentation_node", "camera/camera_info"): "Calibration; passed on as that of the masks.",
    ("segmentation_node", "ssada/promoted"): "Version to swap to, between two frames.",
    ("segmentation_node", "~/<camera>/mask"): "Class ids (mono8; 255 = unlabelled), header of the frame.",
    ("segmentation_node", "~/<camera>/confidence"): "Probability of the class, 0–255 (mono8), header of the frame.",
    ("segmentation_node", "~/<camera>/camera_info"): "Calibration scaled to the mask, where the camera publishes one.",
    ("segmentation_node", "~/<camera>/color"): "Mask in the classes' colours (bgr8); made only while subscribed to.",
    ("segmentation_node", "~/<camera>/overlay"): "Frame with coloured classes (bgr8); made only while subscribed to.",
    ("segmentation_node", "~/<camera>/overlay/compressed"): "The same as JPEG.",
    ("segmentation_node", "~/<camera>/timing"): "JSON per frame (ns, monotonic): received, engine, mask published; "
    "only while subscribed to.",
    ("segmentation_node", "~/label_space"): "JSON: class names, colours, ignored ids.",
    ("segmentation_node", "~/label_info"): "The same as a standard message, where `vision_msgs` is installed.",
    ("segmentation_node", "~/model"): "JSON: version in use and the first stamp it served, per camera.",
    ("segmentation_node", "/diagnostics"): "Model, and per camera rate, latency, intervals, drops, errors; 1 Hz.",
    ("adaptation_node", CAMERA_TOPIC): "Frames for the pool.",
    ("adaptation_node", "ssada/flag"): "The driver's button: this went wrong just now; the seconds before are kept.",
    ("adaptation_node", "ssada/annotation"): "A label: mono8 class ids, 255 = unlabelled, with the query's header.",
    ("adaptation_node", "ssada/query"): "A frame to label (bgr8); `stamp` is the frame's, `frame_id` the query's id.",
    ("adaptation_node", "ssada/annotation_result"): "JSON: accepted, or held or refused and why.",
    ("adaptation_node", "ssada/promoted"): "JSON: version in use from now on, and why.",
    ("adaptation_node", "~/status"): "JSON: phase, pool, queries, labels, training, last decision.",
    ("adaptation_node", "/diagnostics"): "Out: the same for diagnostics tools, 1 Hz. In: the masks' latency, for "
    "which training waits (`sharing`).",
    ("adaptation_node", "~/adapt"): "Start a round now; the answer says why not, if not.",
    ("adaptation_node", "~/rollback"): "Go back to the version before.",
    ("adaptation_node", "~/confirm"): "Promote the version that waits for a human (gate policy `manual`).",
    ("adaptation_node", "~/refuse"): "Turn it down.",
    ("adaptation_node", "~/pause"): "true: store, ask and train nothing; masks go on.",
    ("camera_node", CAMERA_TOPIC): "Frames of the source; with `compressed` on `camera/image/compressed`.",
    ("camera_node", "camera/camera_info"): "Size, with the frame's header.",
    ("camera_node", "camera/label"): "Ground truth (mono8) where the source has it.",
    ("camera_node", "/diagnostics"): "Rate and longest gap; 1 Hz.",
}
OPTIONAL = {("segmentation_node", "~/label_info")}
"""Only where a package is installed that pip does not have; described by hand elsewhere."""
OF_ROS = ("rcl_interfaces", "lifecycle_msgs", "type_description_interfaces")
"""Packages whose topics and services every lifecycle node has."""


@dataclass(frozen=True)
class Endpoint:
    """One topic or service of a node; ``qos`` is empty for services."""

    node: str
    direction: str
    topic: str
    type: str
    qos: str


def endpoints() -> list[Endpoint]:
    """Every topic and service of the product's nodes, in the order of :data:`MEANING`.

    Raises:
        ValueError: if a topic has no words in :data:`MEANING`, or words have no topic.
    """
    with tempfile.TemporaryDirectory() as folder, _ros(Path(folder)):
        found = [
            endpoint
            for kind in (SegmentationNode, AdaptationNode, CameraNode)
            for node in [kind()]
            for endpoint in _active_endpoints(node)
        ]
    keys = {(endpoint.node, endpoint.topic) for endpoint in found}
    if wrong := (keys ^ set(MEANING)) - OPTIONAL:
        raise ValueError(f"scripts/ros_interface.py: describe or remove {sorted(wrong)} in MEANING")
    order = list(MEANING)
    found = [endpoint for endpoint in found if (endpoint.node, endpoint.topic) not in OPTIONAL]
    return sorted(found, key=lambda endpoint: order.index((endpoint.node, endpoint.topic)))


def tables() -> dict[str, str]:
    """README's Markdown tables by name: ``topics`` and ``services``."""
    found = endpoints()
    return {"topics": _topics(found), "services": _services(found)}


def _services(found: list[Endpoint]) -> str:
    lines = [
        f"| `{row.topic.replace('~', row.node)}` | `{row.type}` | {MEANING[row.node, row.topic]} |"
        for row in found
        if not row.qos
    ]
    return "\n".join(["| service | type | what it does |", "| --- | --- | --- |", *lines])


def _topics(found: list[Endpoint]) -> str:
    lines = ["| topic | | type | QoS: reliability, durability, depth | what it carries |", f"{'| --- ' * 5}|"]
    for node in dict.fromkeys(row.node for row in found):
        lines.append(f"| **{node}** | | | | |")
        lines += [
            f"| `{row.topic}` | {row.direction} | `{row.type}` | {row.qos} | {MEANING[row.node, row.topic]} |"
            for row in found
            if row.node == node and row.qos
        ]
    return "\n".join(lines)


@contextlib.contextmanager
def _ros(folder: Path) -> Iterator[None]:
    """``rclpy`` with the parameters that let every node start: an untrained model in a registry."""
    network = NetworkSettings(input_height=64, input_width=64)
    manifest = ModelManifest(version="", created="", network=network, label_space=CAMVID.to_dict())
    registry = ModelRegistry(folder / "registry")
    state = build_network(network, CAMVID.num_classes, pretrained=False).state_dict()
    registry.promote(registry.add(state, manifest))
    parameters = {
        "segmentation_node:model": folder / "registry",
        "segmentation_node:engine.backend": "torch",
        "adaptation_node:engine.backend": "torch",
        **{f"adaptation_node:{name}_dir": folder / name for name in ("registry", "pool", "rounds")},
    }
    arguments = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
    rclpy.init(args=["--ros-args", "--log-level", "warn", *arguments])
    try:
        yield
    finally:
        rclpy.try_shutdown()


def _active_endpoints(node: ManagedNode) -> list[Endpoint]:
    try:
        for transition in (node.trigger_configure, node.trigger_activate):
            transition()
            if node.failure is not None:
                raise node.failure
        return list(_endpoints(node))
    finally:
        node.close()


def _endpoints(node: ManagedNode) -> Iterator[Endpoint]:
    name = node.get_name()
    for handles, direction in ((node.subscriptions, "in"), (node.publishers, "out")):
        for handle in handles:
            topic, kind = _relative(name, handle.topic_name), _type(handle.msg_type)
            if not kind.startswith(OF_ROS) and topic != "/parameter_events":
                yield Endpoint(name, direction, topic, kind, _qos(handle.qos_profile, topic, direction))
    for service in node.services:
        kind = _type(service.srv_type)
        if not kind.startswith(OF_ROS):
            yield Endpoint(name, "service", _relative(name, service.service_name), kind, "")


def _relative(node: str, topic: str) -> str:
    if topic.startswith(f"/{node}/"):
        return topic.replace(f"/{node}/", "~/").replace("~/camera/", "~/<camera>/")
    return topic if topic in ("/diagnostics", "/parameter_events") else topic.removeprefix("/")


def _type(message: type) -> str:
    return f"{message.__module__.partition('.')[0]}/{message.__name__}"


def _qos(profile: QoSProfile, topic: str, direction: str) -> str:
    words = f"{profile.reliability.name}, {profile.durability.name}, {profile.depth}".lower().replace("_", " ")
    if topic == CAMERA_TOPIC and direction == "in":
        return f"{words} (`camera_*`)"
    of_masks = topic.startswith("~/<camera>/") and not topic.endswith("timing")
    return f"{words} (`mask_*`)" if of_masks else words
