"""The demo's drive: phases, from the first mask to the last, steered over the same services that an operator uses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_srvs.srv import SetBool

from ssada_core.errors import SsadaError
from ssada_ros.demo_monitor import DemoMonitor
from ssada_ros.demo_stage import ADAPTATION, CAMERA, Stage
from ssada_ros.supervisor import Supervisor

START_TIMEOUT_S = 90.0
SERVICE_TIMEOUT_S = 20.0
SERVICE_RETRY_S = 5.0
LAST_MASKS_S = 1.5
"""How long the last frames' masks are waited for once the camera has stopped."""
TICK_S = 0.25


@dataclass
class DriveLog:
    """When each phase began and what happened first when, nanoseconds of the system clock.

    ``moments`` knows ``asked``, ``labelled``, ``training`` and ``decided``, once they were seen.
    """

    phases: list[tuple[str, int]] = field(default_factory=list)
    moments: dict[str, int] = field(default_factory=dict)

    def note(self, status: dict[str, Any]) -> None:
        """Note what the adaptation node's status shows for the first time."""
        seen = {
            "asked": status.get("asked"),
            "labelled": status.get("labels"),
            "training": status.get("phase") == "training",
            "decided": status.get("decision"),
        }
        for name, happened in seen.items():
            if happened:
                self.moments.setdefault(name, time.time_ns())

    def begin(self, phase: str) -> None:
        """Note the beginning of a phase."""
        self.phases.append((phase, time.time_ns()))

    @property
    def phase(self) -> str:
        """The phase at hand."""
        return self.phases[-1][0] if self.phases else ""


class Drive:
    """Runs the phases; ``on_tick`` is called several times a second for the view."""

    def __init__(
        self, stage: Stage, supervisor: Supervisor, monitor: DemoMonitor, on_tick: Callable[[DriveLog], None]
    ) -> None:
        self._stage = stage
        self._supervisor = supervisor
        self._monitor = monitor
        self._on_tick = on_tick
        self._deadline = time.monotonic() + stage.settings.drive.timeout_s
        self.log = DriveLog()

    def run(self) -> None:
        """Drive from the first mask until some time after the decision, then stop camera and nodes.

        Raises:
            SsadaError: if a process ends by itself, no mask comes, or there is no decision in time.
        """
        drive = self._stage.settings.drive
        self.log.begin("starting")
        self._wait_until(lambda: bool(self._monitor.record().masks), START_TIMEOUT_S, "the first mask")
        self.log.begin("source" if self._stage.simulated else "before")
        self._drive_for(drive.before_s)
        if self._stage.simulated:
            self._set_domain(drive.target_domain)
        self.log.begin("target")
        self._pause(False)
        if self._stage.options.annotator != "none":
            self._until_decided()
        self.log.begin("after")
        self._drive_for(drive.after_s)
        self._supervisor.stop_one(CAMERA)
        time.sleep(LAST_MASKS_S)
        self.log.begin("end")
        self._supervisor.stop()

    def _until_decided(self) -> None:
        def decided() -> bool:
            decision = self._status().get("decision")
            if not decision:
                return False
            return bool(decision["verdict"] != "promote" or self._version_seen() == decision["version"])

        remaining = self._deadline - time.monotonic()
        self._wait_until(decided, remaining, "the gate's decision and, if it promotes, the first mask after the swap")

    def _status(self) -> dict[str, Any]:
        return self._monitor.record().status

    def _version_seen(self) -> str:
        versions = self._monitor.record().versions
        return versions[-1][0] if versions else ""

    def _drive_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._tick()

    def _wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise SsadaError(f"waited {timeout_s:.0f} s for {what}: see the logs in {self._stage.out / 'logs'}")
            self._tick()

    def _tick(self) -> None:
        for name, status in self._supervisor.poll().items():
            if status is not None:
                tail = self._supervisor.log_tail(name, lines=3)
                raise SsadaError(f"{name} ended by itself with status {status}: {tail}")
        failure = self._status().get("failure")
        if failure:
            raise SsadaError(f"the training round failed: {failure}")
        self.log.note(self._status())
        self._on_tick(self.log)
        time.sleep(TICK_S)

    def _set_domain(self, domain: str) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=domain)
        request = SetParameters.Request(parameters=[Parameter(name="domain", value=value)])
        client = self._monitor.create_client(SetParameters, f"{CAMERA}/set_parameters")
        (result,) = self._call(client, request).results
        if not result.successful:
            raise SsadaError(f"the camera refused the domain '{domain}': {result.reason}")

    def _pause(self, paused: bool) -> None:
        client = self._monitor.create_client(SetBool, f"{ADAPTATION}/pause")
        response = self._call(client, SetBool.Request(data=paused))
        if not response.success:
            raise SsadaError(f"the adaptation node refused to go on: {response.message}")

    def _call(self, client: Client, request: Any) -> Any:  # noqa: ANN401 (service types have no common base)
        if not client.wait_for_service(SERVICE_TIMEOUT_S):
            raise SsadaError(f"service {client.srv_name} did not appear within {SERVICE_TIMEOUT_S:.0f} s")
        end = time.monotonic() + SERVICE_TIMEOUT_S
        # Asked again: a server that does not know a new client yet drops its answer. Twice does no harm here.
        while time.monotonic() < end:
            done = threading.Event()
            future = client.call_async(request)
            future.add_done_callback(lambda _, done=done: done.set())
            if done.wait(SERVICE_RETRY_S):
                return future.result()
            client.remove_pending_request(future)
        raise SsadaError(f"service {client.srv_name} did not answer within {SERVICE_TIMEOUT_S:.0f} s")


@contextmanager
def monitored(num_classes: int) -> Iterator[DemoMonitor]:
    """A monitor node that spins in a thread of its own."""
    rclpy.init(args=[])
    monitor = DemoMonitor(num_classes)
    executor = SingleThreadedExecutor()
    executor.add_node(monitor)
    thread = threading.Thread(target=_spin, args=(executor,), name="monitor", daemon=True)
    thread.start()
    try:
        yield monitor
    finally:
        executor.shutdown()
        thread.join(5.0)
        monitor.destroy_node()
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return
