"""ROS topics as channels of a Foxglove server: serialised messages are handed through as they are.

A topic is subscribed to only while a viewer looks at it, so that nobody pays for an overlay that nobody sees.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rosbags.typesys import Stores, get_typestore

from ssada_core.errors import require
from ssada_ros.qos import TopicQos

DEPTH, LATCHED_DEPTH = 2, 50
"""Messages that wait in the middleware: of a stream the newest count, of latched topics (queries) all."""


@dataclass
class _Offer:
    """A topic that viewers can choose.

    Attributes:
        kind: such as ``sensor_msgs/msg/Image``.
        channel: of the Foxglove SDK.
        viewers: how many look at it.
        subscription: while somebody does.
    """

    kind: str
    channel: Any
    viewers: Counter[int] = field(default_factory=Counter)
    subscription: Subscription | None = None


class FoxgloveTopics:
    """Keeps the channels equal to the graph's topics, and the subscriptions equal to what is looked at."""

    def __init__(self, node: Node, context: Any, patterns: Sequence[str], log: Callable[[str], None]) -> None:  # noqa: ANN401
        """Prepare.

        Args:
            node: subscribes; all methods are called where it spins.
            context: the SDK's, in which channels are made.
            patterns: of the topics that are offered.
            log: gets one line for each type that cannot be shown.
        """
        self._foxglove = require("foxglove", extra="foxglove", purpose="the Foxglove server")
        self._node = node
        self._context = context
        self._patterns = patterns
        self._log = log
        self._types = get_typestore(Stores.LATEST)
        self._offers: dict[str, _Offer] = {}
        self._unknown: set[str] = set()

    def refresh(self) -> None:
        """Offer topics that have come, withdraw those that have gone."""
        found = {
            name: kinds[0]
            for name, kinds in self._node.get_topic_names_and_types()
            if len(kinds) == 1 and self._wanted(name) and self._node.count_publishers(name) and self._known(kinds[0])
        }
        for topic in [topic for topic, offer in self._offers.items() if found.get(topic) != offer.kind]:
            self._withdraw(topic)
        for topic, kind in found.items():
            if topic not in self._offers:
                self._offers[topic] = _Offer(kind, self._channel(topic, kind))

    def view(self, channel_id: int, client: int, *, looks: bool) -> None:
        """Take note that a viewer has begun or ceased to look at a channel."""
        for topic, offer in self._offers.items():
            if offer.channel.id() == channel_id:
                offer.viewers[client] = int(looks)
                self._follow(topic, offer)

    def close(self) -> None:
        """Withdraw everything."""
        for topic in list(self._offers):
            self._withdraw(topic)

    def _wanted(self, topic: str) -> bool:
        hidden = any(part.startswith("_") for part in topic.split("/"))
        return not hidden and any(fnmatchcase(topic, pattern) for pattern in self._patterns)

    def _known(self, kind: str) -> bool:
        # The names come from the network: only those of the known standard messages are ever imported.
        if kind in self._types.types and _message_class(kind) is not None:
            return True
        if kind not in self._unknown:
            self._unknown.add(kind)
            self._log(f"topics of type {kind} are not shown: its definition is not known here")
        return False

    def _channel(self, topic: str, kind: str) -> Any:  # noqa: ANN401 (the SDK's class)
        definition, _ = self._types.generate_msgdef(kind, ros_version=2)
        schema = self._foxglove.Schema(name=kind, encoding="ros2msg", data=definition.encode())
        return self._foxglove.Channel(topic, schema=schema, message_encoding="cdr", context=self._context)

    def _follow(self, topic: str, offer: _Offer) -> None:
        looked_at = any(offer.viewers.values())
        if looked_at and offer.subscription is None:
            offer.subscription = self._subscribe(topic, offer)
        elif not looked_at and offer.subscription is not None:
            self._node.destroy_subscription(offer.subscription)
            offer.subscription = None

    def _subscribe(self, topic: str, offer: _Offer) -> Subscription:
        def show(message: bytes) -> None:
            offer.channel.log(message, log_time=self._node.get_clock().now().nanoseconds)

        return self._node.create_subscription(_message_class(offer.kind), topic, show, self._profile(topic), raw=True)

    def _profile(self, topic: str) -> QoSProfile:
        """As much as every publisher of the topic offers, and no more."""
        offered = [info.qos_profile for info in self._node.get_publishers_info_by_topic(topic)]
        reliable = bool(offered) and all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
        latched = bool(offered) and all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
        return TopicQos(
            "reliable" if reliable else "best_effort",
            "transient_local" if latched else "volatile",
            LATCHED_DEPTH if latched else DEPTH,
        ).profile()

    def _withdraw(self, topic: str) -> None:
        offer = self._offers.pop(topic)
        offer.viewers.clear()
        self._follow(topic, offer)
        offer.channel.close()


def _message_class(kind: str) -> Any:  # noqa: ANN401 (message classes have no common base)
    package, _, name = kind.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None
