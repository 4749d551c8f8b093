"""What makes the worker a good neighbour: it stops when told, runs alone, yields to others, ends with its parent."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ssada_core.errors import WorkerError

LOCK_FILE = "worker.lock"
LOCK_PAUSE_S = 0.2
"""Seconds between two tries to get the lock."""


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


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when the thread that started this process ends, so that nothing trains for a node that is gone.

    Linux only. ``parent`` is its process id; it may have died before this call.
    """
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
