"""What is published for one camera: mask, confidence, calibration and, while somebody looks, the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header, String

from ssada_core.data.encodings import encode_jpeg
from ssada_core.data.samples import Array
from ssada_core.evaluation.overlay import colorize, overlay
from ssada_ros.conversions import fill_compressed, fill_image, string_message
from ssada_ros.qos import latest_profile, publisher_events, reliable_profile
from ssada_ros.segmentation_settings import SegmentationSettings

OVERLAY_JPEG_QUALITY = 80
TIMING_DEPTH = 100
"""Timings that wait for a slow reader: some seconds of them."""


class CameraOutput:
    """Publishers of one camera, used by the inference thread alone; message objects and their memory are reused."""

    def __init__(self, node: Node, name: str, settings: SegmentationSettings, undo: ExitStack) -> None:
        """Create the publishers; ``undo`` destroys them."""
        profile = latest_profile(
            reliability=settings.mask_reliability, durability=settings.mask_durability, depth=settings.mask_depth
        )

        def create(kind: Any, what: str) -> Publisher:  # noqa: ANN401 (message classes have no common base)
            topic = f"~/{name}/{what}"
            publisher = node.create_publisher(
                kind, topic, profile, event_callbacks=publisher_events(node, topic, "mask")
            )
            undo.callback(node.destroy_publisher, publisher)
            return publisher

        self._mask, self._confidence = create(Image, "mask"), create(Image, "confidence")
        self._info = create(CameraInfo, "camera_info")
        self._color = create(Image, "color")
        self._overlay, self._overlay_jpeg = create(Image, "overlay"), create(CompressedImage, "overlay/compressed")
        self._timing = node.create_publisher(String, f"~/{name}/timing", reliable_profile(depth=TIMING_DEPTH))
        undo.callback(node.destroy_publisher, self._timing)
        # One per size: a message that is filled with the size it has keeps its memory.
        self._plane, self._colors, self._picture, self._jpeg = Image(), Image(), Image(), CompressedImage()

    def info_is_wanted(self) -> bool:
        """Whether somebody reads the calibration."""
        return bool(self._info.get_subscription_count())

    def publish(self, label: Array, confidence: Array, header: Header) -> None:
        """Publish mask and, while somebody subscribes, confidence, with the frame's own header.

        Args:
            label: class ids, uint8 H×W.
            confidence: uint8 H×W.
            header: the frame's own.
        """
        self._mask.publish(fill_image(self._plane, label, "mono8", header))
        if self._confidence.get_subscription_count():
            self._confidence.publish(fill_image(self._plane, confidence, "mono8", header))

    def timing_is_wanted(self) -> bool:
        """Whether somebody reads the times of single frames."""
        return bool(self._timing.get_subscription_count())

    def publish_timing(self, times: Mapping[str, object]) -> None:
        """Publish when a frame came, what the engine took and when its mask left, by the monotonic clock."""
        self._timing.publish(string_message(times))

    def publish_info(self, info: CameraInfo, header: Header) -> None:
        """Publish the mask's calibration with the frame's own header."""
        info.header = header
        self._info.publish(info)

    def publish_pictures(self, frame: Array, label: Array, palette: Array, header: Header, opacity: float) -> None:
        """Publish coloured mask and overlay in the forms that somebody subscribes to; costs nothing otherwise.

        Args:
            frame: what the label shows, uint8 H×W×3 BGR; of another size, the label is enlarged over it.
            label: class ids, uint8 H×W.
            palette: uint8 256×3 BGR.
            header: the frame's own.
            opacity: of the colours, 0 to 1.
        """
        if self._color.get_subscription_count():
            self._color.publish(fill_image(self._colors, colorize(label, palette), "bgr8", header))
        raw, compressed = self._overlay.get_subscription_count(), self._overlay_jpeg.get_subscription_count()
        if not raw and not compressed:
            return
        blended = overlay(frame, label, palette, opacity=opacity, keep_unlabelled=True)
        if raw:
            self._overlay.publish(fill_image(self._picture, blended, "bgr8", header))
        if compressed:
            jpeg = encode_jpeg(blended, quality=OVERLAY_JPEG_QUALITY)
            self._overlay_jpeg.publish(fill_compressed(self._jpeg, jpeg, "jpeg", header))
