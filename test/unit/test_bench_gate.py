"""The benchmarks of the guards: the gate's operating curve, honest rounds, the drift score, the long drive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from adaptation_fixtures import children, environment, is_at_work, manifest, wait_until
from PIL import Image
from typer.testing import CliRunner

from ssada_core.bench import drift, gate, honest
from ssada_core.cli import app
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.errors import ConfigError
from ssada_core.inference.load import read_model
from ssada_core.labels import CAMVID
from ssada_core.learning.settings import RoundTrainingSettings
from ssada_core.store.models import resolve_model
from ssada_core.store.registry import ModelRegistry

TARGET = "sim:night:7:0-64:4"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """sim-day, which is the better one here, and a spoilt copy of it."""
    root = tmp_path_factory.mktemp("pair") / "registry"
    registry = ModelRegistry(root)
    network, known = read_model(resolve_model("sim-day"))
    good = {name: value.clone() for name, value in network.state_dict().items()}
    rng = torch.Generator().manual_seed(0)
    bad = {
        name: value * (1 + 0.25 * torch.randn(value.shape, generator=rng)).abs() if value.is_floating_point() else value
        for name, value in good.items()
    }
    template = manifest().model_copy(update={"network": known.network, "label_space": known.label_space})
    registry.add(bad, template)
    registry.add(good, template.model_copy(update={"parent": "v0001"}))
    return root


def test_the_operating_curve_promotes_gains_and_no_losses(pair, tmp_path):
    bench = gate.GateBench(
        champion=f"{pair}@v0001",
        challenger=f"{pair}@v0002",
        target="sim:day:7:0-96:6",
        frames=16,
        rate=0.1,
        shares=(-0.2, 0.0, 1.0),
        audit_frames=(8, 16),
        trials=4,
    )
    figures = gate.measure(bench)
    rows = {row["share"]: row for row in figures["places"]}
    assert list(rows) == [-0.2, 0.0, 1.0]
    assert rows[0.0]["gain"] == 0.0
    assert rows[1.0]["gain"] > 10
    assert rows[1.0]["verdicts"]["first look"]["16"]["promote"] == 1.0
    assert rows[0.0]["verdicts"]["first look"]["16"] == {"promote": 0.0, "refuse": 1.0, "undecided": 0.0}
    assert figures["false_promotions"] == {"first look": 0.0, "with the second look": 0.0}
    assert f"| {rows[1.0]['gain']:+.2f} | – |" in gate.markdown(figures)
    equal = figures["equally_good"]
    assert 0 <= equal["first look"]["16"] <= equal["with the second look"]["16"] <= 0.5
    gate.plot(figures, tmp_path / "gate.png")
    assert Image.open(tmp_path / "gate.png").size[0] > 500
    with pytest.raises(ConfigError, match="16 target frames are labelled: draw fewer than 32"):
        gate.measure(bench.model_copy(update={"audit_frames": (32,), "shares": (0.0,)}))


def test_drift_is_measured_on_drives_of_the_same_and_of_another_road(tmp_path):
    file, picture = tmp_path / "drift.json", tmp_path / "drift.png"
    arguments = [
        "bench", "drift", "--model", "sim-day", "--source", "sim:day:100:0-640:20", "--same", "sim:day:5:0-150:5",
        "--changed", "sim:night:5:0-60:5", "--plot", str(picture), "--json", str(file),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert (figures["frames"], figures["false_alarms"]) == (30, 0)
    assert figures["found_after_frames"]["sim:night:5:0-60:5"] <= 10
    assert max(figures["scores"]["same"]) < 1 < max(figures["scores"]["changed"])
    assert picture.stat().st_size > 1000
    assert drift.ROAD == "source"


def honest_rounds(tmp_path, *, iterations: int) -> honest.HonestRounds:
    street = SimulatedDrive(seed=3, size=(96, 160), rate=0.2)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    names = []
    for index in range(24):
        image, label = street.frame(index, "night")
        Image.fromarray(image[..., ::-1]).save(tmp_path / "images" / f"{index:03d}.png")
        Image.fromarray(label).save(tmp_path / "labels" / f"{index:03d}.png")
        names.append(f"images/{index:03d}.png labels/{index:03d}.png")
    (tmp_path / "pool.txt").write_text("\n".join(names))
    return honest.HonestRounds(
        model="sim-day",
        pool=str(tmp_path / "pool.txt"),
        validation="sim:night:9:0-8:2",
        source="sim:day:100:0-160:20",
        out=str(tmp_path / "out"),
        labels=8,
        seeds=(0,),
        source_frames=8,
        training=RoundTrainingSettings(
            iterations=iterations, source_batch=1, labelled_batch=1, unlabelled_batch=1, crop_height=64, crop_width=96
        ),
    )


@pytest.mark.slow
def test_an_honest_round_is_trained_judged_and_compared_with_the_truth(tmp_path):
    bench = honest_rounds(tmp_path, iterations=2)
    (row,) = honest.run(bench, lambda _: None)
    assert row["verdicts"]["strict"]["audit_frames"] == 2
    assert row["gain"] == pytest.approx(row["after"] - row["before"])
    assert np.isfinite(row["gain"])
    assert honest.run(bench, lambda _: None) == [row], "a finished round is kept"
    assert "| 0 |" in honest.markdown([row])


@pytest.mark.slow
def test_no_honest_round_outlives_its_benchmark(tmp_path):
    bench = honest_rounds(tmp_path, iterations=100_000)
    (tmp_path / "bench.json").write_text(bench.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from ssada_core.bench import honest; "
        "honest.run(honest.HonestRounds.model_validate_json(Path(sys.argv[1]).read_text()), print)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "bench.json")]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        progress = tmp_path / "out" / "seed-0" / "round-1" / "progress.jsonl"
        wait_until(progress.exists, "the first iteration")
        (worker,) = children(process.pid)
        process.terminate()
        process.wait()
        wait_until(lambda: not is_at_work(worker), "the worker's end", seconds=20.0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_long_drive_runs_both_arms(tmp_path):
    file = tmp_path / "drive.json"
    arguments = ["bench", "long-drive", "--quick", "--out", str(tmp_path / "out"), "--json", str(file)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    arms = json.loads(file.read_text())["arms"]
    assert [row["phase"] for row in arms["guarded"]["rows"]] == ["start", "day", "night"]
    assert arms["unguarded"]["rows"][-1]["version"] != "v0001", "it swaps whatever comes"
    assert CAMVID.num_classes == 11
