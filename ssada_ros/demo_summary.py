"""What the demo measured: the figures of ``summary.json``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssada_core.adaptation.round import DECISION_FILE
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import Samples, spread
from ssada_core.evaluation.evaluate import Evaluation, evaluate
from ssada_core.evaluation.metrics import miou
from ssada_core.inference.engine import Engine
from ssada_core.inference.load import load_engine
from ssada_core.store.files import read_json
from ssada_core.store.registry import ModelRegistry
from ssada_ros.demo_drive import DriveLog
from ssada_ros.demo_monitor import DriveRecord
from ssada_ros.demo_stage import Stage


@dataclass(frozen=True)
class Judged:
    """The model before and the model in use at the end, as deployed, on frames that no part of the run saw."""

    before_version: str
    after_version: str
    before: Evaluation
    after: Evaluation
    source_before: Evaluation | None
    source_after: Evaluation | None
    challenger: tuple[str, Evaluation] | None


def judge(stage: Stage, decision: dict[str, Any]) -> Judged:
    """Evaluate first and current model on the unseen frames, and on source frames against forgetting."""
    registry = ModelRegistry(stage.registry)
    first, current = str(registry.first()), str(registry.current())
    unseen = open_samples(stage.evaluation, stage.label_space)
    count = stage.settings.drive.source_eval_frames
    source = spread(open_samples(stage.source_evaluation, stage.label_space), count) if count else None
    evaluations = {name: _evaluate(stage, name, unseen) for name in dict.fromkeys((first, current))}
    on_source = {name: _evaluate(stage, name, source) for name in evaluations} if source is not None else {}
    challenger = str(decision.get("version") or "")
    refused = challenger and challenger not in evaluations
    return Judged(
        before_version=first,
        after_version=current,
        before=evaluations[first],
        after=evaluations[current],
        source_before=on_source.get(first),
        source_after=on_source.get(current),
        challenger=(challenger, _evaluate(stage, challenger, unseen)) if refused else None,
    )


def _evaluate(stage: Stage, name: str, samples: Samples) -> Evaluation:
    with closing(deployed_engine(stage, name)) as engine:
        return evaluate(engine, samples, stage.label_space.num_classes)


def summarise(
    stage: Stage, record: DriveRecord, log: DriveLog, judged: Judged, decision: dict[str, Any]
) -> dict[str, Any]:
    """The figures of ``summary.json`` (schema: ``docs/schemas/summary.schema.json``); mIoU in percent."""
    masks = record.masks
    heard_ns = record.published_ns[0] if record.published_ns else 2**63 - 1
    # A mask proves that its frame was published, before the witness heard the camera.
    published = [*sorted(mask.stamp_ns for mask in masks if mask.stamp_ns < heard_ns), *record.published_ns]
    answered = {mask.stamp_ns for mask in masks} & set(published)
    latencies = [mask.latency_ms for mask in masks]
    p50, p99 = np.percentile(latencies, (50, 99)) if latencies else (None, None)
    return {
        "command": stage.options.command,
        "camera": stage.options.camera,
        "seed": stage.options.seed,
        "evaluation": stage.options.evaluation or stage.evaluation,
        "before": {"version": judged.before_version, **judged.before.summary(stage.label_space)},
        "after": {"version": judged.after_version, **judged.after.summary(stage.label_space)},
        "source": _source_summary(judged),
        "challenger": _challenger_summary(judged),
        "live": live_miou(record, log),
        "labels_used": record.status.get("labels", 0),
        "audit_labels": record.status.get("audit_labels", 0),
        "frames_published": len(published),
        "masks_received": len(masks),
        "answered_share": len(answered) / len(published) if published else 0.0,
        "period_s": 1.0 / stage.settings.drive.rate,
        "max_mask_gap_s": _largest_gap([mask.received_ns for mask in masks]),
        "max_camera_gap_s": _largest_gap(published),
        "latency_ms": {"p50": _rounded(p50), "p99": _rounded(p99)},
        "swap": {
            "version": decision.get("version", ""),
            "promoted": decision.get("verdict") == "promote",
            "reason": decision.get("words", "no round was finished"),
            "verdict": decision.get("verdict", "none"),
            "gate": stage.settings.adaptation.gate.policy,
            "confidence": decision.get("probability"),
            "audit_frames": decision.get("audit_frames", 0),
        },
        "training": decision.get("round", {}),
        "phases": [{"name": name, "start_s": seconds(start, log)} for name, start in log.phases],
    }


def live_miou(record: DriveRecord, log: DriveLog) -> dict[str, float]:
    """MIoU in percent of the masks as they came, by phase, where the drive has ground truth."""
    result = {}
    ends = [start for _, start in log.phases[1:]] + [2**63 - 1]
    for (name, start), end in zip(log.phases, ends, strict=True):
        matrices = [mask.matrix for mask in record.masks if start <= mask.stamp_ns < end and mask.matrix is not None]
        if matrices:
            result[name] = round(miou(np.sum(matrices, axis=0)), 2)
    return result


def deployed_engine(stage: Stage, name: str) -> Engine:
    """As the segmentation node ran it."""
    return load_engine(ModelRegistry(stage.registry).path(name), stage.settings.segmentation.engine)


def last_decision(stage: Stage) -> dict[str, Any]:
    """The gate's decision on the newest round that was finished, as stored; empty if there is none."""
    paths = sorted(stage.rounds.glob(f"round-*/{DECISION_FILE}"))
    return dict(read_json(paths[-1])) if paths else {}


def _source_summary(judged: Judged) -> dict[str, Any]:
    if judged.source_before is None or judged.source_after is None:
        return {}
    frames = len(judged.source_before.names)
    return {"frames": frames, "before": judged.source_before.miou, "after": judged.source_after.miou}


def _challenger_summary(judged: Judged) -> dict[str, Any]:
    """Figures of a challenger that was not promoted: what was turned down."""
    if judged.challenger is None:
        return {}
    return {"version": judged.challenger[0], "miou": judged.challenger[1].miou}


def _largest_gap(times_ns: Sequence[int]) -> float:
    return float(np.diff(times_ns).max()) / 1e9 if len(times_ns) > 1 else 0.0


def seconds(stamp_ns: int, log: DriveLog) -> float:
    """Seconds from the beginning of the run to a stamp of the system clock."""
    return round((stamp_ns - log.phases[0][1]) / 1e9, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 2)
