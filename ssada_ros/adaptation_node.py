"""``adaptation_node``: frames in, queries out, labels in, promoted models out (lifecycle node).

A thin shell round :class:`ssada_core.adaptation.adapter.Adapter`. One thread does the work; callbacks only hand over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Empty, String
from std_srvs.srv import SetBool, Trigger

from ssada_core.adaptation.adapter import Adapter
from ssada_core.annotation.page_process import PageProcess
from ssada_core.annotation.submit import SubmitResult
from ssada_core.errors import ConfigError, DataError, SsadaError, StoreError
from ssada_core.store.pool import FrameRecord
from ssada_ros import diagnostics
from ssada_ros.adaptation_loop import AdaptationLoop, Answer
from ssada_ros.adaptation_settings import AdaptationNodeSettings
from ssada_ros.adaptation_status import adaptation_statuses, failure_status
from ssada_ros.camera_input import LOOK_PERIOD_S, CameraInput
from ssada_ros.cameras import MIB, Camera, list_cameras
from ssada_ros.conversions import fill_image, label_from_image, make_header, string_message
from ssada_ros.lifecycle import ManagedNode, run_node
from ssada_ros.mailbox import Delivery
from ssada_ros.neighbour import Neighbour
from ssada_ros.node_thread import NodeThread
from ssada_ros.parameters import declare_settings
from ssada_ros.pool_room import pool_room
from ssada_ros.qos import latched_profile, query_profile, reliable_profile

DIAGNOSTICS_PERIOD_S = 1.0
LEAST_DEPTH = 100
"""Labels and their results that wait at least before the middleware drops one: none may be lost in silence."""
LAST_WORDS_S = 1.0
"""How long a node whose working thread died waits for its last diagnostics to be received."""


class AdaptationNode(ManagedNode):
    """Lifecycle shell: stores on configure, frames and rounds while active.

    What a transition takes is on a stack of its own, so that what comes after a failure is what came before it.
    """

    def __init__(self) -> None:
        super().__init__("adaptation_node")
        self.settings = declare_settings(self, AdaptationNodeSettings)
        self.autostart = self.settings.autostart
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # diagnostics also come while simulated time stands
        self._undo_configure, self._undo_activate = ExitStack(), ExitStack()
        self._adapter: Adapter | None = None
        self._loop: AdaptationLoop | None = None
        self._neighbour: Neighbour | None = None
        self._cameras: dict[str, Camera] = {}
        self._said: set[str] = set()

    # -- transitions ---------------------------------------------------------------------------

    def configure(self, _state: LifecycleState) -> None:
        """Open pool and registry, create topics and services."""
        settings = self.settings
        os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), settings.nice))
        self._cameras = list_cameras(settings.cameras, settings.camera_names, settings.transport, settings.regions)
        with ExitStack() as undo:
            adapter = Adapter(settings, self, self.get_logger().info)
            undo.callback(adapter.close)
            adapter.pause(settings.start_paused)
            self._create_publishers(undo)
            self._adapter = adapter
            undo.callback(setattr, self, "_adapter", None)
            self._offer_services(undo)
            if settings.annotate.enabled:
                page = PageProcess(settings.page_job(adapter.pool.label_space), self.get_logger().info)
                undo.callback(page.close)
            self._undo_configure = undo.pop_all()
        topics = ", ".join(camera.topic for camera in self._cameras.values())
        self.get_logger().info(f"pool {settings.pool_dir}, registry {settings.registry_dir}, cameras: {topics}")

    def activate(self, _state: LifecycleState) -> None:
        """Announce what is in use and open, then start the working thread and subscribe."""
        adapter = self._configured()
        self.on_promoted(str(adapter.registry.current()), "in use at the start")
        self.on_queries(adapter.open_queries())
        with ExitStack() as undo:
            loop = self._start_work(adapter, undo)
            self._subscribe_all(loop, undo)
            timer = self.create_timer(DIAGNOSTICS_PERIOD_S, self._report, clock=self._steady)
            undo.callback(self.destroy_timer, timer)
            rounds = Path(self.settings.rounds_dir)
            self._neighbour = Neighbour(self, self.settings.sharing, rounds, self._steady, undo)
            self._loop = loop
            self._undo_activate = undo.pop_all()

    def deactivate(self, _state: LifecycleState) -> None:
        """Unsubscribe and let the working thread end; a running round is stopped and goes on after activation."""
        self._loop = self._neighbour = None
        self._undo_activate.close()

    def cleanup(self, _state: LifecycleState) -> None:
        """Close pool and registry, give topics and services back."""
        self._undo_configure.close()

    def _create_publishers(self, undo: ExitStack) -> None:
        def create(kind: Any, topic: str, profile: QoSProfile) -> Publisher:  # noqa: ANN401 (message classes)
            publisher = self.create_publisher(kind, topic, profile)
            undo.callback(self.destroy_publisher, publisher)
            return publisher

        budget = self.settings.cycle.budget
        self._queries = create(Image, "ssada/query", query_profile(depth=max(budget, 1)))
        self._results = create(String, "ssada/annotation_result", reliable_profile(depth=max(budget, LEAST_DEPTH)))
        self._promoted = create(String, "ssada/promoted", latched_profile())
        self._status = create(String, "~/status", latched_profile())
        self._diagnostics = create(DiagnosticArray, "/diagnostics", reliable_profile(depth=10))

    def _offer_services(self, undo: ExitStack) -> None:
        acts: dict[str, Callable[[Adapter], tuple[bool, str]]] = {
            "~/adapt": lambda adapter: adapter.adapt(time.monotonic()),
            "~/rollback": lambda adapter: (True, adapter.rollback("asked by service")),
            "~/confirm": lambda adapter: adapter.answer("confirm"),
            "~/refuse": lambda adapter: adapter.answer("refuse"),
        }
        for name, act in acts.items():
            undo.callback(self.destroy_service, self.create_service(Trigger, name, self._serve(act)))
        undo.callback(self.destroy_service, self.create_service(SetBool, "~/pause", self._on_pause))

    def _start_work(self, adapter: Adapter, undo: ExitStack) -> AdaptationLoop:
        loop = AdaptationLoop(
            adapter,
            self._cameras,
            max_bytes=self.settings.max_message_mib * MIB,
            on_refused=self.on_label,
            log_warning=self.get_logger().warning,
        )
        thread = NodeThread(self, "adaptation", loop.run, self._on_thread_failure)
        undo.callback(thread.join)  # a training worker ends with the thread that started it, and can be resumed
        undo.callback(loop.stop)
        return loop

    # -- what the adapter tells (Listener) -------------------------------------------------------

    def on_queries(self, records: Sequence[FrameRecord]) -> None:
        """Publish queried frames; the header's frame_id is the query's id. One that cannot be read is left out."""
        pool = self._configured().pool
        message = Image()
        for record in records:
            header = make_header(record.stamp_ns, str(record.query_id))
            try:
                image = pool.image(record)
            except (StoreError, DataError) as error:
                self._warn_once(f"query {record.query_id} is not asked, its frame cannot be read: {error}")
                continue
            self._queries.publish(fill_image(message, image, "bgr8", header))

    def _warn_once(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            self.get_logger().warning(words)

    def on_label(self, result: SubmitResult) -> None:
        """Answer whoever sent a label."""
        content = {"query_id": result.query_id, "status": result.status, "why": result.why}
        self._results.publish(string_message(content))
        words = f": {result.why}" if result.why else ""
        self.get_logger().info(f"label for {result.query_id} {result.status}{words}")

    def on_promoted(self, version: str, reason: str) -> None:
        """Announce the version that is current now."""
        self._promoted.publish(string_message({"version": version, "reason": reason}))

    # -- callbacks -----------------------------------------------------------------------------------

    def _subscribe_all(self, loop: AdaptationLoop, undo: ExitStack) -> None:
        depth = max(self.settings.cycle.budget, LEAST_DEPTH)

        def on_annotation(message: Image) -> None:
            self._on_annotation(message, loop)

        annotations = self.create_subscription(Image, "ssada/annotation", on_annotation, reliable_profile(depth=depth))
        undo.callback(self.destroy_subscription, annotations)
        flags = self.create_subscription(Empty, "ssada/flag", lambda _: loop.put_flag(), reliable_profile(depth=10))
        undo.callback(self.destroy_subscription, flags)
        inputs = [self._subscribe(camera, loop) for camera in self._cameras.values()]
        for one in inputs:
            undo.callback(one.close)

        def look() -> None:
            for one in inputs:
                one.look()

        undo.callback(self.destroy_timer, self.create_timer(LOOK_PERIOD_S, look, clock=self._steady))

    def _subscribe(self, camera: Camera, loop: AdaptationLoop) -> CameraInput:
        # Twice the pool's rate is enough for it to choose from; the other frames are not even kept.
        interval_ns = int(0.5e9 / self.settings.pool.rate)
        last_ns = 0

        def store(delivery: Delivery) -> None:
            nonlocal last_ns
            if delivery.received_ns - last_ns >= interval_ns:
                last_ns = delivery.received_ns
                loop.mailbox.put(delivery)

        return CameraInput(self, camera, self.settings, store)

    def _on_annotation(self, message: Image, loop: AdaptationLoop) -> None:
        query_id = message.header.frame_id
        try:
            loop.put_answer(Answer(query_id, label_from_image(message)))
        except SsadaError as error:
            self.on_label(SubmitResult(query_id, "refused", str(error)))

    def _serve(self, act: Callable[[Adapter], tuple[bool, str]]) -> Callable[..., Trigger.Response]:
        def callback(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                if self._loop is None:  # nobody would carry it out
                    raise ConfigError(f"{self.get_name()} is not active: run its activate transition first")
                response.success, response.message = act(self._configured())
            except SsadaError as error:
                response.success, response.message = False, str(error)
            return response

        return callback

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = True, self._configured().pause(request.data)
        return response

    def _report(self) -> None:
        trouble = self._loop.trouble() if self._loop is not None else ""
        waits = self._neighbour.reason if self._neighbour is not None else ""
        status = {**self._configured().status(), "trouble": trouble, "training_waits": waits}
        self._status.publish(String(data=json.dumps(status)))
        room = pool_room(self.settings.pool_dir, self.settings.pool, status["pool"], status["pool_bytes"])
        statuses = adaptation_statuses(diagnostics.node_name(self), {**status, "room": room})
        self._diagnostics.publish(diagnostics.diagnostic_array(self, statuses))

    def _on_thread_failure(self, failure: Exception) -> None:
        """Say it where it is looked for; then the process ends with the traceback."""
        status = failure_status(diagnostics.node_name(self), failure)
        self._diagnostics.publish(diagnostics.diagnostic_array(self, [status]))
        self._diagnostics.wait_for_all_acked(Duration(seconds=LAST_WORDS_S))

    def _configured(self) -> Adapter:
        if self._adapter is None:
            raise ConfigError("adaptation_node is not configured: run its configure transition first")
        return self._adapter


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    return run_node(AdaptationNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
