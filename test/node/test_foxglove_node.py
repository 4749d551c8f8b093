"""The Foxglove server in process, looked at by a real websocket client."""

from __future__ import annotations

import json
import socket
import struct
import threading

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")
pytest.importorskip("foxglove", reason="the Foxglove SDK is not installed: pip install '.[foxglove]'")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from ros_fixtures import Bench, assert_same, footprint
from sensor_msgs.msg import Image
from std_msgs.msg import String
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ssada_core.errors import SsadaError
from ssada_ros import qos
from ssada_ros.conversions import fill_image, make_header
from ssada_ros.foxglove_node import FoxgloveNode

pytestmark = pytest.mark.ros

OK = TransitionCallbackReturn.SUCCESS
STAMP = 1_700_000_000_123_456_789
RAMP = np.arange(24 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(24, 32, 3)


class Viewer:
    """What Foxglove does: connects, hears of channels, subscribes to some, receives."""

    def __init__(self, url):
        self.socket = connect(url, subprotocols=["foxglove.sdk.v1"], max_size=None, open_timeout=30)
        self.info: dict = {}
        self.channels: dict[str, dict] = {}
        self.received: list[tuple[int, int, bytes]] = []
        self.ended = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        try:
            for message in self.socket:
                if isinstance(message, bytes):
                    if message[0] == 1:
                        subscription, stamp = struct.unpack_from("<IQ", message, 1)
                        self.received.append((subscription, stamp, message[13:]))
                    continue
                self._take(json.loads(message))
        except ConnectionClosed:
            pass
        self.ended.set()

    def _take(self, message):
        if message["op"] == "serverInfo":
            self.info = message
        elif message["op"] == "advertise":
            self.channels.update({channel["topic"]: channel for channel in message["channels"]})
        elif message["op"] == "unadvertise":
            gone = set(message["channelIds"])
            self.channels = {name: c for name, c in self.channels.items() if c["id"] not in gone}

    def send(self, **message):
        self.socket.send(json.dumps(message))

    def look(self, topic, subscription=1):
        wanted = {"id": subscription, "channelId": self.channels[topic]["id"]}
        self.send(op="subscribe", subscriptions=[wanted])


@pytest.fixture
def bench(ros_domain):
    made = []

    def make(**parameters):
        b = Bench(FoxgloveNode, port=0, **parameters)
        made.append(b)
        assert b.node.trigger_configure() == OK
        assert b.node.trigger_activate() == OK
        return b

    yield make
    for one in made:
        one.__exit__()


def subscribed(bench, topic):
    return bench.watcher.count_subscribers(topic)


def test_a_viewer_sees_frames_as_they_are_and_only_while_it_looks(bench):
    b = bench()
    frames = b.watcher.create_publisher(Image, "camera/image", qos_profile_sensor_data)
    viewer = Viewer(b.node.url)
    b.until(lambda: "/camera/image" in viewer.channels)
    channel = viewer.channels["/camera/image"]
    assert (channel["encoding"], channel["schemaName"]) == ("cdr", "sensor_msgs/msg/Image")
    assert channel["schemaEncoding"] == "ros2msg"
    assert "uint32 step" in channel["schema"]
    assert "MSG: std_msgs/Header" in channel["schema"]
    assert subscribed(b, "/camera/image") == 0  # nobody looks yet, so nobody pays

    viewer.look("/camera/image")
    b.until(frames.get_subscription_count)
    message = fill_image(Image(), RAMP, "bgr8", make_header(STAMP, "front"))
    b.until(lambda: viewer.received, every=lambda: frames.publish(message))
    subscription, logged, content = viewer.received[0]
    assert subscription == 1
    assert abs(logged - b.watcher.get_clock().now().nanoseconds) < 60e9
    seen = deserialize_message(content, Image)
    assert seen.header == message.header
    assert_same(seen, RAMP)

    viewer.send(op="unsubscribe", subscriptionIds=[1])
    b.until(lambda: not frames.get_subscription_count())


def test_latched_topics_reach_a_viewer_that_comes_late(bench):
    b = bench()
    space = b.watcher.create_publisher(String, "segmentation_node/label_space", qos.latched_profile())
    space.publish(String(data="said once"))
    viewer = Viewer(b.node.url)
    b.until(lambda: "/segmentation_node/label_space" in viewer.channels)
    viewer.look("/segmentation_node/label_space", subscription=7)
    b.until(lambda: viewer.received)
    assert viewer.received[0][0] == 7
    assert deserialize_message(viewer.received[0][2], String).data == "said once"


def test_two_viewers_share_a_subscription_and_the_last_one_ends_it(bench):
    b = bench()
    diagnostics = b.watcher.create_publisher(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=10))
    viewers = [Viewer(b.node.url) for _ in range(2)]
    for viewer in viewers:
        b.until(lambda viewer=viewer: "/diagnostics" in viewer.channels)
        viewer.look("/diagnostics")
    b.until(diagnostics.get_subscription_count)
    b.until(lambda: all(viewer.received for viewer in viewers), every=lambda: diagnostics.publish(DiagnosticArray()))
    assert diagnostics.get_subscription_count() == 1
    viewers[0].socket.close()
    b.spin(0.5)
    assert diagnostics.get_subscription_count() == 1
    viewers[1].socket.close()
    b.until(lambda: not diagnostics.get_subscription_count())


