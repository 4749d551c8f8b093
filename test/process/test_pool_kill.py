"""A process that writes frames and labels is killed at random moments: what it acknowledged is there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from ssada_core.labels import CAMVID
from ssada_core.store.pool import FramePool, PoolSettings

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from pool_child import label  # noqa: E402

KILLS = 20


def run_and_kill(root: Path, first: int, after: float) -> list[str]:
    """Start the child, kill it ``after`` seconds of work, return what it said in whole lines."""
    child = subprocess.Popen(
        [sys.executable, str(HERE / "pool_child.py"), str(root), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    said = bytearray()
    assert child.stdout is not None
    assert child.stderr is not None
    while not said.startswith(b"open\n"):
        part = os.read(child.stdout.fileno(), 4096)
        assert part, child.stderr.read().decode()
        said += part
    timer = threading.Timer(after, os.kill, (child.pid, signal.SIGKILL))
    timer.start()
    while part := os.read(child.stdout.fileno(), 4096):
        said += part
    timer.join()
    assert child.wait() == -signal.SIGKILL, child.stderr.read().decode()
    child.stdout.close()
    child.stderr.close()
    return said.decode()[: said.rfind(b"\n")].splitlines()[1:]


def test_every_acknowledged_label_survives_sigkill(tmp_path: Path) -> None:
    rng = random.Random(20)
    root = tmp_path / "pool"
    acknowledged: dict[str, int] = {}
    purging: set[str] = set()
    for kill in range(KILLS):
        for line in run_and_kill(root, 1 + kill * 10_000, rng.uniform(0.0, 0.4)):
            what, query_id, *seed = line.split()
            if what == "label":
                acknowledged[query_id] = int(seed[0])
            else:
                purging.add(query_id)
        with FramePool(root, PoolSettings(keep_free_share=0.0), label_space=CAMVID) as pool:
            assert pool.verify() == []
            check(pool, acknowledged, purging)
    assert len(acknowledged) - len(purging) > KILLS


def check(pool: FramePool, acknowledged: dict[str, int], purging: set[str]) -> None:
    found = {record.query_id: record for record in pool.frames(states=["labelled"])}
    for query_id, seed in acknowledged.items():
        if query_id in purging:
            continue  # the kill may have come before or after
        there = pool.label(found[query_id])
        # A correction (the odd seed) may be there though the kill came before it was said; never the other way.
        assert any(np.array_equal(there, label(candidate)) for candidate in {seed, seed | 1}), query_id


def test_a_second_process_waits_for_no_killed_one(tmp_path: Path) -> None:
    run_and_kill(tmp_path / "pool", 1, 0.2)
    started = time.monotonic()
    with FramePool(tmp_path / "pool", PoolSettings(keep_free_share=0.0), label_space=CAMVID) as pool:
        assert pool.verify() == []
    assert time.monotonic() - started < 5
