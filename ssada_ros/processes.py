"""One description of the processes, read by the launch file, ``ssada up``, ``ssada demo`` and the tests.

:class:`Supervisor` starts them without ``ros2 launch``: one log file each, stopped in reverse order with growing
emphasis, and never left behind, because every child ends with its parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ssada_core.errors import ConfigError, SsadaError
from ssada_core.resources import resource

FASTDDS_PROFILE = "config/fastdds_profile.xml"
FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
_OLD_FASTDDS = frozenset({"humble", "iron", "jazzy"})

STOP_STEPS: tuple[tuple[signal.Signals, float], ...] = (
    (signal.SIGINT, 10.0),
    (signal.SIGTERM, 5.0),
    (signal.SIGKILL, 5.0),
)
"""Signals to the process group, each with the seconds it is given. SIGINT first: it is what nodes are tested with."""
_POLL_S = 0.02


@dataclass(frozen=True)
class ProcessDescription:
    """A process of the product.

    Attributes:
        name: of the node and of the log file.
        module: run with ``python -m``.
        parameters_file: ROS params file, or None.
        namespace: of the node, such as ``/robot1``; empty for none.
        remappings: topic names, from → to.
        arguments: before the ROS arguments.
        log_level: debug, info, warn, error, fatal; empty for ROS's default.
        use_sim_time: take the time from ``/clock``.
        nice: added to the niceness.
        ros: whether the module is a node; else only ``arguments`` are passed.
    """

    name: str
    module: str
    parameters_file: Path | None = None
    namespace: str = ""
    remappings: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    log_level: str = ""
    use_sim_time: bool = False
    nice: int = 0
    ros: bool = True

    def ros_arguments(self) -> list[str]:
        """Return what follows ``--ros-args`` on the command line, it included; empty if it is no node."""
        if not self.ros:
            return []
        rules = {"__node": self.name, **({"__ns": self.namespace} if self.namespace else {}), **self.remappings}
        arguments = ["--ros-args", *(part for old, new in rules.items() for part in ("-r", f"{old}:={new}"))]
        if self.parameters_file is not None:
            arguments += ["--params-file", str(self.parameters_file)]
        if self.use_sim_time:
            arguments += ["-p", "use_sim_time:=true"]
        return [*arguments, "--log-level", self.log_level] if self.log_level else arguments

    def command(self) -> list[str]:
        """Return the command line with which this process, as the parent, starts it."""
        wrapper = [sys.executable, "-m", "ssada_ros.process_child", "--parent", str(os.getpid())]
        return [*wrapper, "--nice", str(self.nice), self.module, *self.arguments, *self.ros_arguments()]


def main_nodes(
    *, parameters_file: Path | None = None, namespace: str = "", log_level: str = "", use_sim_time: bool = False
) -> tuple[ProcessDescription, ProcessDescription]:
    """Describe the two processes of the product: masks, and the adaptation beside them."""
    segmentation, adaptation = (
        ProcessDescription(
            name,
            f"ssada_ros.{name}",
            parameters_file=parameters_file,
            namespace=namespace,
            log_level=log_level,
            use_sim_time=use_sim_time,
        )
        for name in ("segmentation_node", "adaptation_node")
    )
    return segmentation, adaptation


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for nodes: ``base`` (``os.environ``) and the Fast DDS profile unless one is set.

    Fast DDS's own shared-memory segment is smaller than one camera image, so with best effort most frames are lost.

    Raises:
        ConfigError: if the profile is not installed.
    """
    variables = dict(os.environ if base is None else base)
    profile = next((variables[name] for name in FASTDDS_VARIABLES if variables.get(name)), None)
    for name in _profile_variables(variables):
        variables.setdefault(name, profile or str(resource(FASTDDS_PROFILE)))
    variables.setdefault("PYTHONUNBUFFERED", "1")
    return variables


def _profile_variables(variables: Mapping[str, str]) -> tuple[str, ...]:
    # Newer releases read the first name and warn, once per node, about the second, which older ones need.
    return FASTDDS_VARIABLES if variables.get("ROS_DISTRO") in _OLD_FASTDDS else FASTDDS_VARIABLES[:1]


class Supervisor:
    """Starts described processes, looks after them and stops them. A context manager.

    Start it in the thread that lives longest: Linux ends a child with the *thread* that started it.
    """

    def __init__(
        self,
        descriptions: Sequence[ProcessDescription],
        log_dir: Path,
        *,
        variables: Mapping[str, str] | None = None,
        stop_steps: Sequence[tuple[signal.Signals, float]] = STOP_STEPS,
    ) -> None:
        """Describe what :meth:`start` will do.

        Args:
            descriptions: in the order of starting.
            log_dir: gets ``<name>.log`` with output and errors, appended to.
            variables: the environment; :func:`environment` by default.
            stop_steps: signals and the seconds each is given.

        Raises:
            ConfigError: if two processes have the same name.
        """
        names = [description.name for description in descriptions]
        if len(set(names)) != len(names):
            raise ConfigError(f"process names are not unique: {', '.join(names)}")
        self._descriptions = {description.name: description for description in descriptions}
        self._log_dir = log_dir
        self._variables = dict(variables) if variables is not None else environment()
        self._stop_steps = stop_steps
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything that does not run.

        Raises:
            SsadaError: if a process cannot be started; those already started are stopped.
        """
        self._log_dir.mkdir(parents=True, exist_ok=True)
        for name in self._descriptions:
            if self.poll().get(name, -1) is not None:
                self.start_one(name)

    def start_one(self, name: str) -> None:
        """Start one of the described processes, again if it has ended.

        Raises:
            SsadaError: if it cannot be started; everything else is stopped then.
        """
        description = self._descriptions[name]
        try:
            with self.log_path(name).open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    description.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._variables,
                    start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor, which stops them in order
                )
        except OSError as error:
            self.stop()
            raise SsadaError(f"{name} could not be started: {error}") from error

    def poll(self) -> dict[str, int | None]:
        """Return each started process's exit status, None while it runs; -N if signal N ended it."""
        return {name: process.poll() for name, process in self._processes.items()}

    def pid(self, name: str) -> int:
        """Return the process id, which is also the id of its process group."""
        return self._processes[name].pid

    def log_path(self, name: str) -> Path:
        """Return the process's log file."""
        return self._log_dir / f"{name}.log"

    def log_tail(self, name: str, lines: int = 10) -> str:
        """Return the last lines of the process's log."""
        return "\n".join(self.log_path(name).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def stop_one(self, name: str) -> int | None:
        """Stop one process and what it started, and return its exit status."""
        process = self._processes[name]
        for number, seconds in self._stop_steps:
            if process.poll() is not None:
                break
            _signal_group(process.pid, number)
            _wait(process, seconds)
        # What the process itself left behind in its group; nothing is in it after a clean end.
        _signal_group(process.pid, signal.SIGKILL)
        return process.poll()

    def stop(self) -> dict[str, int | None]:
        """Stop everything, the last started first, and return the exit statuses."""
        for name in reversed(self._processes):
            self.stop_one(name)
        return self.poll()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # all of it has ended


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
