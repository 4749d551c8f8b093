"""The Driver over DDS: a recording is played onto topics at its own pace, and real nodes answer it.

The node is that of a vehicle, started as a process of its own in a ROS domain of its own. This process is the camera
and the subscriber.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ssada_core.data.encodings import encode_png
from ssada_core.data.samples import Array
from ssada_core.errors import SsadaError
from ssada_core.replay.driver import Answer, RosLog, RosRequest, Served
from ssada_core.replay.recording import DriveFrame
from ssada_core.settings import Settings
from ssada_ros.conversions import (
    fill_compressed,
    fill_image,
    json_of,
    label_from_image,
    make_header,
    stamp_to_ns,
)
from ssada_ros.demo import isolate
from ssada_ros.drive_adaptation import ADAPTATION, AdaptationWitness, node_settings
from ssada_ros.parameters import write_parameters_file
from ssada_ros.processes import ProcessDescription, environment
from ssada_ros.qos import latched_profile, reliable_profile
from ssada_ros.segmentation_settings import SegmentationSettings
from ssada_ros.supervisor import Supervisor

NODE = "segmentation_node"
START_TIMEOUT_S = 90.0
LAST_MASKS_S = 3.0
"""How long the last frames' masks are waited for."""
FRAMES_WAITING = 64
"""Frames that wait for their masks; what was overtaken by as many is counted as dropped."""
QUEUE = 10
"""Frames that the middleware keeps for a subscriber that is slow for a moment; reliable loses none of so many."""


@dataclass(frozen=True)
class _Sent:
    frame: DriveFrame
    at_s: float


