"""A camera's subscription that follows what there is: topic, message type and reliability of its publishers.

Publishers come after the node, go, and come back as something else. So the graph is looked at again and again while
the node is active, and the subscription is made anew where another one fits better.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from ssada_ros.cameras import Camera, Source
from ssada_ros.input_settings import CameraInputSettings
from ssada_ros.mailbox import Delivery
from ssada_ros.qos import Reliability, TopicQos, explain_incompatible, incompatible_policies, subscription_events

LOOK_PERIOD_S = 0.5
"""How often the graph is looked at."""


class CameraInput:
    """Subscribes to one camera. Used by the thread that spins the node.

    Attributes:
        source: the topic and type subscribed to.
        changes: how often the subscription was made anew.
    """

    changes: int = 0

    def __init__(
        self, node: Node, camera: Camera, settings: CameraInputSettings, deliver: Callable[[Delivery], None]
    ) -> None:
        """Subscribe.

        Args:
            node: the subscribing node.
            camera: where its frames may come from.
            settings: reliability, durability and depth.
            deliver: gets every message, serialised; called by the thread that spins the node.
        """
        self._node = node
        self._camera = camera
        self._settings = settings
        self._deliver = deliver
        self._publishers: frozenset[tuple[object, ...]] | None = None
        self._complaint = ""
        expected: Reliability = "best_effort" if settings.camera_reliability == "auto" else settings.camera_reliability
        self.source, self._reliability = self._best(self._look(), camera.sources[0], expected)
        self._subscription = self._subscribe()

    @property
    def complaint(self) -> str:
        """Why a publisher that is there is not heard; empty if all are."""
        return self._complaint

    def look(self) -> None:
        """Look at the graph; where its publishers changed, subscribe to what fits them now."""
        found = self._look()
        publishers = frozenset(_fingerprint(source, info) for source, infos in found.items() for info in infos)
        if publishers == self._publishers:
            return
        self._publishers = publishers
        source, reliability = self._best(found, self.source, self._reliability)
        if (source, reliability) != (self.source, self._reliability):
            self._change(source, reliability)
        self._judge(found[self.source])

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _look(self) -> dict[Source, list[TopicEndpointInfo]]:
        topics = {source.topic for source in self._camera.sources}
        found = {topic: self._node.get_publishers_info_by_topic(topic) for topic in topics}
        return {
            source: [info for info in found[source.topic] if info.topic_type == source.type_name]
            for source in self._camera.sources
        }

    def _best(
        self, found: dict[Source, list[TopicEndpointInfo]], source: Source, reliability: Reliability
    ) -> tuple[Source, Reliability]:
        """What is published now, ``source`` first; what there was, where nothing is."""
        source = next((one for one in (source, *found) if found[one]), source)
        offered = {info.qos_profile.reliability.name for info in found[source]}
        if self._settings.camera_reliability != "auto" or not offered:
            return source, reliability
        return source, "reliable" if offered == {"RELIABLE"} else "best_effort"

    def _change(self, source: Source, reliability: Reliability) -> None:
        self.close()  # first: one participant has one type for a topic
        self.source, self._reliability = source, reliability
        self._subscription = self._subscribe()
        self.changes += 1
        kind, how = source.message_type.__name__, reliability.replace("_", " ")
        self._node.get_logger().info(f"{self._camera.name}: frames now from {source.topic} [{kind}], {how}")

    def _subscribe(self) -> Subscription:
        source = self.source

        def store(message: bytes) -> None:
            self._deliver(Delivery(self._camera.name, message, time.monotonic_ns(), source.compressed))

        return self._node.create_subscription(
            source.message_type,
            source.topic,
            store,
            self._profile().profile(),
            raw=True,  # only the frame that is served is deserialised
            event_callbacks=subscription_events(self._on_incompatible),
        )

    def _profile(self) -> TopicQos:
        return TopicQos(self._reliability, self._settings.camera_durability, self._settings.camera_depth)

    def _judge(self, infos: list[TopicEndpointInfo]) -> None:
        """Say once which policy keeps a publisher from being heard, until none does any more."""
        wrong = [policy for info in infos for policy in incompatible_policies(info.qos_profile, self._profile())]
        topic = self._node.resolve_topic_name(self.source.topic)
        complaint = " ".join(explain_incompatible(topic, policy, prefix="camera") for policy in dict.fromkeys(wrong))
        if complaint and complaint != self._complaint:
            self._node.get_logger().warning(complaint)
        self._complaint = complaint

    def _on_incompatible(self, _policy: int) -> None:
        self._publishers = None  # whatever the graph showed so far, the next look judges it anew


def _fingerprint(source: Source, info: TopicEndpointInfo) -> tuple[object, ...]:
    profile = info.qos_profile
    return (source, tuple(info.endpoint_gid), profile.reliability, profile.durability)
