"""SIGKILL at random moments, again and again: pool, registry, training worker, annotation page.

16 kills in ``make test`` (and 20 more in test_pool_kill.py), 200 in ``make test-slow``. After each one everything
that was acknowledged is there, and nothing needs a repair by hand.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from adaptation_fixtures import (
    TRAINING,
    environment,
    fill_pool,
    make_registry,
    round_spec,
    worker_command,
)
from registry_child import KEEP
from test_pool_kill import check, run_and_kill

from ssada_core.adaptation.round import PROGRESS_FILE, RESULT_FILE, read_result, write_round
from ssada_core.annotation.desk import Desk
from ssada_core.data.encodings import encode_png
from ssada_core.labels import CAMVID
from ssada_core.learning.progress import read_progress
from ssada_core.store.pool import FramePool, PoolSettings
from ssada_core.store.registry import ModelRegistry

HERE = Path(__file__).resolve().parent

few = pytest.param(4, id="few")
many = pytest.param(50, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])


@pytest.mark.parametrize("kills", [few, many])
def test_the_pool(tmp_path: Path, kills: int, record_property) -> None:
    rng = random.Random(kills)
    acknowledged: dict[str, int] = {}
    purging: set[str] = set()
    slowest = 0.0
    for kill in range(kills):
        for line in run_and_kill(tmp_path / "pool", 1 + kill * 10_000, rng.uniform(0.0, 0.6)):
            what, query_id, *seed = line.split()
            if what == "label":
                acknowledged[query_id] = int(seed[0])
            else:
                purging.add(query_id)
        start = time.monotonic()
        with FramePool(tmp_path / "pool", PoolSettings(keep_free_share=0.0), label_space=CAMVID) as pool:
            slowest = max(slowest, time.monotonic() - start)
            assert pool.verify() == []
            check(pool, acknowledged, purging)
    assert len(acknowledged) > kills
    report(record_property, kills, f"{len(acknowledged)} labels acknowledged", slowest)


@pytest.mark.parametrize("kills", [few, many])
def test_the_registry(tmp_path: Path, kills: int, record_property) -> None:
    rng = random.Random(kills)
    switches, slowest = 0, 0.0
    root = tmp_path / "registry"
    for kill in range(kills):
        said = run_registry_and_kill(root, seed=kill, after=rng.uniform(0.0, 0.5))
        start = time.monotonic()
        registry = ModelRegistry(root, KEEP)
        current = registry.current()
        slowest = max(slowest, time.monotonic() - start)
        history = registry.history()
        switches += len(said)
        if said:  # at most one switch was under way, and its entry is written before it takes effect
            acknowledged = [index for index, entry in enumerate(history) if entry["version"] == said[-1]][-1]
            assert len(history) - acknowledged <= 2
            assert current in {entry["version"] for entry in history[acknowledged:]}
        for version in registry.versions():
            registry.verify(version)
        assert not list(root.glob(".*.json.*")), "no half of a file"
    make_registry(root)  # the next addition clears what a killed one left
    assert [path.name for path in root.glob(".v*")] == []
    assert switches >= kills // 4, "killed before anything was done"
    report(record_property, kills, f"{switches} switches acknowledged", slowest)


def run_registry_and_kill(root: Path, *, seed: int, after: float) -> list[str]:
    """Versions that the child said were current, in order."""
    child = subprocess.Popen(
        [sys.executable, str(HERE / "registry_child.py"), str(root), str(seed)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    timer = threading.Timer(after, child.kill)
    timer.start()
    lines = [line for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    timer.join()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    return [line.split()[1] for line in lines]


@pytest.mark.parametrize("kills", [few, many])
@pytest.mark.timeout(900)
def test_the_worker(tmp_path: Path, kills: int, record_property) -> None:
    """Killed anywhere between its first import and its last file; each round ends as if nothing had been."""
    rng = random.Random(kills)
    registry = make_registry(tmp_path / "registry")
    fill_pool(tmp_path / "pool")
    done, rounds, run_dir = 0, 0, tmp_path / "round-0"
    write_round(run_dir, round_spec(tmp_path))
    life_s = 8.0
    while done < kills or not (run_dir / RESULT_FILE).exists():
        start = time.monotonic()
        child = subprocess.Popen(worker_command(run_dir), env=environment(), stderr=subprocess.PIPE, text=True)
        timer = threading.Timer(rng.uniform(0.0, life_s), child.kill)
        if done < kills:
            timer.start()
        _, said = child.communicate(timeout=240)
        timer.cancel()
        assert child.returncode in (0, -signal.SIGKILL), said
        done += child.returncode == -signal.SIGKILL
        for version in registry.versions():
            registry.verify(version)
        if child.returncode == 0:
            life_s = time.monotonic() - start
            assert [line.iteration for line in read_progress(run_dir / PROGRESS_FILE)] == list(
                range(1, TRAINING.iterations + 1)
            )
            registry.verify(read_result(run_dir).challenger)
            if done < kills:
                rounds += 1
                run_dir = tmp_path / f"round-{rounds}"
                write_round(run_dir, round_spec(tmp_path, training=TRAINING.model_copy(update={"seed": rounds})))
    assert len(registry.versions()) == min(rounds + 2, registry.settings.keep + 1)
    report(record_property, kills, f"{rounds + 1} rounds finished", 0.0)


@pytest.mark.parametrize("kills", [few, many])
@pytest.mark.timeout(900)
def test_the_annotation_page(tmp_path: Path, kills: int, record_property) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed: pip install '.[annotate]'")
    from annotate_fixtures import SIZE, Server, open_pool
    from annotate_fixtures import fill_pool as fill_queries

    rng = random.Random(kills)
    queries = fill_queries(tmp_path / "pool", frames=6, predictions=False)
    server = Server(tmp_path / "pool")
    labels: dict[str, bytes] = {}
    drafts: dict[str, bytes] = {}
    total, slowest = 0, 0.0
    for kill in range(kills):
        start = time.monotonic()
        server.start()
        slowest = max(slowest, time.monotonic() - start)
        client = Client(server, queries, SIZE, seed=kill)
        thread = threading.Thread(target=client.run)
        thread.start()
        time.sleep(rng.uniform(0.0, 0.8))
        server.stop(signal.SIGKILL)
        client.stopping.set()
        thread.join(60)
        total += client.acknowledged
        labels |= client.labels
        drafts |= client.drafts
        with open_pool(tmp_path / "pool") as pool, closing(Desk(tmp_path / "pool", 45.0)) as desk:
            assert pool.verify() == []
            for query_id, given in labels.items():
                newest = pool.label(pool.by_query(query_id))
                assert newest is not None
                # The one after it may have been stored before the kill kept the answer from coming.
                assert newest.tobytes() in (given, client.under_way.get(query_id)), query_id
                labels[query_id] = newest.tobytes()
            for query_id in drafts:  # a draft goes only with the label that is made of it
                assert desk.draft(query_id, "test") is not None or pool.by_query(query_id).state == "labelled"
    assert total > kills
    report(record_property, kills, f"{total} labels acknowledged", slowest)


class Client:
    """Gives labels and drafts as fast as the page takes them, until it is gone."""

    def __init__(self, server, queries: list[str], size: tuple[int, int], *, seed: int) -> None:
        self._server, self._queries, self._size = server, queries, size
        self._rng = np.random.default_rng(seed)
        self.labels: dict[str, bytes] = {}
        self.drafts: dict[str, bytes] = {}
        self.under_way: dict[str, bytes] = {}
        self.acknowledged = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        for step in range(10**6):
            query_id = self._queries[step % len(self._queries)]
            label = self._rng.integers(0, 11, self._size, dtype=np.uint8)
            self.under_way[query_id] = label.tobytes()
            try:
                self._draft(query_id, label)
                answer = self._send(f"/api/queries/{query_id}/label?confirmed=true", encode_png(label), "POST")
            except OSError:
                return  # killed
            assert b'"accepted"' in answer, answer
            self.labels[query_id] = label.tobytes()
            self.acknowledged += 1
            if self.stopping.is_set():
                return

    def _draft(self, query_id: str, label: np.ndarray) -> None:
        png = encode_png(np.vstack([label, np.full_like(label, 1)]))
        self._send(f"/api/queries/{query_id}/draft", png, "PUT")
        self.drafts[query_id] = png

    def _send(self, path: str, body: bytes, method: str) -> bytes:
        headers = {"X-Holder": "test", "X-Person": "test", "X-Name": "test", "Content-Type": "image/png"}
        request = urllib.request.Request(self._server.origin + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())


def report(record_property, kills: int, words: str, slowest: float) -> None:
    """Put the figures into the test's report, and hold the time of a restart."""
    record_property("kills", kills)
    record_property("slowest_restart_s", round(slowest, 2))
    sys.stdout.write(f"{kills} kills: {words}, slowest restart {slowest:.2f} s, 0 repairs\n")
