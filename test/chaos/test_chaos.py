"""Two minutes of storm: ``make chaos MINUTES=2`` as CI runs it, and what its checks would find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")
pytest.importorskip("fastapi", reason="fastapi is not installed: pip install '.[annotate]'")

CHAOS = Path(__file__).resolve().with_name("chaos.py")
# CI shares its processors with others: what is a matter of time is asked less strictly than `make chaos` does.
BUSY = ("--share", "0.9", "--longest-wait", "40")

pytestmark = pytest.mark.ros


@pytest.mark.timeout(900)
def test_two_minutes_of_storm(tmp_path: Path) -> None:
    command = [sys.executable, str(CHAOS), "--minutes", "2", "--seed", "2", "--out", str(tmp_path / "chaos"), *BUSY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith("chaos: ok, seed 2, 2 min, ")
