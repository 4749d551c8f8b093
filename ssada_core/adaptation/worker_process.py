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
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssada_core.adaptation.round import PROGRESS_FILE, RESULT_FILE, WORKER_LOG_FILE, read_round
from ssada_core.adaptation.worker_guards import HEARTBEAT_FILE, OUT_OF_MEMORY
from ssada_core.errors import WorkerError

EXIT_STOPPED = 3
"""The worker's exit status after SIGTERM or SIGINT: what was done is on the disk, the same command resumes."""
HUNG_AFTER_S = 600.0
"""Default for how long a worker may show no progress: under SCHED_IDLE beside busy nodes a step may take minutes."""
LOCK_TIMEOUT_S = 60.0
"""How long a new worker waits for the one before it, which may still be writing its checkpoint."""
KILL_TIMEOUT_S = 5.0
"""How long a killed worker may take to end before it is looked at again later."""
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
    """One round's training process. A worker that dies is started again and resumes, ``restarts`` times at most.

    One whose progress stands still is killed, and then is one that died.
    """

    def __init__(self, run_dir: Path, *, restarts: int = 3, hung_after_s: float = HUNG_AFTER_S) -> None:
        """Start the worker on a round's folder.

        Args:
            run_dir: of the round.
            restarts: how often a dead worker is started again.
            hung_after_s: seconds without progress after which a worker is taken for hung; 0 never.

        Raises:
            WorkerError: if the folder holds no round, or the process cannot be started.
        """
        self.run_dir = run_dir
        self._watchdog = Watchdog(run_dir, hung_after_s)
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
        if code is None and self._watchdog.is_hung():
            self._process.kill()  # also ends a stopped one; one that waits for a dead device ends when that answers
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(KILL_TIMEOUT_S)
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
            self._watchdog.reset()
            return "running"
        return "failed"

    @property
    def hung(self) -> int:
        """How often it was killed because its progress stood still."""
        return self._watchdog.found

    def progress(self) -> Progress:
        """The last complete line the worker wrote."""
        return Progress(last_json_line(self.run_dir / PROGRESS_FILE))

    def failure(self) -> str:
        """Why it failed: the last line of its log, and its exit status."""
        code = self._process.poll()
        reason = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL:
            reason += f" ({self._killed_words()})"
        return f"{reason}: {_last_line(self.run_dir / WORKER_LOG_FILE)}"

    def _killed_words(self) -> str:
        if self.hung:
            return f"no progress for {self._watchdog.seconds:.0f} s, {self.hung} times"
        return f"where nobody did that, the machine ran out of memory: {OUT_OF_MEMORY}"

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


class Watchdog:
    """Tells by the files that a worker touches whether it gets on, on a clock that nobody sets."""

    def __init__(self, run_dir: Path, seconds: float) -> None:
        self._files = [run_dir / name for name in (PROGRESS_FILE, HEARTBEAT_FILE, RESULT_FILE)]
        self.seconds = seconds
        self.found = 0
        self.reset()

    def reset(self) -> None:
        """Begin to wait anew, for a new process."""
        self._seen, self._since = self._marks(), time.monotonic()

    def is_hung(self) -> bool:
        """Whether nothing has changed for so long; asked at least once a minute or so."""
        marks = self._marks()
        if marks != self._seen:
            self._seen, self._since = marks, time.monotonic()
        hung = 0 < self.seconds < time.monotonic() - self._since
        self.found += hung
        return hung

    def _marks(self) -> list[tuple[int, int]]:
        stats = [path.stat() for path in self._files if path.exists()]
        return [(stat.st_mtime_ns, stat.st_size) for stat in stats]


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
