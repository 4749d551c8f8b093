"""What is published for one camera: mask, confidence and, while somebody looks, the overlay."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from ssada_core.data.encodings import encode_jpeg
from ssada_core.data.samples import Array
from ssada_core.evaluation.overlay import overlay
from ssada_core.inference.engine import Prediction
from ssada_ros.conversions import fill_compressed, fill_image, string_message
from ssada_ros.qos import Reliability, latest_profile, reliable_profile

OVERLAY_JPEG_QUALITY = 80
TIMING_DEPTH = 100
"""Timings that wait for a slow reader: some seconds of them."""


class CameraOutput:
    """Publishers of one camera, used by the inference thread alone; message objects and their memory are reused."""

    def __init__(self, node: Node, name: str, *, mask_reliability: Reliability, undo: ExitStack) -> None:
        """Create the publishers; ``undo`` destroys them."""
        profile = latest_profile(reliability=mask_reliability)
        self._mask = _publisher(node, Image, f"~/{name}/mask", profile, undo)
        self._confidence = _publisher(node, Image, f"~/{name}/confidence", profile, undo)
        self._overlay = _publisher(node, Image, f"~/{name}/overlay", profile, undo)
        self._overlay_jpeg = _publisher(node, CompressedImage, f"~/{name}/overlay/compressed", profile, undo)
        self._timing = _publisher(node, String, f"~/{name}/timing", reliable_profile(depth=TIMING_DEPTH), undo)
        # One per size: a message that is filled with the size it has keeps its memory.
        self._plane, self._picture, self._jpeg = Image(), Image(), CompressedImage()

    def publish(self, prediction: Prediction, header: Header) -> None:
        """Publish mask and, while somebody subscribes, confidence, with the frame's own header."""
        self._mask.publish(fill_image(self._plane, prediction.label, "mono8", header))
        if self._confidence.get_subscription_count():
            self._confidence.publish(fill_image(self._plane, prediction.confidence, "mono8", header))

    def timing_is_wanted(self) -> bool:
        """Whether somebody reads the times of single frames."""
        return bool(self._timing.get_subscription_count())

    def publish_timing(self, times: Mapping[str, object]) -> None:
        """Publish when a frame came, what the engine took and when its mask left, by the monotonic clock."""
        self._timing.publish(string_message(times))

    def publish_overlay(
        self, frame: Array, prediction: Prediction, palette: Array, header: Header, opacity: float
    ) -> None:
        """Publish the overlay in the forms that somebody subscribes to; costs nothing otherwise.

        Args:
            frame: uint8 H×W×3 BGR.
            prediction: of this frame.
            palette: uint8 256×3 BGR.
            header: the frame's own.
            opacity: of the colours, 0 to 1.
        """
        raw, compressed = self._overlay.get_subscription_count(), self._overlay_jpeg.get_subscription_count()
        if not raw and not compressed:
            return
        blended = overlay(frame, prediction.label, palette, opacity=opacity)
        if raw:
            self._overlay.publish(fill_image(self._picture, blended, "bgr8", header))
        if compressed:
            jpeg = encode_jpeg(blended, quality=OVERLAY_JPEG_QUALITY)
            self._overlay_jpeg.publish(fill_compressed(self._jpeg, jpeg, "jpeg", header))


def _publisher(node: Node, kind: Any, topic: str, profile: QoSProfile, undo: ExitStack) -> Publisher:  # noqa: ANN401
    publisher = node.create_publisher(kind, topic, profile)
    undo.callback(node.destroy_publisher, publisher)
    return publisher