def test_topics_come_and_go_and_only_the_asked_ones_are_offered(bench):
    b = bench(topics='["/camera*", "/nothing"]')
    viewer = Viewer(b.node.url)
    frames = b.watcher.create_publisher(Image, "camera/image", qos_profile_sensor_data)
    hidden = b.watcher.create_publisher(Image, "camera/_secret", qos_profile_sensor_data)
    other = b.watcher.create_publisher(Image, "rear/image", qos_profile_sensor_data)
    b.until(lambda: "/camera/image" in viewer.channels)
    b.spin(1.5)
    assert viewer.channels.keys() == {"/camera/image"}
    for publisher in (frames, hidden, other):
        b.watcher.destroy_publisher(publisher)
    b.until(lambda: not viewer.channels)


def test_a_viewer_can_only_look(bench):
    b = bench()
    viewer = Viewer(b.node.url)
    b.until(lambda: viewer.info)
    assert viewer.info["capabilities"] == []
    channel = {"id": 1, "topic": "/ssada/annotation", "encoding": "cdr", "schemaName": "sensor_msgs/msg/Image"}
    viewer.send(op="advertise", channels=[channel])
    viewer.send(op="setParameters", parameters=[{"name": "x", "value": 1}])
    b.spin(0.5)
    assert b.watcher.count_publishers("/ssada/annotation") == 0


def test_it_gives_everything_back_and_comes_again(bench):
    b = bench()
    b.watcher.create_publisher(Image, "camera/image", qos_profile_sensor_data)
    viewer = Viewer(b.node.url)
    b.until(lambda: "/camera/image" in viewer.channels)
    viewer.look("/camera/image")
    b.until(lambda: subscribed(b, "/camera/image") == 1)
    assert b.node.trigger_deactivate() == OK
    b.until(lambda: not viewer.channels)
    assert b.node.trigger_cleanup() == OK
    assert viewer.ended.wait(30)
    before = footprint(b.node)
    for _ in range(2):
        assert b.node.trigger_configure() == OK
        assert b.node.trigger_activate() == OK
        again = Viewer(b.node.url)
        b.until(lambda again=again: "/camera/image" in again.channels)
        assert b.node.trigger_deactivate() == OK
        assert b.node.trigger_cleanup() == OK
    assert footprint(b.node) == before


def test_a_port_in_use_is_said_in_one_line(ros_domain):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with Bench(FoxgloveNode, port=taken.getsockname()[1]) as b:
            assert b.node.trigger_configure() != OK
            assert type(b.node.failure) is SsadaError  # status 1: worth another try
            assert "set the parameters host and port" in str(b.node.failure)
            assert b.where == "unconfigured"
