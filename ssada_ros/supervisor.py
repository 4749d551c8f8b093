"""Starts described processes without ``ros2 launch``.

Each has a log file; they are stopped in reverse order with growing emphasis, and none is ever left behind, because
every child ends with its parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ssada_core.errors import ConfigError, SsadaError
from ssada_ros.processes import ProcessDescription, environment

STOP_STEPS: tuple[tuple[signal.Signals, float], ...] = (
    (signal.SIGINT, 10.0),
    (signal.SIGTERM, 5.0),
    (signal.SIGKILL, 5.0),
)
"""Signals to the process group, each with the seconds it is given. SIGINT first: it is what nodes are tested with."""
_POLL_S = 0.02
_LONGEST_LINE = 4096


class Supervisor:
    """Starts described processes, looks after them and stops them. A context manager.

    Start it in the thread that lives longest: Linux ends a child with the *thread* that started it.
    """

    def __init__(
        self,
        descriptions: Sequence[ProcessDescription],
        log_dir: Path | None,
        *,
        variables: Mapping[str, str] | None = None,
        stop_steps: Sequence[tuple[signal.Signals, float]] = STOP_STEPS,
    ) -> None:
        """Describe what :meth:`start` will do.

        Args:
            descriptions: in the order of starting.
            log_dir: gets ``<name>.log`` with output and errors, appended to; None leaves them to the terminal.
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
        self._over: set[str] = set()

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything that does not run. What is not essential and cannot be started is left for later.

        Raises:
            SsadaError: if an essential process cannot be started; those already started are stopped.
        """
        for name, description in self._descriptions.items():
            if self.poll().get(name, -1) is None:
                continue
            try:
                self.start_one(name)
            except SsadaError:
                if description.essential:
                    self.stop()
                    raise

    def start_one(self, name: str) -> None:
        """Start one of the described processes, again if it has ended; what it left behind is ended before.

        Raises:
            SsadaError: if it cannot be started; everything else goes on.
        """
        description = self._descriptions[name]
        if name in self._processes:
            self._end_group(name)
        self._over.discard(name)
        try:
            with self._output(name) as output:
                self._processes[name] = subprocess.Popen(
                    description.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT if output is not None else None,
                    env=self._variables,
                    **_own_group(),
                )
        except OSError as error:
            raise SsadaError(f"{name} could not be started: {error}") from error

    def poll(self) -> dict[str, int | None]:
        """Return each process's exit status once it was started, None while it runs; -N if signal N ended it.

        What one that has ended left behind is ended as well.
        """
        statuses = {name: process.poll() for name, process in self._processes.items()}
        for name, status in statuses.items():
            if status is not None:
                self._end_group(name)
        return statuses

    def _end_group(self, name: str) -> None:
        """End a process's group, once: later its number may be that of somebody else's."""
        if name not in self._over:
            self._over.add(name)
            _signal_group(self._processes[name].pid, signal.SIGKILL)

    def pid(self, name: str) -> int:
        """Return the process id, which is also the id of its process group."""
        return self._processes[name].pid

    def log_path(self, name: str) -> Path | None:
        """Return the process's log file, None if it writes to the terminal."""
        return self._log_dir / f"{name}.log" if self._log_dir is not None else None

    def log_tail(self, name: str, lines: int = 10) -> str:
        """Return the last lines of the process's log; empty if it has none, or somebody has removed it."""
        path = self.log_path(name)
        if path is None:
            return ""
        try:
            with path.open("rb") as log:  # a vehicle's log is long
                log.seek(max(path.stat().st_size - lines * _LONGEST_LINE, 0))
                return "\n".join(log.read().decode("utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def _output(self, name: str) -> AbstractContextManager[IO[bytes] | None]:
        path = self.log_path(name)
        if path is None:
            return nullcontext()
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")

    def stop_one(self, name: str) -> int | None:
        """Stop one process and what it started, and return its exit status."""
        process = self._processes[name]
        for number, seconds in self._stop_steps:
            if process.poll() is not None:
                break
            _signal_group(process.pid, number)
            _wait(process, seconds)
        self._end_group(name)  # nothing is in it after a clean end
        return process.poll()

    def stop(self) -> dict[str, int | None]:
        """Stop everything, the last started first, and return the exit statuses."""
        for name in reversed(self._processes):
            self.stop_one(name)
        return self.poll()


def _own_group() -> dict[str, Any]:
    """A process group each: Ctrl-C in the terminal reaches the supervisor, which stops them in order.

    No session each: where Linux groups processes by session (autogroup), SCHED_IDLE holds within one only, and a
    training in another took the processor from the masks (docs/results/inference.md has the measurement).
    """
    return {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return  # all of it has ended, and the number is free or another user's


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
