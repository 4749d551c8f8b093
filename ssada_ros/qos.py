"""Quality of service: one profile per kind of topic, and sentences that say why nothing arrives.

A subscription and a publisher that do not fit are silent in ROS 2. Everything here exists so that the node
says instead which topic, which policy and which parameter to set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyEnum, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

Reliability = Literal["best_effort", "reliable"]
Durability = Literal["volatile", "transient_local"]

IMAGE_TYPES = {"sensor_msgs/msg/Image": "Image", "sensor_msgs/msg/CompressedImage": "CompressedImage"}
_POLICY_NAMES = {
    int(QoSPolicyKind.RELIABILITY): "reliability",
    int(QoSPolicyKind.DURABILITY): "durability",
    int(QoSPolicyKind.DEADLINE): "deadline",
    int(QoSPolicyKind.LIVELINESS): "liveliness",
}
_STRONGER = {int(QoSPolicyKind.RELIABILITY): "reliable", int(QoSPolicyKind.DURABILITY): "transient local"}
_WEAKER = {int(QoSPolicyKind.RELIABILITY): "best effort", int(QoSPolicyKind.DURABILITY): "volatile"}


@dataclass(frozen=True)
class TopicQos:
    """Reliability, durability and depth; the history is always "keep last"."""

    reliability: Reliability
    durability: Durability
    depth: int

    def profile(self) -> QoSProfile:
        """Return the profile that rclpy takes."""
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=self.depth,
            reliability=ReliabilityPolicy[self.reliability.upper()],
            durability=DurabilityPolicy[self.durability.upper()],
        )


def camera_profile(*, reliability: Reliability = "best_effort", depth: int = 1) -> QoSProfile:
    """What to subscribe to cameras with: by default the latest frame only, from publishers of either reliability."""
    return TopicQos(reliability, "volatile", depth).profile()


def camera_publisher_profile() -> QoSProfile:
    """What our cameras publish images with; it serves best-effort and reliable subscribers.

    Depth 2 lets the middleware repair the last frame while the next one is written. A reliable subscriber that is
    slower than the camera loses the oldest, because a keep-last writer overwrites instead of waiting.
    """
    return TopicQos("reliable", "volatile", 2).profile()


def latest_profile(
    *, reliability: Reliability = "reliable", durability: Durability = "volatile", depth: int = 1
) -> QoSProfile:
    """Masks, confidences and overlays: only the newest; offered as reliable it serves both kinds of subscriber."""
    return TopicQos(reliability, durability, depth).profile()


def latched_profile() -> QoSProfile:
    """The last message is also delivered to those who subscribe later."""
    return TopicQos("reliable", "transient_local", 1).profile()


def query_profile(*, depth: int) -> QoSProfile:
    """Queries: the last ``depth`` (the budget) are also delivered to annotators that start later."""
    return TopicQos("reliable", "transient_local", depth).profile()


def reliable_profile(*, depth: int = 10) -> QoSProfile:
    """Annotations, their results, flags, camera infos: nothing is lost up to ``depth``, nothing is kept for later."""
    return TopicQos("reliable", "volatile", depth).profile()


def explain_incompatible(topic: str, policy: int, *, prefix: str = "", subscribing: bool = True) -> str:
    """Say in one sentence why a publisher and a subscription do not connect, and what to set.

    Args:
        topic: the resolved topic name.
        policy: the number that an event carries in ``last_policy_kind``, a ``QoSPolicyKind``.
        prefix: of this node's parameters that decide reliability and durability, such as ``camera``; empty for none.
        subscribing: whether this node is the subscriber (else it publishes).
    """
    name = _POLICY_NAMES.get(policy, "quality of service")
    words = _WEAKER if subscribing else _STRONGER
    value = words.get(policy, "").replace(" ", "_")
    change = f"set the parameter '{prefix}_{name}' to {value}" if prefix and value else f"change the {name}"
    if subscribing:
        said = f"a publisher offers less {name} than this node asks for, so nothing is received from it"
        return f"{topic}: {said}: {change} or make that publisher {_STRONGER.get(policy, 'offer more')}"
    said = f"a subscriber asks for more {name} than this node offers, so nothing is sent to it"
    return f"{topic}: {said}: {change} or make that subscriber {_WEAKER.get(policy, 'ask for less')}"


def subscription_events(on_incompatible: Callable[[int], None]) -> SubscriptionEventCallbacks:
    """Event callbacks of a subscription; ``on_incompatible`` gets the policy of a publisher that does not fit."""

    def report(event: Any) -> None:  # noqa: ANN401 (its class is named differently from release to release)
        on_incompatible(int(event.last_policy_kind))

    return SubscriptionEventCallbacks(incompatible_qos=report)


def publisher_events(node: Node, topic: str, prefix: str) -> PublisherEventCallbacks:
    """Event callbacks of a publisher: an incompatible subscriber becomes one warning per policy.

    Args:
        node: the publishing node.
        topic: the name as given to ``create_publisher``.
        prefix: of the parameters that decide its reliability and durability, such as ``mask``.
    """
    resolved = node.resolve_topic_name(topic)
    said: set[int] = set()

    def report(event: Any) -> None:  # noqa: ANN401 (its class is named differently from release to release)
        policy = int(event.last_policy_kind)
        if policy not in said:
            said.add(policy)
            node.get_logger().warning(explain_incompatible(resolved, policy, prefix=prefix, subscribing=False))

    return PublisherEventCallbacks(incompatible_qos=report)


def incompatible_policies(offered: QoSProfile, asked: TopicQos) -> list[int]:
    """The policies of a publisher that do not satisfy a subscription, as ``QoSPolicyKind`` numbers.

    Only what the graph tells and this node can ask for: reliability and durability.
    """
    wrong = []
    if asked.reliability == "reliable" and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        wrong.append(int(QoSPolicyKind.RELIABILITY))
    if asked.durability == "transient_local" and offered.durability == DurabilityPolicy.VOLATILE:
        wrong.append(int(QoSPolicyKind.DURABILITY))
    return wrong


def describe_qos(profile: QoSProfile) -> str:
    """Name the two policies that decide whether a connection comes about, such as "reliable, volatile"."""
    return f"{_words(profile.reliability)}, {_words(profile.durability)}"


def describe_camera_topics(node: Node, topic: str | None = None) -> str:
    """List the image topics that have a publisher: name, type, and what it offers.

    Args:
        node: whose view of the graph is asked; what it publishes itself is left out.
        topic: the topic on which nothing arrives; it is then named first, with the reliability asked of it.
    """
    found = "; ".join(_image_topics(node)) or "none: is the camera running, and on the same ROS_DOMAIN_ID?"
    if topic is None:
        return found
    resolved = node.resolve_topic_name(topic)
    asked = [info.qos_profile for info in node.get_subscriptions_info_by_topic(resolved) if _is_of(node, info)]
    how = f" ({_words(asked[0].reliability)})" if asked else ""
    return f"{resolved}{how}: these image topics exist: {found}"


def _image_topics(node: Node) -> list[str]:
    lines = [
        f"{name} [{IMAGE_TYPES[info.topic_type]}, {describe_qos(info.qos_profile)}]"
        for name, kinds in sorted(node.get_topic_names_and_types())
        if not IMAGE_TYPES.keys().isdisjoint(kinds)
        for info in node.get_publishers_info_by_topic(name)
        if info.topic_type in IMAGE_TYPES and not _is_of(node, info)
    ]
    return list(dict.fromkeys(lines))


def _is_of(node: Node, info: TopicEndpointInfo) -> bool:
    return (info.node_name, info.node_namespace) == (node.get_name(), node.get_namespace())


def _words(policy: QoSPolicyEnum) -> str:
    return str(policy.name).lower().replace("_", " ")
