"""The demo's witness: an ordinary subscriber that counts what was published, what came back, and how good it was."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from ssada_core.data.encodings import decode_label, encode_png
from ssada_core.evaluation.metrics import confusion, miou
from ssada_ros.conversions import label_from_image, stamp_to_ns
from ssada_ros.qos import latched_profile, reliable_profile

LABELS_KEPT = 64
"""Ground-truth labels that wait for their mask: 12 s at 5 Hz."""


@dataclass(frozen=True)
class MaskRecord:
    """One mask: the frame's stamp, when it arrived (both ns of the system clock), and its agreement with the truth."""

    stamp_ns: int
    received_ns: int
    matrix: NDArray[np.int64] | None

    @property
    def latency_ms(self) -> float:
        """From the camera's stamp to the arrival of the mask in another process."""
        return (self.received_ns - self.stamp_ns) / 1e6


@dataclass
class DriveRecord:
    """Everything that was seen from outside."""

    published_ns: list[int] = field(default_factory=list)
    masks: list[MaskRecord] = field(default_factory=list)
    versions: list[tuple[str, int]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)

    def version_at(self, stamp_ns: int) -> str:
        """Model version that made the mask of a stamp, by the node's own ``~/model`` messages."""
        version = ""
        for candidate, first_stamp_ns in self.versions:
            if first_stamp_ns <= stamp_ns:
                version = candidate
        return version

    def live_miou(self, last: int) -> dict[str, float]:
        """Live mIoU in percent by model version, each over the last masks it made of frames with ground truth."""
        known = [(self.version_at(mask.stamp_ns), mask.matrix) for mask in self.masks if mask.matrix is not None]
        result = {}
        for version in dict.fromkeys(version for version, _ in known):
            matrices = [matrix for name, matrix in known if name == version]
            result[version] = miou(np.sum(matrices[-last:], axis=0))
        return result


class DemoMonitor(Node):
    """Subscribes to the topics of camera, segmentation and adaptation. Callbacks run in the spinning thread."""

    def __init__(self, num_classes: int) -> None:
        super().__init__("demo_monitor")
        self._num_classes = num_classes
        self._labels: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._record = DriveRecord()
        frames = reliable_profile(depth=50)
        self.create_subscription(CameraInfo, "camera/camera_info", self._on_published, frames)
        self.create_subscription(Image, "camera/label", self._on_label, frames)
        self.create_subscription(Image, "segmentation_node/camera/mask", self._on_mask, frames)
        self.create_subscription(String, "segmentation_node/model", self._on_model, latched_profile())
        self.create_subscription(String, "adaptation_node/status", self._on_status, latched_profile())

    def record(self) -> DriveRecord:
        """A copy of what was seen so far; safe from any thread."""
        with self._lock:
            record = self._record
            return DriveRecord(
                list(record.published_ns), list(record.masks), list(record.versions), dict(record.status)
            )

    def _on_published(self, message: CameraInfo) -> None:
        with self._lock:
            self._record.published_ns.append(stamp_to_ns(message.header.stamp))

    def _on_label(self, message: Image) -> None:
        self._labels[stamp_to_ns(message.header.stamp)] = encode_png(label_from_image(message))
        if len(self._labels) > LABELS_KEPT:
            self._labels.popitem(last=False)

    def _on_mask(self, message: Image) -> None:
        received_ns = self.get_clock().now().nanoseconds
        stamp_ns = stamp_to_ns(message.header.stamp)
        png = self._labels.pop(stamp_ns, None)
        matrix = None
        if png is not None:
            matrix = confusion(label_from_image(message), decode_label(png), self._num_classes)
        with self._lock:
            self._record.masks.append(MaskRecord(stamp_ns, received_ns, matrix))

    def _on_model(self, message: String) -> None:
        content = json.loads(message.data)
        stamps: Mapping[str, int] = content["first_stamp_ns"]
        with self._lock:
            self._record.versions.append((str(content["version"]), min(stamps.values())))

    def _on_status(self, message: String) -> None:
        with self._lock:
            self._record.status = json.loads(message.data)