class RosDriver:
    """See :class:`~ssada_core.replay.driver.RosDriver`."""

    def __init__(self, request: RosRequest) -> None:
        """Start the node and wait until it listens and is heard.

        Raises:
            SsadaError: if the node ends or does not come up.
        """
        self.series: Sequence[str] = (request.version,)
        self.published = self.dropped = 0
        self.longest_gap_s: float | None = None
        self.seen = RosLog()
        self._witness: AdaptationWitness | None = None
        self._request = request
        self._waiting: OrderedDict[tuple[str, int], _Sent] = OrderedDict()
        self._served: list[Served] = []
        self._lock = threading.Lock()
        self._version = request.version
        self._last_mask_s: float | None = None
        self._start: tuple[float, float] | None = None
        self._undo = ExitStack()
        with ExitStack() as undo:
            isolate()
            # The images are published from here: Fast DDS reads its profile when this process joins.
            os.environ.update(environment())
            self._supervisor = Supervisor(_processes(request), request.out / "logs")
            self._node = undo.enter_context(_SpunNode("replay"))
            self._publishers = {name: self._publisher(name) for name in request.cameras}
            for name in request.cameras:
                self._subscribe(name)
            self._node.create_subscription(String, f"{NODE}/model", self._on_model, latched_profile())
            self._witness = (
                AdaptationWitness(self._node, request, self.seen, self._now_s) if request.adaptation else None
            )
            undo.enter_context(self._supervisor)
            self._wait_for_the_node()
            self._undo = undo.pop_all()

    def serve(self, frame: DriveFrame) -> Iterable[Served]:
        """Publish a frame when its time has come; returns what has been answered since.

        Raises:
            SsadaError: if the node has ended.
        """
        if self._witness is not None:
            self._witness.work()
        self._wait_for(frame.second)
        self._check_alive()
        message = self._message(frame)
        with self._lock:
            self._waiting[(frame.camera, frame.stamp_ns)] = _Sent(frame, time.monotonic())
            if len(self._waiting) > FRAMES_WAITING:
                self._waiting.popitem(last=False)
                self.dropped += 1
        self._publishers[frame.camera].publish(message)
        self.published += 1
        return self._take()

    def finish(self) -> Iterable[Served]:
        """Wait for the last masks, and for what the adaptation is at; frames without a mask count as dropped."""
        deadline = time.monotonic() + LAST_MASKS_S
        while time.monotonic() < deadline and self._are_waiting():
            time.sleep(0.02)
        served = self._take()
        with self._lock:
            self.dropped += len(self._waiting)
            self._waiting.clear()
        while self._witness is not None and self._witness.is_busy():
            self._witness.work()
            self._check_alive()
            time.sleep(0.1)
        return served

    def close(self) -> None:
        """Stop the node."""
        self._undo.close()

    # -- out -------------------------------------------------------------------------------------

    def _publisher(self, camera: str) -> Any:  # noqa: ANN401 (publishers of rclpy have no types)
        kind = CompressedImage if self._request.cameras[camera] else Image
        return self._node.create_publisher(kind, _topic(self._request, camera), reliable_profile(depth=QUEUE))

    def _message(self, frame: DriveFrame) -> Any:  # noqa: ANN401
        header = make_header(frame.stamp_ns, frame.frame_id)
        if not self._request.cameras[frame.camera]:
            return fill_image(Image(), frame.image, "bgr8", header)
        if frame.jpeg is not None:
            return fill_compressed(CompressedImage(), frame.jpeg, "jpeg", header)
        return fill_compressed(CompressedImage(), encode_png(frame.image), "png", header)

    def _now_s(self) -> float:
        """Seconds of the drive, which goes on at its pace after the last frame."""
        if self._start is None:
            return 0.0
        began_s, first_s = self._start
        return first_s + (time.monotonic() - began_s) * self._request.speed

    def _wait_for(self, second: float) -> None:
        if self._start is None:
            self._start = (time.monotonic(), second)
        began_s, first_s = self._start
        time.sleep(max(0.0, began_s + (second - first_s) / self._request.speed - time.monotonic()))

    # -- in --------------------------------------------------------------------------------------

    def _subscribe(self, camera: str) -> None:
        def on_mask(message: Image) -> None:
            self._on_mask(camera, stamp_to_ns(message.header.stamp), label_from_image(message).copy())

        self._node.create_subscription(Image, f"{NODE}/{camera}/mask", on_mask, reliable_profile(depth=QUEUE))

    def _on_mask(self, camera: str, stamp_ns: int, label: Array) -> None:
        now_s = time.monotonic()
        with self._lock:
            self.seen.arrivals.setdefault(camera, []).append((stamp_ns, now_s))
            sent = self._waiting.pop((camera, stamp_ns), None)
            if sent is None:
                return
            if self._last_mask_s is not None:
                self.longest_gap_s = max(self.longest_gap_s or 0.0, now_s - self._last_mask_s)
            self._last_mask_s = now_s
            answer = Answer(self._version, label, None, None, now_s - sent.at_s)
            self._served.append(Served(sent.frame, (answer,)))

    def _on_model(self, message: String) -> None:
        content = json_of(message)
        self.seen.models.append((str(content["version"]), dict(content["first_stamp_ns"])))

    def _take(self) -> list[Served]:
        with self._lock:
            served, self._served = self._served, []
        return served

    def _are_waiting(self) -> bool:
        with self._lock:
            return bool(self._waiting)

    # -- the node --------------------------------------------------------------------------------

    def _wait_for_the_node(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_connected():
            self._check_alive()
            if time.monotonic() > deadline:
                tail = self._supervisor.log_tail(NODE, lines=3)
                raise SsadaError(f"the nodes did not subscribe within {START_TIMEOUT_S:.0f} s; {NODE}: {tail}")
            time.sleep(0.05)

    def _is_connected(self) -> bool:
        readers = 1 if self._witness is None else 2
        heard = all(publisher.get_subscription_count() >= readers for publisher in self._publishers.values())
        masks = all(self._node.count_publishers(f"{NODE}/{name}/mask") for name in self._request.cameras)
        return bool(heard and masks) and (self._witness is None or self._witness.is_connected())

    def _check_alive(self) -> None:
        for name, status in self._supervisor.poll().items():
            if status is not None:
                raise SsadaError(f"{name} ended with status {status}: {self._supervisor.log_tail(name, lines=3)}")


class _SpunNode:
    """A node that spins in a thread of its own, as a context manager."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Node:
        rclpy.init(args=[])
        self._node = Node(self._name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name=self._name, daemon=True)
        self._thread.start()
        return self._node

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join(5.0)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


def _topic(request: RosRequest, camera: str) -> str:
    return f"replay/{camera}/image{'/compressed' if request.cameras[camera] else ''}"


def _processes(request: RosRequest) -> list[ProcessDescription]:
    parameters = request.out / "parameters.yaml"
    parameters.parent.mkdir(parents=True, exist_ok=True)
    cameras: dict[str, Any] = {
        "cameras": [_topic(request, name) for name in request.cameras],
        "camera_names": list(request.cameras),
        "camera_reliability": request.reliability,
    }
    model = str(request.model_dir.resolve())
    segmentation = SegmentationSettings(model=model, mask_depth=QUEUE, engine=request.engine, **cameras)
    settings: dict[str, Settings] = {NODE: segmentation}
    if request.adaptation is not None:
        settings[ADAPTATION] = node_settings(request.adaptation, cameras)
    write_parameters_file(parameters, settings)
    return [ProcessDescription(name, f"ssada_ros.{name}", parameters_file=parameters) for name in settings]
