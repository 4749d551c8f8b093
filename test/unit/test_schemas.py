"""The JSON files that others read are as their schemas in docs/schemas say."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from ssada_core.adaptation.gate import GateSettings, Measurements, ModelMeasurement, decide
from ssada_core.adaptation.round import ROUND_FILE, RoundResult, RoundSpec, write_round
from ssada_core.evaluation.evaluate import Evaluation
from ssada_core.labels import CAMVID
from ssada_core.learning.progress import Progress, ProgressLog, read_progress
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.files import read_json, write_json
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.registry import ModelRegistry

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
NAMES = ("dossier", "expectations", "manifest", "round", "progress", "result", "decision", "summary", "report")
CLASSES = CAMVID.num_classes
RESULT = RoundResult(
    challenger="v0002",
    champion="v0001",
    iterations=3,
    seconds=1.5,
    labelled=4,
    audit=2,
    unlabelled=10,
    source=6,
    losses={"loss": 0.5},
    class_weights=[1.0] * CLASSES,
)


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")))


def test_there_is_a_schema_for_every_file_and_no_other():
    assert sorted(path.name for path in SCHEMAS.iterdir()) == sorted(f"{name}.schema.json" for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_valid_themselves(name: str):
    Draft202012Validator.check_schema(validator(name).schema)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """``manifest.json`` as the registry writes it."""
    network = NetworkSettings(input_height=64, input_width=64)
    registry = ModelRegistry(tmp_path_factory.mktemp("registry"))
    state = build_network(network, CLASSES, pretrained=False).state_dict()
    described = ModelManifest(version="", created="", network=network, label_space=CAMVID.to_dict(), parent="v0000")
    version = registry.add(state, described)
    registry.promote(version, {"verdict": "promote", "words": "by hand"})
    return dict(read_json(registry.path(version) / "manifest.json"))


def test_a_manifest_of_the_registry_fits(manifest: dict[str, Any]):
    validator("manifest").validate(manifest)
    assert set(manifest) == set(validator("manifest").schema["properties"])


@pytest.mark.parametrize(
    ("key", "value"), [("version", None), ("network", {"architecture": "unet"}), ("extra", 1), ("files", {"a": 1})]
)
def test_a_wrong_manifest_does_not_fit(manifest: dict[str, Any], key: str, value: object):
    with pytest.raises(ValidationError):
        validator("manifest").validate({**manifest, key: value})


def test_a_round_fits(tmp_path: Path):
    write_round(tmp_path, RoundSpec(pool_dir="pool", registry_dir="registry", champion="v0001", first="v0001"))
    written = yaml.safe_load((tmp_path / ROUND_FILE).read_text())
    validator("round").validate(written)
    with pytest.raises(ValidationError):
        validator("round").validate({**written, "training": {"iterations": 0}})


def test_progress_lines_fit(tmp_path: Path):
    path = tmp_path / "progress.jsonl"
    line = Progress(iteration=1, iterations=3, learning_rate=0.1, figures={"loss": 1.0}, seconds=0.2, eta_seconds=0.4)
    with ProgressLog(path, keep=0) as log:
        log.write(line)
    assert read_progress(path) == [line]
    for text in path.read_text().splitlines():
        validator("progress").validate(json.loads(text))


def test_a_result_fits(tmp_path: Path):
    write_json(tmp_path / "result.json", RESULT.model_dump(mode="json"))
    written = read_json(tmp_path / "result.json")
    validator("result").validate(written)
    with pytest.raises(ValidationError):
        validator("result").validate({key: value for key, value in written.items() if key != "challenger"})


def measured(correct: int, frames: int) -> ModelMeasurement:
    """A model that gets ``correct`` of 100 pixels of every class right and calls the rest the next class."""
    right = np.eye(CLASSES, dtype=np.int64)
    matrix = right * correct + np.roll(right, 1, axis=1) * (100 - correct)
    return ModelMeasurement(
        audit=np.repeat(matrix[None], frames, axis=0),
        source=np.repeat(matrix[None], 2, axis=0),
        histogram=matrix.sum(axis=0) * frames,
        latencies_s=np.full(frames, 0.01),
        finite=True,
    )


@pytest.mark.parametrize(
    ("frames", "challenger", "verdict"), [(12, 90, "promote"), (12, 20, "refuse"), (0, 90, "undecided")]
)
def test_decisions_fit(tmp_path: Path, frames: int, challenger: int, verdict: str):
    stamps = np.arange(frames, dtype=np.int64) * 10_000_000_000
    champion = measured(50, frames)
    decision = decide(Measurements(stamps, champion, measured(challenger, frames), champion), GateSettings(), CAMVID)
    assert decision.verdict == verdict
    content = {
        "version": RESULT.challenger,
        "champion": RESULT.champion,
        **decision.model_dump(mode="json"),
        "round": RESULT.model_dump(mode="json"),
    }
    write_json(tmp_path / "decision.json", content)
    validator("decision").validate(read_json(tmp_path / "decision.json"))
    with pytest.raises(ValidationError):
        validator("decision").validate({**content, "verdict": "perhaps"})


def test_a_failed_round_fits():
    validator("decision").validate({"verdict": "failed", "words": "the pool has no labelled frame"})


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    """``summary.json`` of a small invented drive, made by the demo's own function."""
    pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")
    from ssada_ros.demo_drive import DriveLog
    from ssada_ros.demo_monitor import DriveRecord, MaskRecord
    from ssada_ros.demo_options import DemoOptions
    from ssada_ros.demo_settings import DemoSettings
    from ssada_ros.demo_stage import Stage
    from ssada_ros.demo_summary import Judged, summarise

    matrix = np.eye(CLASSES, dtype=np.int64)[None]
    evaluation = Evaluation(("a",), matrix, matrix.sum(axis=1), np.array([0.01]), True, 0)
    stage = Stage(tmp_path, DemoSettings(), DemoOptions(), CAMVID, "sim:day", "sim:night", "")
    published = [1_000_000_000, 1_200_000_000, 1_500_000_000]
    masks = [MaskRecord(stamp, stamp + 50_000_000, matrix[0]) for stamp in published[:2]]
    record = DriveRecord(published, masks, [("v0001", published[0])], {"labels": 12, "audit_labels": 3})
    log = DriveLog([("starting", 900_000_000), ("target", 1_100_000_000), ("end", 1_600_000_000)])
    judged = Judged("v0001", "v0001", evaluation, evaluation, evaluation, evaluation, ("v0002", evaluation))
    decision = {"version": "v0002", "verdict": "refuse", "words": "Refused.", "probability": 0.2, "audit_frames": 3}
    values = summarise(stage, record, log, judged, {**decision, "round": RESULT.model_dump(mode="json")})
    write_json(tmp_path / "summary.json", values)
    return dict(read_json(tmp_path / "summary.json"))


