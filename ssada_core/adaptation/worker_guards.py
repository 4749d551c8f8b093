"""What makes the worker a good neighbour: it stops when told, runs alone, yields to others, ends with its parent."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ssada_core.errors import WorkerError

LOCK_FILE = "worker.lock"
HEARTBEAT_FILE = "heartbeat"
OUT_OF_MEMORY = "lower training.labelled_batch, unlabelled_batch or the crop"
LOCK_PAUSE_S = 0.2
"""Seconds between two tries to get the lock."""


class Heartbeat:
    """A file that is touched whenever the work has got on: who watches sees that the worker is not stuck.

    Called by the thread that works, never by one beside it, which would go on beating for a hung one.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / HEARTBEAT_FILE

    def beat(self) -> None:
        """Say that the work has got on. A full disk is found out by those who write something of worth."""
        with suppress(OSError):
            self._path.touch()


class StopSignal:
    """SIGTERM and SIGINT: training ends after its iteration, with a checkpoint; everything else ends at once."""

    def __init__(self) -> None:
        self._asked = False
        self._training = False

    def listen(self) -> None:
        """Take the signals over."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        """Whether training should end."""
        return self._asked

    @contextmanager
    def during_training(self) -> Iterator[None]:
        """Inside, a signal only sets the flag."""
        self._training = True
        try:
            yield
        finally:
            self._training = False

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._asked = True
        if not self._training:  # nothing but training has anything to save
            raise KeyboardInterrupt


@contextmanager
def exclusive(run_dir: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the run directory: two workers on one round would overwrite each other.

    Args:
        run_dir: of the round.
        wait_s: seconds to wait for another worker to end.

    Raises:
        WorkerError: if another worker still holds it then.
    """
    deadline = time.monotonic() + wait_s
    with (run_dir / LOCK_FILE).open("w") as file:
        while not _locked(file):
            if time.monotonic() >= deadline:
                raise WorkerError(f"{run_dir}: another worker is at work on this round: wait for it or stop it")
            time.sleep(LOCK_PAUSE_S)
        yield


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lower_priority() -> None:
    """Run only when nothing else wants the processor: SCHED_IDLE for this process and its future threads.

    Niceness alone is not enough (docs/architecture.md has the measurement).
    """
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def die_first() -> None:
    """Of all processes on a machine without memory, the kernel shall take this one: it resumes, masks do not."""
    with suppress(OSError):  # only on Linux
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is what Python or PyTorch say when there is no memory left, on the processor or a GPU."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(part in words for part in ("out of memory", "allocate memory"))


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when the thread that started this process ends, so that nothing trains for a node that is gone.

    Linux only. ``parent`` is its process id; it may have died before this call.
    """
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
