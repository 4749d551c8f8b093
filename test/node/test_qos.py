"""QoS: who connects with whom, and what is said where nobody does. Real publishers and subscriptions."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from rclpy.qos import QoSPolicyKind
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ssada_ros import qos

pytestmark = pytest.mark.ros


@pytest.fixture
def nodes(ros_domain):
    rclpy.init()
    made = [rclpy.create_node("camera"), rclpy.create_node("seer", namespace="/robot")]
    yield made
    for node in made:
        node.destroy_node()
    rclpy.try_shutdown()


def spin_until(nodes, condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        for node in nodes:
            rclpy.spin_once(node, timeout_sec=0.02)
    return condition()


@pytest.mark.parametrize("reliability", ["best_effort", "reliable"])
def test_our_camera_serves_both_kinds_of_subscriber(nodes, reliability):
    camera, seer = nodes
    publisher = camera.create_publisher(Image, "/front", qos.camera_publisher_profile())
    received = []
    seer.create_subscription(Image, "/front", received.append, qos.camera_profile(reliability=reliability))
    assert spin_until(nodes, lambda: publisher.get_subscription_count() == 1)
    publisher.publish(Image())
    assert spin_until(nodes, lambda: received)


def test_latched_and_queries_reach_those_who_come_later(nodes):
    camera, seer = nodes
    latched = camera.create_publisher(String, "/model", qos.latched_profile())
    queries = camera.create_publisher(String, "/query", qos.query_profile(depth=3))
    for number in range(5):
        latched.publish(String(data=str(number)))
        queries.publish(String(data=str(number)))
    models, asked = [], []
    seer.create_subscription(String, "/model", lambda m: models.append(m.data), qos.latched_profile())
    seer.create_subscription(String, "/query", lambda m: asked.append(m.data), qos.query_profile(depth=3))
    assert spin_until(nodes, lambda: len(asked) == 3 and models)
    assert (models, asked) == (["4"], ["2", "3", "4"])


def test_the_sentence_names_topic_policy_parameter_and_value():
    reliability, durability = int(QoSPolicyKind.RELIABILITY), int(QoSPolicyKind.DURABILITY)
    ours = qos.explain_incompatible("/front", reliability, prefix="camera")
    assert "/front: a publisher offers less reliability" in ours
    assert "set the parameter 'camera_reliability' to best_effort" in ours
    assert "'camera_durability' to volatile" in qos.explain_incompatible("/x", durability, prefix="camera")
    theirs = qos.explain_incompatible("/x", durability, prefix="mask", subscribing=False)
    assert "a subscriber asks for more durability" in theirs
    assert "'mask_durability' to transient_local" in theirs
    assert "parameter" not in qos.explain_incompatible("/x", durability)
    assert "parameter" not in qos.explain_incompatible("/x", int(QoSPolicyKind.DEADLINE), prefix="camera")


def test_an_incompatible_subscriber_is_one_warning(nodes, capfd):
    camera, seer = nodes
    events = qos.publisher_events(camera, "mask", "mask")
    weak = qos.latest_profile(reliability="best_effort")
    publisher = camera.create_publisher(Image, "mask", weak, event_callbacks=events)
    kept = [seer.create_subscription(Image, "/mask", print, qos.latest_profile()) for _ in range(2)]
    said = []
    assert spin_until(nodes, lambda: said.append(capfd.readouterr().err) or "mask_reliability" in "".join(said)), kept
    spin_until(nodes, lambda: False, seconds=0.5)
    said.append(capfd.readouterr().err)
    assert "".join(said).count("set the parameter 'mask_reliability' to reliable") == 1, publisher


def test_silence_is_explained_with_the_image_topics_that_exist(nodes):
    camera, seer = nodes
    keep = [
        camera.create_publisher(Image, "/left", qos.camera_publisher_profile()),
        camera.create_publisher(CompressedImage, "/right/compressed", qos.camera_profile()),
        camera.create_publisher(String, "/chatter", 1),
        seer.create_publisher(Image, "mask", qos.latest_profile()),
        seer.create_subscription(Image, "front", print, qos.camera_profile()),
    ]
    assert spin_until(nodes, lambda: len(seer.get_publishers_info_by_topic("/right/compressed")) == 1)
    assert qos.describe_camera_topics(seer, "front") == (
        "/robot/front (best effort): these image topics exist: "
        "/left [Image, reliable, volatile]; /right/compressed [CompressedImage, best effort, volatile]"
    ), keep


def test_no_camera_at_all_is_said(nodes):
    assert "ROS_DOMAIN_ID" in qos.describe_camera_topics(nodes[1])
