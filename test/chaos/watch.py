"""What can be seen of the vehicle from outside: frames, masks, queries, answers, states."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ssada_ros.conversions import json_of, label_from_image, stamp_to_ns
from ssada_ros.qos import latched_profile, query_profile, reliable_profile


@dataclass
class Seen:
    """Everything that came, with the time at which it came (steady clock, seconds)."""

    frames: dict[int, float] = field(default_factory=dict)
    masks: dict[int, float] = field(default_factory=dict)
    truth: dict[int, np.ndarray] = field(default_factory=dict)
    queries: dict[str, int] = field(default_factory=dict)
    results: list[dict[str, str]] = field(default_factory=list)
    status: dict[str, object] = field(default_factory=dict)
    status_at: float = 0.0
    versions: list[str] = field(default_factory=list)


class Watch:
    """A node in a thread of its own that notes what comes."""

    def __init__(self) -> None:
        rclpy.init(args=[])
        self.node = rclpy.create_node("chaos")
        self.seen = Seen()
        self._subscribe(Image, "camera/label", self._on_label, reliable_profile(depth=50))
        self._subscribe(Image, "segmentation_node/camera/mask", self._on_mask, reliable_profile(depth=50))
        self._subscribe(Image, "ssada/query", self._on_query, query_profile(depth=2000))
        self._subscribe(String, "ssada/annotation_result", self._on_result, reliable_profile(depth=100))
        self._subscribe(String, "adaptation_node/status", self._on_status, latched_profile())
        self._subscribe(String, "segmentation_node/model", self._on_model, latched_profile())
        self.answers = self.node.create_publisher(Image, "ssada/annotation", reliable_profile(depth=100))
        self.camera = self.node.create_publisher(Image, "camera/image", reliable_profile(depth=5))
        self.promoted = self.node.create_publisher(String, "ssada/promoted", latched_profile())
        self._thread = threading.Thread(target=self._spin, name="watch", daemon=True)
        self._thread.start()

    def _subscribe(self, kind, topic, callback, profile) -> None:
        self.node.create_subscription(kind, topic, callback, profile)

    def _spin(self) -> None:
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        with suppress(ExternalShutdownException):
            executor.spin()

    def close(self) -> None:
        rclpy.try_shutdown()
        self._thread.join(10)

    def last_mask(self) -> float:
        return max(self.seen.masks.values(), default=0.0)

    # -- what comes ------------------------------------------------------------------------------

    def _on_label(self, message: Image) -> None:
        stamp = stamp_to_ns(message.header.stamp)
        self.seen.truth[stamp] = label_from_image(message).copy()
        self.seen.frames[stamp] = time.monotonic()

    def _on_mask(self, message: Image) -> None:
        self.seen.masks.setdefault(stamp_to_ns(message.header.stamp), time.monotonic())

    def _on_query(self, message: Image) -> None:
        self.seen.queries[message.header.frame_id] = stamp_to_ns(message.header.stamp)

    def _on_result(self, message: String) -> None:
        self.seen.results.append(json_of(message))

    def _on_status(self, message: String) -> None:
        self.seen.status, self.seen.status_at = json.loads(message.data), time.monotonic()

    def _on_model(self, message: String) -> None:
        version = str(json_of(message).get("version", ""))
        if version and self.seen.versions[-1:] != [version]:
            self.seen.versions.append(version)
