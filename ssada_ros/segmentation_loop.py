"""The work of the inference thread: latest frame in, mask out, model exchanged in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from std_msgs.msg import Header

from ssada_core.data.samples import Array
from ssada_core.errors import BackendError, SsadaError
from ssada_core.inference.engine import Prediction
from ssada_core.labels import IGNORE
from ssada_ros.backend_watch import BackendWatch
from ssada_ros.camera_info import InfoFollower, View, scaled_info
from ssada_ros.camera_output import CameraOutput
from ssada_ros.cameras import MIB, Camera, decode
from ssada_ros.conversions import stamp_to_ns
from ssada_ros.mailbox import Delivery, FrameMailbox
from ssada_ros.model_slot import LoadedModel, ModelSlot
from ssada_ros.regions import WHOLE
from ssada_ros.segmentation_settings import SegmentationSettings
from ssada_ros.statistics import StampWatch, TimingWindow

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
        info: its calibration, while the node is active.
        timing: latency from arrival in the node to the published mask.
        stamps: whether its stamps go on.
        errors: frames that could not be used, by reason.
        error_count: all of them.
        last_error: the newest reason; empty before the first.
        version: of the model that made its last mask; empty before the first.
        format: what its last frame was, such as ``bgr8 640x480``; empty before the first.
        info_misfit: what its calibration is for, where that is not what its frames are.
    """

    camera: Camera
    output: CameraOutput
    info: InfoFollower | None = None
    timing: TimingWindow = field(default_factory=TimingWindow)
    stamps: StampWatch = field(default_factory=StampWatch)
    errors: dict[str, int] = field(default_factory=dict)
    error_count: int = 0
    last_error: str = ""
    version: str = ""
    format: str = ""
    info_misfit: str = ""


class SegmentationLoop:
    """Runs until :meth:`stop`. Frames that cannot be used are counted and said once a reason; the loop goes on."""

    def __init__(
        self,
        mailbox: FrameMailbox,
        channels: Mapping[str, CameraChannel],
        slot: ModelSlot,
        *,
        settings: Callable[[], SegmentationSettings],
        on_first_mask: Callable[[str, int, LoadedModel], None],
        log_warning: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            mailbox: where the frames come from.
            channels: by the camera's name.
            slot: where the model comes from.
            settings: those in force; read with every frame.
            on_first_mask: called with camera, stamp in nanoseconds and model before a camera's first mask by a model.
            log_warning: gets one line for each new reason why a frame was skipped.
        """
        self._mailbox = mailbox
        self._channels = channels
        self._slot = slot
        self._settings = settings
        self._on_first_mask = on_first_mask
        self._log_warning = log_warning
        self._stopping = threading.Event()
        self._backend = BackendWatch()

    def stop(self) -> None:
        """Have :meth:`run` return after the frame at hand."""
        self._stopping.set()
        self._mailbox.close()

    def run(self) -> None:
        """Serve frames; in a thread of its own.

        Raises:
            BackendError: if the backend is gone; in a new process it may be there again, or another one.
        """
        while not self._stopping.is_set():
            delivery = self._mailbox.take(WAIT_S)
            model = self._slot.current()
            if delivery is not None:
                self._serve(self._channels[delivery.camera], delivery, model)

    def _serve(self, channel: CameraChannel, delivery: Delivery, model: LoadedModel) -> None:
        settings, region = self._settings(), channel.camera.region
        try:
            message, frame = decode(
                delivery.message, compressed=delivery.compressed, max_bytes=settings.max_message_mib * MIB
            )
            part = region.crop(frame)
            (prediction,) = model.engine.infer([part])
        except SsadaError as error:
            self._count_error(channel, error)
            if isinstance(error, BackendError) and self._backend.failed(time.monotonic()):
                raise
            return
        self._backend.worked()
        header, size = message.header, (frame.shape[0], frame.shape[1])
        channel.format = f"{message.format if delivery.compressed else message.encoding} {size[1]}x{size[0]}"
        stamp_ns = stamp_to_ns(header.stamp)
        channel.stamps.add(stamp_ns, delivery.received_ns)
        label = thresholded(prediction, settings.confidence_threshold)
        confidence = prediction.confidence
        placed = settings.engine.output_size == "frame"
        if placed:
            label, confidence = region.place(label, size, IGNORE), region.place(confidence, size, 0)
            part = frame
        if channel.version != model.version:
            channel.version = model.version
            self._on_first_mask(channel.camera.name, stamp_ns, model)
        channel.output.publish(label, confidence, header)
        self._note_times(channel, delivery, stamp_ns, round(1e9 * prediction.engine_s), model.version)
        region_shown = WHOLE if placed else region
        self._publish_info(channel, header, View.of(region_shown, size, (label.shape[0], label.shape[1])))
        channel.output.publish_pictures(part, label, model.palette, header, settings.overlay_opacity)

    def _note_times(
        self, channel: CameraChannel, delivery: Delivery, stamp_ns: int, engine_ns: int, version: str
    ) -> None:
        published_ns = time.monotonic_ns()
        channel.timing.add(delivery.received_ns, published_ns, engine_ns)
        if not channel.output.timing_is_wanted():
            return
        counts = self._mailbox.counts(delivery.camera)
        channel.output.publish_timing(
            {
                "stamp_ns": stamp_ns,
                "received_ns": delivery.received_ns,
                "engine_ns": engine_ns,
                "published_ns": published_ns,
                "version": version,
                "received": counts.received,
                "dropped": counts.dropped,
            }
        )

    def _publish_info(self, channel: CameraChannel, header: Header, view: View) -> None:
        info = channel.info.newest() if channel.info is not None and channel.output.info_is_wanted() else None
        if info is None:
            return
        scaled = scaled_info(info, view)
        channel.info_misfit = "" if scaled else f"camera_info is for {info.width}x{info.height}"
        if scaled is not None:
            channel.output.publish_info(scaled, header)

    def _count_error(self, channel: CameraChannel, error: SsadaError) -> None:
        channel.last_error = reason = str(error)
        channel.error_count += 1
        if reason not in channel.errors and len(channel.errors) >= MAX_REASONS:
            reason = "other reasons"
        if reason not in channel.errors:
            self._log_warning(f"{channel.camera.topic}: frame skipped: {reason}")
        channel.errors[reason] = channel.errors.get(reason, 0) + 1


def thresholded(prediction: Prediction, threshold: float) -> Array:
    """The label, uint8 H×W, with 255 where the confidence (0 to 1) is below ``threshold``."""
    if threshold <= 0.0:
        return prediction.label
    return np.where(prediction.confidence < threshold * 255.0, np.uint8(IGNORE), prediction.label)
