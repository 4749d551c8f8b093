"""A camera's subscription follows its publishers, which are in a participant of their own: type, topic, reliability."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from ros_fixtures import Elsewhere
from sensor_msgs.msg import CompressedImage, Image

from ssada_ros import qos
from ssada_ros.camera_input import CameraInput
from ssada_ros.cameras import Camera
from ssada_ros.input_settings import CameraInputSettings

pytestmark = pytest.mark.ros

TOPIC = "/robot/front/image"
RELIABLE, BEST_EFFORT = qos.latest_profile(), qos.latest_profile(reliability="best_effort")


class Follower:
    """A camera input on a bare node, looked after as the nodes do."""

    def __init__(self, transport="auto", **settings):
        rclpy.init()
        self.node = rclpy.create_node("seer", namespace="/robot")
        self.received = []
        camera = Camera("front", "front/image", transport)
        self.input = CameraInput(self.node, camera, CameraInputSettings(**settings), self.received.append)

    def until(self, condition, publish=None, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.input.source, self.input.complaint, len(self.received))
            if publish is not None:
                publish()
            self.input.look()
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def hears(self, publisher, kind):
        """Wait for a message that is sent from now on."""
        self.received.clear()
        self.until(lambda: self.received, lambda: publisher.publish(kind()))
        return self.received[-1]


@pytest.fixture
def elsewhere(ros_domain):
    with Elsewhere() as made:
        yield made


@pytest.fixture
def follow(ros_domain):
    made = []

    def make(*arguments, **settings):
        made.append(Follower(*arguments, **settings))
        return made[-1]

    yield make
    for one in made:
        one.input.close()
        one.node.destroy_node()
        rclpy.try_shutdown()


@pytest.mark.parametrize(
    ("kind", "topic"), [(Image, TOPIC), (CompressedImage, TOPIC), (CompressedImage, f"{TOPIC}/compressed")]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_type_is_recognised_whenever_the_publisher_comes(elsewhere, follow, kind, topic, when):
    if when == "before":
        with elsewhere.publishing(kind, topic, BEST_EFFORT) as publisher:
            delivery = follow().hears(publisher, kind)
    else:
        one = follow()
        one.until(lambda: True)
        with elsewhere.publishing(kind, topic, BEST_EFFORT) as publisher:
            delivery = one.hears(publisher, kind)
    assert (delivery.camera, delivery.compressed) == ("front", kind is CompressedImage)


def test_a_camera_that_comes_back_as_something_else_is_followed_there_and_back(elsewhere, follow):
    one = follow()
    for kind, topic in ((Image, TOPIC), (CompressedImage, f"{TOPIC}/compressed"), (Image, TOPIC)):
        with elsewhere.publishing(kind, topic, RELIABLE) as publisher:
            assert one.hears(publisher, kind).compressed == (kind is CompressedImage)
    assert one.input.changes == 2


def test_a_publisher_that_stays_is_kept_when_another_comes(elsewhere, follow):
    one = follow()
    with elsewhere.publishing(CompressedImage, f"{TOPIC}/compressed", RELIABLE) as publisher:
        one.hears(publisher, CompressedImage)
        with elsewhere.publishing(Image, TOPIC, RELIABLE):
            one.until(lambda: one.node.count_publishers(TOPIC) == 1)
            assert one.hears(publisher, CompressedImage)
        assert one.input.changes == 1


@pytest.mark.parametrize(("transport", "kind"), [("raw", CompressedImage), ("compressed", Image)])
def test_a_transport_that_was_set_is_not_left(elsewhere, follow, transport, kind):
    one = follow(transport)
    with elsewhere.publishing(kind, TOPIC, RELIABLE):
        one.until(lambda: one.node.count_publishers(TOPIC) == 1)
        one.input.look()
        assert one.input.source.compressed == (transport == "compressed")


def test_reliable_where_all_offer_it_and_looked_at_again(elsewhere, follow):
    one = follow(camera_reliability="auto")

    def asked():
        (info,) = one.node.get_subscriptions_info_by_topic(TOPIC)
        return info.qos_profile.reliability.name

    assert asked() == "BEST_EFFORT"
    with elsewhere.publishing(Image, TOPIC, RELIABLE) as strong:
        one.hears(strong, Image)
        one.until(lambda: asked() == "RELIABLE")
        with elsewhere.publishing(Image, TOPIC, BEST_EFFORT) as weak:
            one.hears(weak, Image)
            one.until(lambda: asked() == "BEST_EFFORT")
        one.until(lambda: asked() == "RELIABLE")
        one.hears(strong, Image)


def test_a_publisher_that_does_not_fit_is_one_warning_until_it_goes(elsewhere, follow, capfd):
    one = follow(camera_reliability="reliable", camera_durability="transient_local")
    with elsewhere.publishing(Image, TOPIC, BEST_EFFORT):
        one.until(lambda: one.input.complaint)
        one.until(lambda: one.node.count_publishers(TOPIC) == 1)
        with elsewhere.publishing(Image, TOPIC, BEST_EFFORT):
            one.until(lambda: one.node.count_publishers(TOPIC) == 2)
            one.input.look()
        assert "set the parameter 'camera_reliability' to best_effort" in one.input.complaint
        assert "set the parameter 'camera_durability' to volatile" in one.input.complaint
        assert TOPIC in one.input.complaint
    one.until(lambda: not one.input.complaint)
    latched = qos.latched_profile()
    with elsewhere.publishing(Image, TOPIC, latched) as fitting:
        one.hears(fitting, Image)
        assert one.input.complaint == ""
    assert capfd.readouterr().err.count("[WARN]") == 1
