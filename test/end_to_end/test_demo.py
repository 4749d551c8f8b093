"""``ssada demo`` as a user runs it, small: on real frames from a bag, and on the simulated drive with its swap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from ssada_core.data.bags import create_bag
from ssada_core.data.lists import ListSamples
from ssada_core.labels import CAMVID
from ssada_core.store.pool import FramePool, PoolSettings

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "summary.schema.json"
SMALL = (
    "adaptation.pool.rate=5",
    "adaptation.low_priority=false",  # on a machine that others use, an idle process may wait for minutes
    "adaptation.training.iterations=3",
    "adaptation.training.crop_height=64",
    "adaptation.training.crop_width=64",
    "adaptation.gate.stretch_s=0.5",
    "drive.before_s=2",
    "drive.after_s=3",
    "drive.source_frames=6",
    "drive.source_eval_frames=3",
    "drive.eval_frames=3",
    "drive.timeout_s=400",
)
# A short round gains clearly on a street at night, and pays for it by day.
PROMOTE_EASILY = (
    "adaptation.training.iterations=25",
    "adaptation.training.crop_height=96",
    "adaptation.training.crop_width=160",
    "adaptation.gate.probability=0.5",
    "adaptation.gate.min_gain=0",
    "adaptation.gate.min_audit_frames=1",
    "adaptation.gate.safety_margin=100",
    "adaptation.gate.source_margin=100",
    "adaptation.gate.max_latency_ratio=100",
    "adaptation.gate.collapse_share=0.9",
    "adaptation.gate.collapse_bound=0.99",
)


def demo(out: Path, *arguments: str) -> dict:
    command = [sys.executable, "-m", "ssada_ros.cli", "demo", "--no-view", "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, env=os.environ, check=False)
    logs = "\n".join(path.read_text()[-2000:] for path in sorted(out.glob("logs/*.log")))
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{logs}"
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(done.stdout) == summary  # standard output is the figures and nothing else
    jsonschema.validate(summary, json.loads(SCHEMA.read_text()))
    assert cv2.imread(str(out / "strip.png")) is not None
    assert "<html" in (out / "report.html").read_text()
    return summary


def some_lines(camvid: Path, name: str, out: Path, step: int, count: int) -> Path:
    lines = (camvid / f"{name}.txt").read_text().splitlines()[::step][:count]
    path = out / f"{name}.txt"
    path.write_text("".join(" ".join(str(camvid / word) for word in line.split()) + "\n" for line in lines))
    return path


@pytest.mark.shared_data
def test_real_frames_from_a_bag_are_segmented_asked_learned_and_judged(camvid, tmp_path, ros_domain):
    pool = ListSamples(some_lines(camvid, "dusk_pool", tmp_path, 4, 14), CAMVID)
    create_bag(pool, tmp_path / "bag", rate=5.0, compressed=True)
    source = some_lines(camvid, "source_day", tmp_path, 30, 12)
    some_lines(camvid, "dusk_val", tmp_path, 12, 4)
    out = tmp_path / "out"
    summary = demo(
        out,
        "--camera",
        f"bag:{tmp_path / 'bag'}",
        "--model",
        "sim-day",
        "--source-data",
        str(source),
        "--eval",
        "dusk_val",
        "--budget",
        "4",
        "--rate",
        "4",
        *SMALL,
        "adaptation.cycle.min_frames=12",
        "adaptation.cycle.batch=4",
        "adaptation.label_check.max_disagreement=1",
    )
    assert summary["labels_used"] == 4
    assert summary["audit_labels"] == 1
    assert summary["before"]["frames"] == 4
    assert summary["frames_published"] > 0
    assert summary["answered_share"] > 0.9
    assert summary["swap"]["reason"]
    with FramePool(out / "pool", PoolSettings(), label_space=CAMVID) as stored:
        asked = [record for record in stored.frames() if record.query_id]
        shown = [pool.image(index) for index in range(len(pool))]
        for record in asked:  # queries come from the drive and from nothing else
            image = stored.image(record)
            distances = [np.abs(image.astype(int) - frame).mean() for frame in shown]
            index = int(np.argmin(distances))
            assert distances[index] < 3.0
            np.testing.assert_array_equal(stored.label(record), pool.label(index))


def test_the_simulated_drive_ends_as_the_gate_decided(tmp_path, ros_domain):
    summary = demo(
        tmp_path / "out",
        "--budget",
        "8",
        "--seed",
        "3",
        *SMALL,
        *PROMOTE_EASILY,
        "adaptation.cycle.min_frames=12",
        "adaptation.cycle.batch=8",
        "adaptation.label_check.max_disagreement=1",
    )
    assert summary["before"]["version"] == "v0001"
    assert summary["swap"]["version"] == "v0002"
    # Few steps on few labels: what the gate says of them may be either, and the run must have followed it.
    assert summary["swap"]["verdict"] in {"promote", "refuse"}
    in_use = "v0002" if summary["swap"]["promoted"] else "v0001"
    assert summary["after"]["version"] == in_use
    if summary["swap"]["promoted"]:
        assert summary["after"]["miou"] > summary["before"]["miou"]
    assert summary["answered_share"] > 0.9
    assert summary["live"]["source"] > summary["live"]["target"], "the day model must visibly fail at night"
