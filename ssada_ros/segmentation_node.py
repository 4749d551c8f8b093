"""``segmentation_node``: camera topics in, masks out, models exchanged between two frames (lifecycle node)."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState
from rclpy.subscription import Subscription
from std_msgs.msg import String

from ssada_core.errors import ConfigError, EncodingError, ModelError
from ssada_core.store.registry import CURRENT_FILE, ModelRegistry
from ssada_ros import diagnostics
from ssada_ros.camera_output import CameraOutput
from ssada_ros.cameras import Camera, list_cameras
from ssada_ros.conversions import json_of, string_message
from ssada_ros.label_topics import LabelTopics
from ssada_ros.lifecycle import ManagedNode, run_node
from ssada_ros.mailbox import Delivery, FrameMailbox
from ssada_ros.model_slot import LoadedModel, ModelSlot, load_model, open_model
from ssada_ros.node_thread import NodeThread
from ssada_ros.parameters import declare_settings, follow_settings
from ssada_ros.qos import (
    camera_profile,
    describe_camera_topics,
    incompatible_qos_callbacks,
    latched_profile,
    reliable_profile,
)
from ssada_ros.segmentation_loop import CameraChannel, SegmentationLoop
from ssada_ros.segmentation_settings import SegmentationSettings
from ssada_ros.segmentation_status import CameraWatch, failure_status, model_status

DYNAMIC = frozenset({"overlay_opacity"})
DIAGNOSTICS_PERIOD_S = 1.0
LAST_WORDS_S = 1.0
"""How long a node whose inference thread died waits for its last diagnostics to be received."""


class SegmentationNode(ManagedNode):
    """Lifecycle shell: parameters on construction, model on configure, frames while active.

    What a transition takes is on a stack of its own, so that what comes after a failure is what came before it.
    """

    def __init__(self) -> None:
        super().__init__("segmentation_node")
        self.settings = declare_settings(self, SegmentationSettings, dynamic=DYNAMIC)
        self.autostart = self.settings.autostart
        follow_settings(self, self.settings, self._apply, dynamic=DYNAMIC)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # diagnostics also come while simulated time stands
        self._undo_configure, self._undo_activate = ExitStack(), ExitStack()
        self._slot: ModelSlot | None = None
        self._mailbox: FrameMailbox | None = None
        self._channels: dict[str, CameraChannel] = {}
        self._watches: dict[str, CameraWatch] = {}
        self._announced: tuple[str, dict[str, int]] = ("", {})
        self._active_since_ns = 0

    # -- transitions ---------------------------------------------------------------------------

    def configure(self, _state: LifecycleState) -> None:
        """Load the model and create every publisher."""
        settings = self.settings
        cameras = list_cameras(settings.cameras, settings.camera_names, settings.transport)
        with ExitStack() as undo:
            slot = self._open_slot(undo)
            self._create_topics(undo)
            for name, camera in cameras.items():
                self._add_camera(name, camera, undo)
            self._label_topics.publish(slot.model.label_space)
            if settings.follow_promotions:
                follow = self.create_subscription(String, "ssada/promoted", self._on_promoted, latched_profile())
                undo.callback(self.destroy_subscription, follow)
            self._undo_configure = undo.pop_all()
        engine, topics = slot.model.engine, ", ".join(camera.topic for camera in cameras.values())
        self.get_logger().info(f"model {slot.version} on {engine.backend} {engine.precision}, cameras: {topics}")

    def activate(self, _state: LifecycleState) -> None:
        """Start the inference thread, then subscribe."""
        with ExitStack() as undo:
            mailbox = self._start_inference(self._configured_slot(), undo)
            for channel in self._channels.values():
                undo.callback(self.destroy_subscription, self._subscribe(channel.camera, mailbox))
            self._active_since_ns = time.monotonic_ns()
            self._mailbox = mailbox
            self._undo_activate = undo.pop_all()

    def deactivate(self, _state: LifecycleState) -> None:
        """Unsubscribe, then let the inference thread finish its frame."""
        self._mailbox = None
        self._undo_activate.close()

    def cleanup(self, _state: LifecycleState) -> None:
        """Free the model and every publisher."""
        self._undo_configure.close()

    def _open_slot(self, undo: ExitStack) -> ModelSlot:
        logger = self.get_logger()
        self._model_dir, model, trouble = open_model(self.settings.model, self.settings.engine, logger.info)
        if trouble:
            logger.error(trouble)
        slot = ModelSlot(model, self._load_version, logger.error, trouble)
        undo.callback(slot.close)
        undo.callback(setattr, self, "_slot", None)
        self._slot = slot
        return slot

    def _create_topics(self, undo: ExitStack) -> None:
        self._label_topics = LabelTopics(self, undo)
        self._model_topic = self.create_publisher(String, "~/model", latched_profile())
        undo.callback(self.destroy_publisher, self._model_topic)
        self._announced = ("", {})
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", reliable_profile(depth=10))
        undo.callback(self.destroy_publisher, self._diagnostics)
        timer = self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=self._steady)
        undo.callback(self.destroy_timer, timer)

    def _add_camera(self, name: str, camera: Camera, undo: ExitStack) -> None:
        output = CameraOutput(self, name, mask_reliability=self.settings.mask_reliability, undo=undo)
        channel = self._channels[name] = CameraChannel(camera, output)
        undo.callback(self._channels.pop, name)
        self._watches[name] = CameraWatch(self.get_name(), channel, silence_s=self.settings.silence_s)

    def _start_inference(self, slot: ModelSlot, undo: ExitStack) -> FrameMailbox:
        mailbox = FrameMailbox(list(self._channels))
        loop = SegmentationLoop(
            mailbox,
            self._channels,
            slot,
            opacity=lambda: self.settings.overlay_opacity,
            on_first_mask=self._on_first_mask,
            log_warning=self.get_logger().warning,
        )
        thread = NodeThread(self, "inference", loop.run, self._on_thread_failure)
        undo.callback(thread.join)
        undo.callback(loop.stop)
        return mailbox

    def _apply(self, settings: SegmentationSettings) -> None:
        self.settings = settings  # the inference thread reads it with every frame

    # -- frames ----------------------------------------------------------------------------------

    def _subscribe(self, camera: Camera, mailbox: FrameMailbox) -> Subscription:
        def store(message: bytes) -> None:
            mailbox.put(Delivery(camera.name, message, time.monotonic_ns()))

        return self.create_subscription(
            camera.message_type,
            camera.topic,
            store,
            camera_profile(reliability=self.settings.camera_reliability),
            raw=True,  # only the frame that is served is deserialised
            event_callbacks=incompatible_qos_callbacks(self, camera.topic, "camera_reliability"),
        )

    # -- model -----------------------------------------------------------------------------------

    def _load_version(self, version: str) -> LoadedModel:
        # Only versions of the registry that this node was started with: a message names no path.
        folder: Path = self._model_dir.parent
        if not (folder / CURRENT_FILE).is_file():
            raise ModelError(f"{self._model_dir} is in no registry: set the parameter 'model' to the registry's folder")
        return load_model(ModelRegistry(folder).path(version), self.settings.engine, self.get_logger().info)

    def _on_promoted(self, message: String) -> None:
        try:
            version = json_of(message).get("version")
        except EncodingError as error:
            self.get_logger().warning(f"ssada/promoted: {error}")
            return
        if not isinstance(version, str):
            self.get_logger().warning(f"ssada/promoted: no 'version' in {message.data[:80]!r}")
            return
        self._configured_slot().request(version)

    def _on_first_mask(self, camera: str, stamp_ns: int, model: LoadedModel) -> None:
        """In the inference thread, before a camera's first mask by a model."""
        self.get_logger().info(f"{camera}: masks by {model.version} from stamp {stamp_ns / 1e9:.3f}")
        version, stamps = self._announced
        if model.version != version:
            version, stamps = model.version, {}
            self._label_topics.publish(model.label_space)
        self._announced = (version, {**stamps, camera: stamp_ns})
        self._model_topic.publish(string_message({"version": version, "first_stamp_ns": self._announced[1]}))

    def _configured_slot(self) -> ModelSlot:
        if self._slot is None:
            raise ConfigError("segmentation_node is not configured: run its configure transition first")
        return self._slot

    # -- diagnostics -----------------------------------------------------------------------------

    def _publish_diagnostics(self) -> None:
        statuses = [model_status(self.get_name(), self._configured_slot())]
        statuses += [self._camera_status(name) for name in self._channels]
        self._diagnostics.publish(diagnostics.diagnostic_array(self, statuses))

    def _camera_status(self, name: str) -> DiagnosticStatus:
        watch = self._watches[name]
        counts = self._mailbox.counts(name) if self._mailbox is not None else None
        was_silent = watch.silent_s > 0
        topics = ""
        if watch.is_silent(counts, self._active_since_ns):
            topics = describe_camera_topics(self, self._channels[name].camera.topic)
        status = watch.status(counts, self._active_since_ns, topics)
        if watch.silent_s and not was_silent:
            self.get_logger().warning(status.message)
        elif was_silent and counts is not None and not watch.silent_s:
            self.get_logger().info(f"{name}: frames come again")
        return status

    def _on_thread_failure(self, failure: Exception) -> None:
        """Say it where it is looked for; then the process ends with the traceback."""
        status = failure_status(self.get_name(), failure)
        self._diagnostics.publish(diagnostics.diagnostic_array(self, [status]))
        self._diagnostics.wait_for_all_acked(Duration(seconds=LAST_WORDS_S))


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    return run_node(SegmentationNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
