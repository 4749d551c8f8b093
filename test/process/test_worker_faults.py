"""What a round's process meets on a machine that is not well: it hangs, or there is no memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from adaptation_fixtures import (
    TRAINING,
    environment,
    fill_pool,
    make_registry,
    round_spec,
    wait_until,
)

from ssada_core.adaptation.round import PROGRESS_FILE, write_round
from ssada_core.adaptation.worker_guards import HEARTBEAT_FILE, OUT_OF_MEMORY, ran_out_of_memory
from ssada_core.adaptation.worker_process import Watchdog, WorkerProcess
from ssada_core.learning.progress import read_progress

LONG = TRAINING.model_copy(update={"iterations": 100_000, "checkpoint_every": 1})


@pytest.fixture
def vehicle(tmp_path: Path) -> Path:
    make_registry(tmp_path / "registry")
    fill_pool(tmp_path / "pool")
    return tmp_path


def iterations(run_dir: Path) -> list[int]:
    return [line.iteration for line in read_progress(run_dir / PROGRESS_FILE)]


def test_a_hung_worker_is_killed_and_resumes(vehicle: Path) -> None:
    """SIGSTOP is the purest way to hang: the process lives, ignores SIGTERM, and gets nowhere."""
    run_dir = vehicle / "run"
    write_round(run_dir, round_spec(vehicle, training=LONG))
    worker = WorkerProcess(run_dir, restarts=1)
    try:
        first = worker.pid
        wait_until(lambda: len(iterations(run_dir)) >= 2, "the first iterations")
        assert (run_dir / HEARTBEAT_FILE).exists()
        assert Path(f"/proc/{first}/oom_score_adj").read_text().strip() == "1000", "the kernel's first choice"
        worker._watchdog.seconds = 5.0  # until here it may have taken long to import
        os.kill(first, signal.SIGSTOP)
        done = iterations(run_dir)[-1]
        wait_until(lambda: worker.poll() == "running" and worker.pid != first, "the restart", pause=0.1)
        assert worker.hung == 1
        worker._watchdog.seconds = 0.0
        wait_until(lambda: iterations(run_dir)[-1] >= done + 2, "the round to go on", pause=0.1)
        assert iterations(run_dir) == list(range(1, iterations(run_dir)[-1] + 1)), "no iteration is lost or done twice"

        os.kill(worker.pid, signal.SIGSTOP)
        worker._watchdog.seconds = 0.2
        wait_until(lambda: worker.poll() == "failed", "the end: no restart is left", pause=0.1)
        assert worker.failure().startswith("signal SIGKILL (no progress for 0 s, 2 times)")
    finally:
        worker.stop()


def test_the_watchdog_sees_every_kind_of_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    watchdog = Watchdog(tmp_path, 10.0)
    for step, name in enumerate((HEARTBEAT_FILE, PROGRESS_FILE, PROGRESS_FILE)):
        now[0] += 9.0
        with (tmp_path / name).open("a") as file:
            file.write("x")
        os.utime(tmp_path / name, ns=(0, step - 10**18))  # the wall clock was set back by decades
        assert not watchdog.is_hung()
    now[0] += 10.5
    assert watchdog.is_hung()
    assert not Watchdog(tmp_path, 0.0).is_hung()


def test_a_worker_without_memory_says_so_in_one_line(vehicle: Path) -> None:
    run_dir = vehicle / "run"
    large = TRAINING.model_copy(update={"crop_height": 2048, "crop_width": 2048, "labelled_batch": 64})
    write_round(run_dir, round_spec(vehicle, training=large))
    # Room for the libraries, and not for a batch of 64 frames of 2048x2048.
    limit = 6 << 30
    program = (
        "import resource, runpy, sys; "
        f"resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit})); "
        "sys.argv = ['worker', sys.argv[1]]; runpy.run_module('ssada_core.adaptation.worker', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run_dir)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == f"not enough memory for the round: {OUT_OF_MEMORY}"
    assert "Traceback" not in done.stderr


def test_what_counts_as_no_memory() -> None:
    assert ran_out_of_memory(MemoryError())
    assert ran_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert ran_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not ran_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_killed_worker_names_memory_as_the_likely_reason(vehicle: Path) -> None:
    run_dir = vehicle / "run"
    write_round(run_dir, round_spec(vehicle, training=LONG))
    worker = WorkerProcess(run_dir, restarts=0)
    try:
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: worker.poll() == "failed", "its end")
        assert "the machine ran out of memory" in worker.failure()
    finally:
        worker.stop()
