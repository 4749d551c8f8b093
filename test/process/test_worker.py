"""Whole rounds by real worker processes, stopped and killed at every stage."""

from __future__ import annotations

import json
import os
import resource
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
    is_at_work,
    make_registry,
    round_spec,
    run_worker,
    wait_until,
    worker_command,
)

from ssada_core.adaptation.measurements import Measurements
from ssada_core.adaptation.round import (
    CHALLENGER_FILE,
    MEASUREMENTS_FILE,
    PROGRESS_FILE,
    RESULT_FILE,
    read_result,
    write_round,
)
from ssada_core.adaptation.worker_process import WorkerProcess
from ssada_core.learning.progress import read_progress
from ssada_core.store.manifest import WEIGHTS_FILE
from ssada_core.store.registry import ModelRegistry

LONG = TRAINING.model_copy(update={"iterations": 100_000})


@pytest.fixture
def vehicle(tmp_path: Path) -> Path:
    make_registry(tmp_path / "registry")
    fill_pool(tmp_path / "pool")
    return tmp_path


def start(run_dir: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        worker_command(run_dir, *more), env=environment(), stderr=subprocess.PIPE, text=True, **options
    )


def iterations(run_dir: Path) -> list[int]:
    return [line.iteration for line in read_progress(run_dir / PROGRESS_FILE)]


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def kill_when(run_dir: Path, condition, what: str) -> None:
    """Start the worker and SIGKILL it at the moment ``condition`` holds; it must not have ended by itself."""
    process = start(run_dir)
    try:
        wait_until(lambda: condition() or process.poll() is not None, what, pause=0.001)
        assert process.poll() is None, f"ended before {what}"
    finally:
        end(process)


def test_a_round_killed_at_every_stage_ends_as_an_unbroken_one(vehicle: Path) -> None:
    registry = ModelRegistry(vehicle / "registry")
    broken, whole = vehicle / "broken", vehicle / "whole"
    for run_dir in (broken, whole):
        write_round(run_dir, round_spec(vehicle))

    kill_when(broken, lambda: len(iterations(broken)) >= 3, "training, after a checkpoint")
    assert len(iterations(broken)) < TRAINING.iterations, "killed too late to show anything"
    building = registry.root / ".v0002.tmp"
    kill_when(broken, (building / WEIGHTS_FILE).exists, "registering")
    assert registry.versions() == ["v0001"]
    trained = (broken / PROGRESS_FILE).read_bytes()
    kill_when(broken, (broken / CHALLENGER_FILE).exists, "measuring")
    assert not (broken / RESULT_FILE).exists()

    done = run_worker(broken)
    assert (done.returncode, done.stderr) == (0, "")
    assert (broken / PROGRESS_FILE).read_bytes() == trained, "nothing is trained twice"
    assert iterations(broken) == list(range(1, TRAINING.iterations + 1))
    assert registry.versions() == ["v0001", "v0002"]
    assert not [path.name for path in registry.root.iterdir() if path.name.endswith((".tmp", ".old"))]
    registry.verify("v0002")

    # The unbroken round finds its weights registered already: had a single bit differed, there would be a v0003.
    assert run_worker(whole).returncode == 0
    assert registry.versions() == ["v0001", "v0002"]
    assert read_result(whole).challenger == read_result(broken).challenger == "v0002"
    assert read_result(whole).losses == read_result(broken).losses
    ours, theirs = (Measurements.load(run_dir / MEASUREMENTS_FILE) for run_dir in (broken, whole))
    assert (ours.challenger.audit == theirs.challenger.audit).all()
    assert ours.agreement is not None, "a source-free round measures forgetting by agreement"


def test_a_kill_before_the_version_was_noted_leaves_one_version(vehicle: Path) -> None:
    run_dir = vehicle / "run"
    write_round(run_dir, round_spec(vehicle))
    assert run_worker(run_dir).returncode == 0
    for name in (CHALLENGER_FILE, MEASUREMENTS_FILE, RESULT_FILE):
        (run_dir / name).unlink()
    assert run_worker(run_dir).returncode == 0
    assert json.loads((run_dir / CHALLENGER_FILE).read_bytes()) == {"version": "v0002"}
    assert ModelRegistry(vehicle / "registry").versions() == ["v0001", "v0002"]


