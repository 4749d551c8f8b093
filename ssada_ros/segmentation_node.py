"""``segmentation_node``: camera topics in, masks out, models exchanged between two frames (lifecycle node)."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState
from std_msgs.msg import String

from ssada_core.errors import ConfigError, EncodingError, ModelError
from ssada_core.store.models import is_pinned
from ssada_core.store.registry import CURRENT_FILE, ModelRegistry
from ssada_ros import diagnostics
from ssada_ros.camera_info import InfoFollower
from ssada_ros.camera_input import LOOK_PERIOD_S, CameraInput
from ssada_ros.camera_output import CameraOutput
from ssada_ros.cameras import Camera, list_cameras
from ssada_ros.conversions import json_of, string_message
from ssada_ros.label_topics import LabelTopics
from ssada_ros.lifecycle import ManagedNode, run_node
from ssada_ros.mailbox import FrameMailbox
from ssada_ros.model_slot import LoadedModel, ModelSlot, load_model, open_model
from ssada_ros.node_thread import NodeThread
from ssada_ros.parameters import declare_settings, follow_settings
from ssada_ros.qos import describe_camera_topics, latched_profile, reliable_profile
from ssada_ros.segmentation_loop import CameraChannel, SegmentationLoop
from ssada_ros.segmentation_settings import DYNAMIC, SegmentationSettings, weights_of
from ssada_ros.segmentation_status import CameraWatch, failure_status, model_status

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
        self._inputs: dict[str, CameraInput] = {}
        self._announced: tuple[str, dict[str, int]] = ("", {})
        self._active_since_ns = 0

    # -- transitions ---------------------------------------------------------------------------

    def configure(self, _state: LifecycleState) -> None:
        """Load the model and create every publisher."""
        settings = self.settings
        cameras = list_cameras(settings.cameras, settings.camera_names, settings.transport, settings.regions)
        weights_of(list(cameras), settings.camera_weights)
        with ExitStack() as undo:
            slot = self._open_slot(undo)
            self._create_topics(undo)
            for name, camera in cameras.items():
                self._add_camera(name, camera, undo)
            self._label_topics.publish(slot.model.label_space)
            self._follow_promotions(undo)
            self._undo_configure = undo.pop_all()
        engine, topics = slot.model.engine, ", ".join(camera.topic for camera in cameras.values())
        self.get_logger().info(f"model {slot.version} on {engine.backend} {engine.precision}, cameras: {topics}")

    def activate(self, _state: LifecycleState) -> None:
        """Start the inference thread, then subscribe."""
        with ExitStack() as undo:
            mailbox = self._start_inference(self._configured_slot(), undo)
            self._subscribe(mailbox, undo)
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
        logger, settings = self.get_logger(), self.settings
        self._model_dir, model, trouble = open_model(settings.model, settings.engine, logger.info, settings.trusted_key)
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
        channel = self._channels[name] = CameraChannel(camera, CameraOutput(self, name, self.settings, undo))
        undo.callback(self._channels.pop, name)
        self._watches[name] = CameraWatch(diagnostics.node_name(self), channel)
        undo.callback(self._watches.pop, name)

    def _start_inference(self, slot: ModelSlot, undo: ExitStack) -> FrameMailbox:
        mailbox = FrameMailbox(list(self._channels))
        self._direct(mailbox, self.settings)
        loop = SegmentationLoop(
            mailbox,
            self._channels,
            slot,
            settings=lambda: self.settings,
            on_first_mask=self._on_first_mask,
            log_warning=self.get_logger().warning,
        )
        thread = NodeThread(self, "inference", loop.run, self._on_thread_failure)
        undo.callback(thread.join)
        undo.callback(loop.stop)
        return mailbox

    def _apply(self, settings: SegmentationSettings) -> None:
        """Take over changed parameters; the inference thread reads its own with every frame."""
        weights_of(settings.cameras, settings.camera_weights)
        if self._mailbox is not None:
            self._direct(self._mailbox, settings)
        self.settings = settings

    def _direct(self, mailbox: FrameMailbox, settings: SegmentationSettings) -> None:
        mailbox.set_rate(settings.rate)
        mailbox.set_weights(weights_of(list(self._channels), settings.camera_weights))

    # -- frames ----------------------------------------------------------------------------------

    def _subscribe(self, mailbox: FrameMailbox, undo: ExitStack) -> None:
        for name, channel in self._channels.items():
            channel.info = InfoFollower(self, channel.camera.info_topic, undo)
            undo.callback(setattr, channel, "info", None)
            self._inputs[name] = CameraInput(self, channel.camera, self.settings, mailbox.put)
            undo.callback(self._unsubscribe, name)
            self._watches[name].begin()
        timer = self.create_timer(LOOK_PERIOD_S, self._look, clock=self._steady)
        undo.callback(self.destroy_timer, timer)

    def _unsubscribe(self, name: str) -> None:
        self._inputs.pop(name).close()

    def _look(self) -> None:
        """Publishers come and go, and come back as something else."""
        for one in self._inputs.values():
            one.look()

    # -- model -----------------------------------------------------------------------------------

    def _follow_promotions(self, undo: ExitStack) -> None:
        if not self.settings.follow_promotions:
            return
        if is_pinned(self.settings.model):
            self.get_logger().info(f"model {self.settings.model} is pinned: promotions are not followed")
            return
        follow = self.create_subscription(String, "ssada/promoted", self._on_promoted, latched_profile())
        undo.callback(self.destroy_subscription, follow)

    def _load_version(self, version: str) -> LoadedModel:
        # Only versions of the registry that this node was started with: a message names no path.
        folder: Path = self._model_dir.parent
        if not (folder / CURRENT_FILE).is_file():
            raise ModelError(f"{self._model_dir} is in no registry: set the parameter 'model' to the registry's folder")
        path, settings = ModelRegistry(folder).path(version), self.settings
        return load_model(path, settings.engine, self.get_logger().info, settings.trusted_key)

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
        statuses = [model_status(diagnostics.node_name(self), self._configured_slot())]
        statuses += [self._camera_status(name) for name in self._channels]
        self._diagnostics.publish(diagnostics.diagnostic_array(self, statuses))

    def _camera_status(self, name: str) -> DiagnosticStatus:
        watch, source, since_ns = self._watches[name], self._inputs.get(name), self._active_since_ns
        counts = self._mailbox.counts(name) if self._mailbox is not None else None
        was_silent = watch.silent_s > 0
        topics = ""
        if watch.is_silent(counts, since_ns, self.settings) and source is not None:
            topics = describe_camera_topics(self, source.source.topic)
        status = watch.status(counts, source, since_ns, self.settings, topics)
        if watch.silent_s and not was_silent and source is not None and not source.complaint:
            self.get_logger().warning(status.message)
        elif was_silent and counts is not None and not watch.silent_s:
            self.get_logger().info(f"{name}: frames come again")
        return status

    def _on_thread_failure(self, failure: Exception) -> None:
        """Say it where it is looked for; then the process ends with the traceback."""
        status = failure_status(diagnostics.node_name(self), failure)
        self._diagnostics.publish(diagnostics.diagnostic_array(self, [status]))
        self._diagnostics.wait_for_all_acked(Duration(seconds=LAST_WORDS_S))


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    return run_node(SegmentationNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
