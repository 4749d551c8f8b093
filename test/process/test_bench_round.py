"""The training beside ``ssada bench node``: a real worker that ends by itself says why, and is not signalled again."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from adaptation_fixtures import ENGINE, children, make_registry

from ssada_core.errors import SsadaError
from ssada_core.store.manifest import WEIGHTS_FILE
from ssada_ros.bench_round import paused_round

SIZE = (64, 96)


def test_a_training_that_cannot_start_says_why(tmp_path: Path) -> None:
    make_registry(tmp_path / "registry")
    weights = tmp_path / "registry" / "v0001" / WEIGHTS_FILE
    weights.chmod(0o644)
    weights.write_bytes(b"damaged")
    with (
        pytest.raises(SsadaError, match=rf"training beside the node failed: exit status 1: .*{WEIGHTS_FILE}"),
        paused_round(tmp_path, tmp_path / "registry", SIZE, ENGINE),
    ):
        pytest.fail("a round began on damaged weights")


def test_a_training_that_ends_in_its_turn_says_why(tmp_path: Path) -> None:
    make_registry(tmp_path / "registry")
    with pytest.raises(SsadaError, match="training beside the node ended: signal SIGKILL"):
        kill_in_its_turn(tmp_path)


def kill_in_its_turn(folder: Path) -> None:
    with paused_round(folder, folder / "registry", SIZE, ENGINE) as training, training.going_on():
        worker = worker_of(folder)
        os.kill(worker, signal.SIGKILL)
        os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)  # dead, and not yet asked for its status


def worker_of(folder: Path) -> int:
    """The child of this process that trains there."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in children(os.getpid())}
    (worker,) = [pid for pid, command in commands.items() if str(folder / "round") in command]
    return worker
