"""Start, watch and stop the training worker: its own process, resumable, ended with its parent.

Linux ends the worker (SIGTERM) together with the *thread* that started it, not only with the process. So start it
from a thread that lives as long as the training should: in the adaptation node that is the working thread, which
ends on deactivation. The worker then writes a checkpoint and :meth:`WorkerProcess.poll` says ``stopped``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssada_core.adaptation.round import PROGRESS_FILE, RESULT_FILE, WORKER_LOG_FILE, read_round
from ssada_core.errors import WorkerError

EXIT_STOPPED = 3
"""The worker's exit status after SIGTERM or SIGINT: what was done is on the disk, the same command resumes."""
LOCK_TIMEOUT_S = 60.0
"""How long a new worker waits for the one before it, which may still be writing its checkpoint."""
STOP_TIMEOUT_S = 20.0
"""A stopped worker writes one checkpoint; longer than this and it is killed (and resumes from the last one)."""

State = Literal["running", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class Progress:
    """The newest line of ``progress.jsonl``: figures of the training so far."""

    figures: dict[str, Any]

    @property
    def iteration(self) -> int:
        """Iterations done; 0 before the first."""
        return int(self.figures.get("iteration", 0))

    @property
    def iterations(self) -> int:
        """Iterations of the whole round; 0 when not known yet."""
        return int(self.figures.get("iterations", 0))


class WorkerProcess:
    """One round's training process. A worker that dies is started again and resumes, ``restarts`` times at most."""

    def __init__(self, run_dir: Path, *, restarts: int = 3) -> None:
        """Start the worker on a round's folder.

        Raises:
            WorkerError: if the folder holds no round, or the process cannot be started.
        """
        self.run_dir = run_dir
        self._idle = read_round(run_dir).low_priority and hasattr(os, "SCHED_IDLE")
        self._restarts_left = restarts
        self._stopped = False
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """Process id of the worker that runs now, or ran last."""
        return self._process.pid

    @property
    def restarts_left(self) -> int:
        """How many more times a dead worker is started again."""
        return self._restarts_left

    def poll(self) -> State:
        """Look after the process: restart it if it died by a signal, and say how it stands."""
        code = self._process.poll()
        if code is None:
            return "running"
        if code == 0 and (self.run_dir / RESULT_FILE).exists():
            return "finished"
        if self._stopped or code == EXIT_STOPPED:  # by us, by the end of our thread, or by an operator
            return "stopped"
        # A signal (out of memory, an operator) says nothing against the round; an exit code does.
        if code < 0 and self._restarts_left > 0:
            self._restarts_left -= 1
            self._process = self._spawn()
            return "running"
        return "failed"

    def progress(self) -> Progress:
        """The last complete line the worker wrote."""
        return Progress(last_json_line(self.run_dir / PROGRESS_FILE))

    def failure(self) -> str:
        """Why it failed: the last line of its log, and its exit status."""
        code = self._process.poll()
        reason = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        return f"{reason}: {_last_line(self.run_dir / WORKER_LOG_FILE)}"

    def stop(self) -> None:
        """Ask the worker to write a checkpoint and end; kill it if it does not. It can be resumed later."""
        self._stopped = True
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "ssada_core.adaptation.worker",
            str(self.run_dir),
            "--parent",
            str(os.getpid()),
            "--wait",
            str(LOCK_TIMEOUT_S),
        ]
        # Without a bound, OpenMP takes every core that the masks need.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        try:
            with (self.run_dir / WORKER_LOG_FILE).open("ab") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        except OSError as error:
            raise WorkerError(f"training worker not started in {self.run_dir}: {error}") from error
        if self._idle:  # at once: its imports alone would take seconds from the masks
            with contextlib.suppress(OSError):  # where that is forbidden, it lowers itself when it has started
                os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        return process


def last_json_line(path: Path) -> dict[str, Any]:
    """The last complete JSON object of a JSON-lines file; empty if there is none yet."""
    for line in reversed(_tail(path).splitlines()):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut in half: the writer is at work
        if isinstance(value, dict):
            return value
    return {}


def _last_line(path: Path) -> str:
    lines = [line for line in _tail(path).splitlines() if line.strip()]
    return lines[-1] if lines else f"nothing was written to {path}"


def _tail(path: Path, size: int = 8192) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