def test_sigterm_saves_a_checkpoint_and_a_second_worker_is_refused(vehicle: Path) -> None:
    run_dir = vehicle / "run"
    write_round(run_dir, round_spec(vehicle, training=LONG, low_priority=True))
    process = start(run_dir)
    try:
        wait_until(lambda: len(iterations(run_dir)) >= 1, "the first iteration")
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            assert os.sched_getscheduler(int(task.name)) == os.SCHED_IDLE, task.name

        second = run_worker(run_dir)
        assert second.returncode == 1
        assert second.stderr == f"{run_dir}: another worker is at work on this round: wait for it or stop it\n"
        assert process.poll() is None

        process.terminate()
        assert process.wait(60) == 3
    finally:
        end(process)
    done = len(iterations(run_dir))
    checkpoint = (run_dir / "checkpoint.safetensors").read_bytes()
    state = json.loads(
        json.loads(checkpoint[8 : 8 + int.from_bytes(checkpoint[:8], "little")])["__metadata__"]["state"]
    )
    assert state["iteration"] == done, "not one finished iteration is lost"


def test_it_ends_with_its_parent(vehicle: Path) -> None:
    run_dir = vehicle / "run"
    write_round(run_dir, round_spec(vehicle, training=LONG, low_priority=True))
    program = (
        "import sys, time; from pathlib import Path; from ssada_core.adaptation.worker_process import WorkerProcess; "
        "print(WorkerProcess(Path(sys.argv[1])).pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(run_dir)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    try:
        assert os.sched_getscheduler(worker) == os.SCHED_IDLE, "already while it imports"
        wait_until(lambda: len(iterations(run_dir)) >= 1, "the first iteration")
        parent.kill()
        parent.communicate()
        wait_until(lambda: not is_at_work(worker), "the worker's end")
    finally:
        if is_at_work(worker):
            os.kill(worker, signal.SIGKILL)
    assert (run_dir / "checkpoint.safetensors").exists()


def test_a_worker_stopped_by_somebody_else_is_stopped_not_failed(vehicle: Path) -> None:
    run_dir = vehicle / "run"
    write_round(run_dir, round_spec(vehicle, training=LONG))
    worker = WorkerProcess(run_dir, restarts=1)
    try:
        wait_until(lambda: len(iterations(run_dir)) >= 1, "the first iteration")
        os.kill(worker.pid, signal.SIGTERM)
        wait_until(lambda: worker.poll() != "running", "its end")
        assert worker.poll() == "stopped"

        worker = WorkerProcess(run_dir, restarts=1)
        first = worker.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: worker.poll() == "running" and worker.pid != first, "the restart")
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: worker.poll() != "running", "its end")
        assert worker.poll() == "failed"
        assert worker.failure().startswith("signal SIGKILL")
    finally:
        worker.stop()


def test_failures_are_one_line(vehicle: Path) -> None:
    pack = vehicle / "pack.zip"
    pack.write_bytes(b"PK\x03\x04 cut off")
    write_round(vehicle / "pack_run", round_spec(vehicle, source_pack=str(pack)))
    failed = run_worker(vehicle / "pack_run")
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "pack.zip" in failed.stderr

    write_round(vehicle / "disk_run", round_spec(vehicle))
    full = start(
        vehicle / "disk_run",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    _, words = full.communicate(timeout=240)
    assert full.returncode == 1
    assert words.splitlines()[-1].endswith("the disk is full: free some space, or choose another disk")
    assert run_worker(vehicle / "disk_run").returncode == 0, "with room again the same command finishes"

    (vehicle / "registry" / "v0001" / WEIGHTS_FILE).unlink()
    write_round(vehicle / "weights_run", round_spec(vehicle))
    failed = run_worker(vehicle / "weights_run")
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "v0001" in failed.stderr

    failed = run_worker(vehicle / "nowhere")
    assert failed.returncode == 1
    assert "round.yaml" in failed.stderr
