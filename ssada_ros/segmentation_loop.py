"""The work of the inference thread: latest frame in, mask out, model exchanged in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ssada_core.errors import SsadaError
from ssada_ros.camera_output import CameraOutput
from ssada_ros.cameras import Camera, decode
from ssada_ros.conversions import stamp_to_ns
from ssada_ros.mailbox import Delivery, FrameMailbox
from ssada_ros.model_slot import LoadedModel, ModelSlot
from ssada_ros.statistics import TimingWindow

WAIT_S = 0.2
"""How long the thread sleeps at most before it looks whether it should end or exchange the model."""


MAX_REASONS = 50
"""Different errors that are remembered per camera; a broken driver can invent a new one with every frame."""


@dataclass
class CameraChannel:
    """One camera on its way through the node.

    Attributes:
        camera: its topic and type.
        output: where its masks go.
        timing: latency from arrival in the node to the published mask.
        errors: frames that could not be used, by reason.
        error_count: all of them.
        last_error: the newest reason; empty before the first.
        version: of the model that made its last mask; empty before the first.
    """

    camera: Camera
    output: CameraOutput
    timing: TimingWindow = field(default_factory=TimingWindow)
    errors: dict[str, int] = field(default_factory=dict)
    error_count: int = 0
    last_error: str = ""
    version: str = ""


class SegmentationLoop:
    """Runs until :meth:`stop`. Frames that cannot be used are counted and said once a reason; the loop goes on."""

    def __init__(
        self,
        mailbox: FrameMailbox,
        channels: Mapping[str, CameraChannel],
        slot: ModelSlot,
        *,
        opacity: Callable[[], float],
        on_first_mask: Callable[[str, int, LoadedModel], None],
        log_warning: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            mailbox: where the frames come from.
            channels: by the camera's name.
            slot: where the model comes from.
            opacity: of the overlay's colours.
            on_first_mask: called with camera, stamp in nanoseconds and model before a camera's first mask by a model.
            log_warning: gets one line for each new reason why a frame was skipped.
        """
        self._mailbox = mailbox
        self._channels = channels
        self._slot = slot
        self._opacity = opacity
        self._on_first_mask = on_first_mask
        self._log_warning = log_warning
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Have :meth:`run` return after the frame at hand."""
        self._stopping.set()
        self._mailbox.close()

    def run(self) -> None:
        """Serve frames; in a thread of its own."""
        while not self._stopping.is_set():
            delivery = self._mailbox.take(WAIT_S)
            model = self._slot.current()
            if delivery is not None:
                self._serve(self._channels[delivery.camera], delivery, model)

    def _serve(self, channel: CameraChannel, delivery: Delivery, model: LoadedModel) -> None:
        try:
            message, frame = decode(delivery.message, compressed=channel.camera.compressed)
            (prediction,) = model.engine.infer([frame])
        except SsadaError as error:
            self._count_error(channel, error)
            return
        if channel.version != model.version:
            channel.version = model.version
            self._on_first_mask(channel.camera.name, stamp_to_ns(message.header.stamp), model)
        channel.output.publish(prediction, message.header)
        published_ns, engine_ns = time.monotonic_ns(), round(1e9 * prediction.engine_s)
        channel.timing.add(delivery.received_ns, published_ns, engine_ns)
        if channel.output.timing_is_wanted():
            counts = self._mailbox.counts(delivery.camera)
            channel.output.publish_timing(
                {
                    "stamp_ns": stamp_to_ns(message.header.stamp),
                    "received_ns": delivery.received_ns,
                    "engine_ns": engine_ns,
                    "published_ns": published_ns,
                    "version": model.version,
                    "received": counts.received,
                    "dropped": counts.dropped,
                }
            )
        channel.output.publish_overlay(frame, prediction, model.palette, message.header, self._opacity())

    def _count_error(self, channel: CameraChannel, error: SsadaError) -> None:
        channel.last_error = reason = str(error)
        channel.error_count += 1
        if reason not in channel.errors and len(channel.errors) >= MAX_REASONS:
            reason = "other reasons"
        if reason not in channel.errors:
            self._log_warning(f"{channel.camera.topic}: frame skipped: {reason}")
        channel.errors[reason] = channel.errors.get(reason, 0) + 1
