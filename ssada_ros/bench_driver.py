"""Camera and witness of a node that is measured: ``python -m ssada_ros.bench_driver``, a process of its own.

A line of JSON on standard input is a job, a line on standard output its answer, as in
:mod:`ssada_core.bench.inference_child`. It publishes frames at a rate, and notes when each one left, what the node
says of it (``~/<camera>/timing``) and when its mask arrived here. All times are of the monotonic clock, which is one
for all processes of a machine.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ssada_core.data.samples import Array
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.errors import SsadaError
from ssada_ros.conversions import fill_image, json_of, make_header, stamp_to_ns, string_message
from ssada_ros.qos import TopicQos, latched_profile, latest_profile, reliable_profile

PICTURES = 4
"""Different frames, published in turn."""
CAMERA_DEPTH = 5
"""Of the camera's publisher: what drivers that publish "sensor data" keep."""
CONNECT_S = 60.0
QUIET_S = 1.0
"""No mask for so long after the last frame: there comes no more."""
POLL_S = 0.01

Answer = dict[str, Any]


@dataclass
class Log:
    """What was seen of one drive; answers of a job in JSON's types."""

    sent: list[tuple[int, int]] = field(default_factory=list)
    masks: list[tuple[int, int]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    swaps: list[dict[str, Any]] = field(default_factory=list)

    def answer(self) -> Answer:
        """``sent`` and ``masks`` as (stamp, monotonic time), ``timings`` as published, ``swaps`` as asked for."""
        return {"sent": self.sent, "masks": self.masks, "timings": self.timings, "swaps": self.swaps}


class Driver:
    """Publishes in the main thread; what comes back is taken by a thread that spins."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """Join the graph.

        Args:
            spec: ``namespace`` of the node, ``reliability`` of the camera.
        """
        rclpy.init(args=[])
        self._node = rclpy.create_node("driver", namespace=spec["namespace"])
        qos = TopicQos(spec["reliability"], "volatile", CAMERA_DEPTH).profile()
        self._camera = self._node.create_publisher(Image, "camera/image", qos)
        self._promoted = self._node.create_publisher(String, "ssada/promoted", latched_profile())
        self._log = Log()
        output = "segmentation_node/camera"
        self._inputs = (
            self._node.create_subscription(Image, f"{output}/mask", self._on_mask, latest_profile()),
            self._node.create_subscription(String, f"{output}/timing", self._on_timing, reliable_profile(depth=100)),
        )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def connect(self, _: object) -> Answer:
        """Wait until camera, mask and timing have found their counterparts in the node.

        Raises:
            SsadaError: if they do not.
        """
        start = time.monotonic()
        names = [subscription.topic_name for subscription in self._inputs]
        while not (
            self._camera.get_subscription_count()
            and self._promoted.get_subscription_count()
            and all(self._node.count_publishers(name) for name in names)
        ):
            if time.monotonic() - start > CONNECT_S:
                raise SsadaError(f"the node did not appear within {CONNECT_S:.0f} s: see its log")
            time.sleep(POLL_S)
        time.sleep(QUIET_S)  # the other side needs a moment to learn the same
        return {"seconds": time.monotonic() - start}

    def drive(self, job: Mapping[str, Any]) -> Answer:
        """Publish ``frames`` frames of ``size`` at ``rate``."""
        self._log = log = Log()
        pictures = _pictures(job["size"])
        for _ in _beats(float(job["rate"]), int(job["frames"])):
            self._publish(pictures, log)
        self._settle(log)
        return log.answer()

    def swap(self, job: Mapping[str, Any]) -> Answer:
        """Publish frames at ``rate`` and ask for the other one of two ``versions`` again and again, ``swaps`` times.

        Each swap is asked for ``settle`` frames after the one before was seen to have happened.
        """
        self._log = log = Log()
        pictures = _pictures(job["size"])
        versions, settle = list(job["versions"]), int(job["settle"])
        deadline = time.monotonic() + float(job["timeout_s"])
        calm = 0
        for _ in _beats(float(job["rate"]), sys.maxsize):
            self._publish(pictures, log)
            in_use = log.timings[-1]["version"] if log.timings else versions[0]
            wanted = log.swaps[-1]["version"] if log.swaps else versions[0]
            calm = calm + 1 if in_use == wanted else 0
            if calm < settle:
                if time.monotonic() > deadline:
                    raise SsadaError(f"{len(log.swaps)} swaps in {job['timeout_s']:.0f} s: the node's log says why")
                continue
            if len(log.swaps) == int(job["swaps"]):
                break
            version = versions[(len(log.swaps) + 1) % len(versions)]
            log.swaps.append({"version": version, "asked_ns": time.monotonic_ns()})
            self._promoted.publish(string_message({"version": version}))
            calm = 0
        self._settle(log)
        return log.answer()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=0)
        rclpy.try_shutdown()
        self._thread.join()

    def _publish(self, pictures: Sequence[Image], log: Log) -> None:
        message, stamp = pictures[len(log.sent) % len(pictures)], time.time_ns()
        message.header = make_header(stamp, "bench")
        log.sent.append((stamp, time.monotonic_ns()))
        self._camera.publish(message)

    def _settle(self, log: Log) -> None:
        """Wait until nothing comes any more."""
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_S:
            if len(log.masks) + len(log.timings) != seen:
                seen, since = len(log.masks) + len(log.timings), time.monotonic()
            time.sleep(POLL_S)

    def _on_mask(self, message: Image) -> None:
        self._log.masks.append((stamp_to_ns(message.header.stamp), time.monotonic_ns()))

    def _on_timing(self, message: String) -> None:
        self._log.timings.append(json_of(message))

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


def _pictures(size: Sequence[int]) -> list[Image]:
    """Filled messages of simulated frames, height and width as asked."""
    height, width = int(size[0]), int(size[1])
    small = SimulatedDrive(size=(192, 320))
    frames: list[Array] = [
        np.asarray(cv2.resize(small.frame(index, "day")[0], (width, height)), np.uint8) for index in range(PICTURES)
    ]
    return [fill_image(Image(), frame, "bgr8", make_header(0, "bench")) for frame in frames]


def _beats(rate: float, count: int) -> Any:  # noqa: ANN401 (a generator of nothing)
    """``count`` times nothing, at a rate; a beat that comes late does not move the ones after it."""
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        yield


def main() -> int:
    """Serve the parent until it closes standard input."""
    driver = Driver(json.loads(sys.stdin.readline()))
    _say({"ready": True, "load_s": 0.0})
    jobs: dict[str, Callable[[Any], Answer]] = {"connect": driver.connect, "drive": driver.drive, "swap": driver.swap}
    for line in sys.stdin:
        (name, value), *_ = json.loads(line).items()
        try:
            _say(jobs[name](value))
        except SsadaError as error:
            _say({"error": str(error)})
    driver.close()
    return 0


def _say(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
