"""The demo's figures, on records made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from jsonschema import Draft202012Validator

from ssada_core.evaluation.evaluate import Evaluation
from ssada_core.labels import CAMVID
from ssada_ros.demo_drive import DriveLog
from ssada_ros.demo_monitor import DriveRecord, MaskRecord
from ssada_ros.demo_options import DemoOptions
from ssada_ros.demo_settings import DemoSettings
from ssada_ros.demo_stage import Stage
from ssada_ros.demo_summary import Judged, live_miou, summarise

pytestmark = pytest.mark.ros

MS = 1_000_000
START = 1_700_000_000_000 * MS
REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((REPOSITORY / "docs" / "schemas" / "summary.schema.json").read_text())


def matrix(right: int, wrong: int) -> np.ndarray:
    """Class 0 only: ``right`` pixels found, ``wrong`` taken for class 1."""
    counts = np.zeros((CAMVID.num_classes, CAMVID.num_classes), np.int64)
    counts[0, :2] = right, wrong
    return counts


def mask(at_ms: int, latency_ms: int, counts: np.ndarray | None = None) -> MaskRecord:
    return MaskRecord(START + at_ms * MS, START + (at_ms + latency_ms) * MS, counts)


def evaluation(right: int, wrong: int) -> Evaluation:
    return Evaluation(
        names=("a",),
        matrices=matrix(right, wrong)[None],
        histograms=matrix(right, wrong).sum(axis=0)[None],
        latencies_s=np.array([0.05]),
        finite=True,
        skipped=0,
    )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    settings = DemoSettings.model_validate({"drive": {"rate": 4.0}})
    return Stage(tmp_path, settings, DemoOptions(seed=5, command="ssada demo"), CAMVID, "sim:day", "sim:night", "")


@pytest.fixture
def log() -> DriveLog:
    return DriveLog([("source", START), ("target", START + 500 * MS), ("end", START + 2000 * MS)])


@pytest.fixture
def judged() -> Judged:
    return Judged("v0001", "v0002", evaluation(50, 50), evaluation(80, 20), None, None, None)


@pytest.fixture
def record() -> DriveRecord:
    return DriveRecord(
        published_ns=[START + ms * MS for ms in (0, 250, 500, 750, 1300)],
        masks=[mask(0, 40), mask(250, 60), mask(750, 100), mask(1300, 80), mask(999, 10)],
        versions=[("v0001", START), ("v0002", START + 700 * MS)],
        status={"labels": 12, "audit_labels": 3},
    )


def test_the_named_figures_by_hand(stage: Stage, record: DriveRecord, log: DriveLog, judged: Judged) -> None:
    record.masks.sort(key=lambda one: one.received_ns)
    decision = {"version": "v0002", "verdict": "promote", "words": "better at night", "probability": 0.97}
    summary = summarise(stage, record, log, judged, decision)
    Draft202012Validator(SCHEMA).validate(summary)
    assert summary["before"]["miou"] == pytest.approx(50.0)
    assert summary["after"]["miou"] == pytest.approx(80.0)
    assert (summary["labels_used"], summary["audit_labels"]) == (12, 3)
    assert (summary["frames_published"], summary["masks_received"]) == (5, 5)
    # The frame at 500 has no mask; the mask at 999 belongs to no published frame.
    assert summary["answered_share"] == pytest.approx(4 / 5)
    assert summary["period_s"] == 0.25
    # Arrivals at 40, 310, 850, 1009 and 1380 ms.
    assert summary["max_mask_gap_s"] == pytest.approx(0.540)
    assert summary["max_camera_gap_s"] == pytest.approx(0.550)
    assert summary["latency_ms"]["p50"] == 60.0
    assert summary["latency_ms"]["p99"] == pytest.approx(80 + 0.96 * 20)
    assert summary["swap"]["version"] == "v0002"
    assert summary["swap"]["promoted"] is True
    assert summary["swap"]["reason"] == "better at night"
    assert summary["swap"]["confidence"] == 0.97
    assert summary["phases"] == [
        {"name": "source", "start_s": 0.0},
        {"name": "target", "start_s": 0.5},
        {"name": "end", "start_s": 2.0},
    ]
    json.dumps(summary, allow_nan=False)


def test_a_frame_from_before_the_witness_heard_the_camera_counts(
    stage: Stage, record: DriveRecord, log: DriveLog, judged: Judged
) -> None:
    del record.published_ns[0]
    summary = summarise(stage, record, log, judged, {})
    assert summary["frames_published"] == 5
    assert summary["answered_share"] == pytest.approx(4 / 5)


def test_a_run_without_masks_or_round_is_described_too(stage: Stage, log: DriveLog, judged: Judged) -> None:
    summary = summarise(stage, DriveRecord(), log, judged, {})
    assert summary["answered_share"] == 0.0
    assert summary["max_mask_gap_s"] == 0.0
    assert summary["latency_ms"] == {"p50": None, "p99": None}
    assert summary["swap"]["promoted"] is False
    assert summary["swap"]["reason"] == "no round was finished"
    json.dumps(summary, allow_nan=False)


def test_live_miou_is_one_confusion_matrix_per_phase(log: DriveLog) -> None:
    record = DriveRecord(
        masks=[
            mask(0, 1, matrix(10, 0)),
            mask(100, 1, matrix(0, 30)),
            mask(499, 1),
            mask(500, 1, matrix(3, 1)),
        ]
    )
    assert live_miou(record, log) == {"source": 25.0, "target": 75.0}


def test_versions_are_known_by_the_stamp_of_their_first_frame(record: DriveRecord) -> None:
    assert record.version_at(START - 1) == ""
    assert record.version_at(START + 699 * MS) == "v0001"
    assert record.version_at(START + 700 * MS) == "v0002"
