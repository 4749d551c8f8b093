"""The process that owns the adaptation is killed while its worker trains: labels and round survive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from adaptation_fixtures import (
    DRIVE,
    TRAINING,
    WAIT_S,
    adaptation_settings,
    environment,
    make_registry,
    wait_until,
)

from ssada_core.adaptation.adapter import Adapter
from ssada_core.learning.progress import read_progress

CHILD = Path(__file__).with_name("adapter_child.py")


class Silent:
    def on_queries(self, records):
        pass

    def on_label(self, result):
        pass

    def on_promoted(self, version, reason):
        pass


@pytest.mark.timeout(600)
def test_no_label_and_no_round_is_lost_with_the_process(tmp_path):
    make_registry(tmp_path / "registry")
    progress = tmp_path / "rounds" / "round-0001" / "progress.jsonl"
    with (tmp_path / "said").open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, str(CHILD), str(tmp_path)],
            env=environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: len(read_progress(progress)) >= 3 or child.poll() is not None, "training", pause=0.01)
            assert child.poll() is None, (tmp_path / "said").read_text()
        finally:
            child.kill()
            child.wait(WAIT_S)
    lines = (tmp_path / "said").read_text().splitlines()
    acknowledged = dict(line.split()[1:] for line in lines if line.startswith("label "))
    assert len(acknowledged) == 6

    # At once, as a supervisor would: the old worker may still be writing its checkpoint.
    training = TRAINING.model_copy(update={"iterations": 40, "checkpoint_every": 1})
    adapter = Adapter(adaptation_settings(tmp_path, training=training), Silent(), lambda _: None)
    try:
        found = {record.query_id: record for record in adapter.pool.frames(states=["labelled"])}
        assert found.keys() == acknowledged.keys()
        for query_id, index in acknowledged.items():
            np.testing.assert_array_equal(adapter.pool.label(found[query_id]), DRIVE.frame(int(index), "night")[1])

        assert adapter.status()["phase"] == "training"
        before = [line.seconds for line in read_progress(progress)]
        clock = iter(range(10**6))
        wait_until(
            lambda: adapter.tick(next(clock)) or "version" in adapter.status()["decision"], "verdict", pause=0.05
        )
        assert adapter.status()["failure"] == ""
        assert adapter.status()["decision"]["version"] == "v0002"
        after = read_progress(progress)
        assert [line.iteration for line in after] == list(range(1, 41))
        assert [line.seconds for line in after][: len(before)][:3] == before[:3], "the first iterations were kept"
        assert [path.name for path in sorted((tmp_path / "rounds").glob("round-*"))] == ["round-0001"]
    finally:
        adapter.close()