def test_a_summary_fits_and_counts_right(summary: dict[str, Any]):
    validator("summary").validate(summary)
    assert set(summary) == set(validator("summary").schema["properties"])
    assert (summary["frames_published"], summary["masks_received"]) == (3, 2)
    assert summary["answered_share"] == pytest.approx(2 / 3)
    assert summary["max_mask_gap_s"] == pytest.approx(0.2)
    assert summary["max_camera_gap_s"] == pytest.approx(0.3)
    assert summary["latency_ms"] == {"p50": 50.0, "p99": 50.0}
    assert summary["before"]["miou"] == 100.0
    assert (summary["labels_used"], summary["audit_labels"]) == (12, 3)
    validator("result").validate(summary["training"])


REQUIRED = (
    "before.miou",
    "after.miou",
    "labels_used",
    "frames_published",
    "masks_received",
    "period_s",
    "max_mask_gap_s",
    "latency_ms.p50",
    "latency_ms.p99",
    "swap.version",
    "swap.promoted",
    "swap.reason",
    "swap.gate",
    "swap.confidence",
)


@pytest.mark.parametrize("path", REQUIRED)
def test_a_summary_without_a_figure_that_users_rely_on_does_not_fit(summary: dict[str, Any], path: str):
    *parents, leaf = path.split(".")
    broken = copy.deepcopy(summary)
    inner = broken
    for parent in parents:
        inner = inner[parent]
    del inner[leaf]
    with pytest.raises(ValidationError):
        validator("summary").validate(broken)
