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


def test_an_incompatible_publisher_is_one_warning_that_names_topic_policy_and_parameter(nodes):
    camera, seer = nodes
    said = []
    callbacks = qos.incompatible_qos_callbacks(seer, "front", "camera_reliability", report=said.append)
    seer.create_subscription(
        Image, "front", print, qos.camera_profile(reliability="reliable"), event_callbacks=callbacks
    )
    weak = qos.camera_profile(reliability="best_effort")
    publishers = [camera.create_publisher(Image, "/robot/front", weak) for _ in range(2)]
    assert spin_until(nodes, lambda: said)
    spin_until(nodes, lambda: len(said) > 1, seconds=0.5)
    assert len(said) == 1, publishers
    assert all(word in said[0] for word in ("/robot/front", "reliability", "'camera_reliability'"))


def test_the_parameter_is_named_only_for_the_policy_it_decides():
    sentence = qos.explain_incompatible("/x", int(QoSPolicyKind.DURABILITY))
    assert "durability" in sentence
    assert "transient local" in sentence
    assert "parameter" not in sentence
    theirs = qos.explain_incompatible(
        "/x", int(QoSPolicyKind.RELIABILITY), parameter="mask_reliability", subscribing=False
    )
    assert "subscriber" in theirs
    assert "'mask_reliability'" in theirs


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
