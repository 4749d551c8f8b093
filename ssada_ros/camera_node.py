"""``camera_node``: a camera for those who have none at hand — a simulated drive, images, a video, a bag, a device.

Stamps are honest: the node's clock, read when the finished frame is handed to the middleware. Recorded and rendered
sources are therefore read one frame ahead, in the idle time after a frame was published; a device is read when its
frame is due, because its picture ages.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ssada_core.data.encodings import encode_jpeg
from ssada_core.data.frame_sources import DeviceSource, FrameSource, SimulatedSource, open_source
from ssada_core.data.samples import Array
from ssada_core.errors import ConfigError
from ssada_core.labels import load_label_space
from ssada_ros import diagnostics
from ssada_ros.camera_settings import CameraSettings
from ssada_ros.conversions import fill_compressed, fill_image
from ssada_ros.lifecycle import ManagedNode, run_node
from ssada_ros.parameters import declare_settings, follow_settings
from ssada_ros.qos import camera_publisher_profile, reliable_profile

DYNAMIC = frozenset({"rate", "domain"})
DIAGNOSTICS_PERIOD_S = 1.0
SLOW_SHARE = 0.8
"""Below this share of the asked rate the diagnostics warn."""
LAST_FRAME_WAIT_S = 2.0
"""How long the node waits at the end for reliable subscribers to have everything."""


@dataclass(frozen=True)
class _Picture:
    """A frame as it will be published: rendered, decoded or encoded, everything but the stamp.

    Attributes:
        content: uint8 H×W×3 BGR, or JPEG bytes.
        size: height and width in pixels.
        label: class ids, uint8 H×W, or None.
        frame_id: of the header.
    """

    content: Array | bytes
    size: tuple[int, int]
    label: Array | None
    frame_id: str


class CameraNode(ManagedNode):
    """Publishes a source's frames at a rate, with a camera info and, where there is one, a label of the same header."""

    def __init__(self) -> None:
        super().__init__("camera_node")
        self.settings = declare_settings(self, CameraSettings, dynamic=DYNAMIC)
        self.autostart = self.settings.autostart
        follow_settings(self, self.settings, self._apply, dynamic=DYNAMIC)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # frames also come while simulated time stands
        self._source: FrameSource | None = None
        self._ahead: _Picture | None = None
        self._published = 0
        self._pace = _Pace()

    # -- transitions ---------------------------------------------------------------------------

    def configure(self, _state: LifecycleState) -> None:
        """Open the source, then create the publishers."""
        self._source = self._open()
        kind, topic = (CompressedImage, "/compressed") if self.settings.compressed else (Image, "")
        self._image = self.create_publisher(kind, f"camera/image{topic}", camera_publisher_profile())
        self._info = self.create_publisher(CameraInfo, "camera/camera_info", reliable_profile(depth=50))
        self._label: Publisher | None = None
        if self._source.has_labels and self.settings.publish_labels:
            self._label = self.create_publisher(Image, "camera/label", reliable_profile(depth=10))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", reliable_profile(depth=10))
        self._messages = (kind(), CameraInfo(), Image())
        self.get_logger().info(f"{self.settings.source} at {self.settings.rate:g} Hz on {self._image.topic_name}")

    def activate(self, _state: LifecycleState) -> None:
        """Start the clockwork."""
        self._not_before = time.monotonic() + self.settings.start_delay_s
        self._pace = _Pace()
        if not self._is_live:
            self._ahead = self._read()
        self._timer = self.create_timer(1.0 / self.settings.rate, self._tick, clock=self._steady)
        self._reporter = self.create_timer(DIAGNOSTICS_PERIOD_S, self._report, clock=self._steady)

    def deactivate(self, _state: LifecycleState) -> None:
        """Stop the clockwork."""
        self.destroy_timer(self._timer)
        self.destroy_timer(self._reporter)

    def cleanup(self, _state: LifecycleState) -> None:
        """Close the source and the publishers."""
        for publisher in (self._image, self._info, self._label, self._diagnostics):
            if publisher is not None:
                self.destroy_publisher(publisher)
        if self._source is not None:
            self._source.close()
        self._source = self._ahead = None

    # -- source --------------------------------------------------------------------------------

    @property
    def _is_live(self) -> bool:
        return isinstance(self._source, DeviceSource)

    def _open(self) -> FrameSource:
        settings = self.settings
        source = open_source(
            settings.source,
            loop=settings.loop,
            seed=settings.seed,
            size=(settings.height, settings.width),
            rate=settings.rate,
            label_space=load_label_space(settings.label_space),
            topic=settings.topic or None,
        )
        if settings.domain:
            _set_domain(source, settings)
        return source

    def _read(self) -> _Picture | None:
        frame = self._source.next() if self._source is not None else None
        if frame is None:
            return None
        content: Array | bytes
        if not self.settings.compressed:
            content = frame.decoded()
        elif frame.jpeg is not None:
            content = frame.jpeg
        else:
            content = encode_jpeg(frame.decoded(), self.settings.jpeg_quality)
        return _Picture(content, frame.size(), frame.label, frame.frame_id or self.settings.frame_id)

    def _apply(self, settings: CameraSettings) -> None:
        """Take over a changed parameter; what was read ahead is still shown, so a domain comes one frame later."""
        if self._source is not None and settings.domain != self.settings.domain:
            _set_domain(self._source, settings)
        active = self._state_machine.current_state[1] == "active"
        if active and settings.rate != self.settings.rate:
            self.destroy_timer(self._timer)
            self._timer = self.create_timer(1.0 / settings.rate, self._tick, clock=self._steady)
        self.settings = settings

    # -- frames --------------------------------------------------------------------------------

    def _tick(self) -> None:
        if not self._may_start():
            return
        picture = self._read() if self._is_live else self._ahead
        if picture is None or 0 < self.settings.limit <= self._published:
            self._end()
            return
        self._publish(picture)
        if not self._is_live:
            self._ahead = self._read()

    def _may_start(self) -> bool:
        if self._published:
            return True
        enough = self._image.get_subscription_count() >= self.settings.wait_for_subscribers
        return enough and time.monotonic() >= self._not_before

    def _publish(self, picture: _Picture) -> None:
        image, info, label = self._messages
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=picture.frame_id)
        if isinstance(picture.content, bytes):
            self._image.publish(fill_compressed(image, picture.content, "jpeg", header))
        else:
            self._image.publish(fill_image(image, picture.content, "bgr8", header))
        info.header, (info.height, info.width) = header, picture.size
        self._info.publish(info)
        if self._label is not None and picture.label is not None:
            self._label.publish(fill_image(label, picture.label, "mono8", header))
        self._published += 1
        self._pace.note(time.monotonic())

    def _end(self) -> None:
        self._timer.cancel()
        self.get_logger().info(f"{self.settings.source} ended after {self._published} frames")
        self._image.wait_for_all_acked(Duration(seconds=LAST_FRAME_WAIT_S))
        self.finish()

    # -- diagnostics ---------------------------------------------------------------------------

    def _report(self) -> None:
        rate, longest = self._pace.take(time.monotonic())
        level, words = self._judge(rate)
        values = {
            "source": self.settings.source,
            "frames": self._published,
            "rate_hz": rate,
            "asked_rate_hz": self.settings.rate,
            "longest_gap_ms": longest * 1e3,
            "subscribers": self._image.get_subscription_count(),
        }
        status = diagnostics.status(f"{diagnostics.node_name(self)}: camera", level, words, values)
        self._diagnostics.publish(diagnostics.diagnostic_array(self, [status]))

    def _judge(self, rate: float) -> tuple[bytes, str]:
        if not self._published:
            return DiagnosticStatus.OK, "waiting for the start delay or for subscribers"
        if rate < SLOW_SHARE * self.settings.rate - 1.0 / DIAGNOSTICS_PERIOD_S:
            return (
                DiagnosticStatus.WARN,
                f"{rate:.1f} of {self.settings.rate:g} Hz: the source or the machine is slow",
            )
        return DiagnosticStatus.OK, f"{rate:.1f} Hz"


class _Pace:
    """Rate and longest gap between two publications since they were last taken."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._since = time.monotonic()
        self._count = 0
        self._longest = 0.0

    def note(self, now: float) -> None:
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        self._count += 1

    def take(self, now: float) -> tuple[float, float]:
        """Hz and seconds; an interval that is still open counts as a gap."""
        longest = max(self._longest, now - self._last) if self._last is not None else 0.0
        rate = self._count / max(now - self._since, 1e-9)
        self._since, self._count, self._longest = now, 0, 0.0
        return rate, longest


def _set_domain(source: FrameSource, settings: CameraSettings) -> None:
    if not isinstance(source, SimulatedSource):
        raise ConfigError(f"domain '{settings.domain}' fits only the source 'sim', not '{settings.source}'")
    source.set_domain(settings.domain)


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted or its source ends; returns the exit status."""
    return run_node(CameraNode, args)


if __name__ == "__main__":
    sys.exit(main())
