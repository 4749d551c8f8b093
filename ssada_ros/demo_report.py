"""What the demo shows in the end: ``report.html``, a strip of pictures, and ``summary.json`` beside them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.data.lists import open_samples
from ssada_core.data.samples import Array, spread
from ssada_core.evaluation.evaluate import Evaluation
from ssada_core.evaluation.metrics import miou
from ssada_core.evaluation.overlay import before_after, stacked
from ssada_core.evaluation.report import (
    DriveReport,
    GateShown,
    Mark,
    ModelShown,
    PairShown,
    QueryShown,
    Span,
    Tile,
    Timeline,
    write_report,
)
from ssada_core.evaluation.report_system import system, versions
from ssada_core.store.files import write_atomic, write_json
from ssada_core.store.pool import FramePool
from ssada_ros.demo_drive import DriveLog
from ssada_ros.demo_monitor import DriveRecord, MaskRecord
from ssada_ros.demo_stage import Stage
from ssada_ros.demo_summary import Judged, deployed_engine, judge, last_decision, seconds, summarise

PAIRS_SHOWN = 6
LIVE_WINDOW = 10
"""Masks over which the live mIoU of the timeline is taken: 2 s at 5 Hz."""


def write_results(stage: Stage, record: DriveRecord, log: DriveLog) -> dict[str, Any]:
    """Judge the run and write ``summary.json``, ``strip.png`` and ``report.html``; returns the summary."""
    decision = last_decision(stage)
    judged = judge(stage, decision)
    summary = summarise(stage, record, log, judged, decision)
    write_json(stage.out / "summary.json", summary)
    pairs = _pairs(stage, judged)
    rows = [
        before_after(pair.image, pair.before, pair.after, stage.label_space)
        for pair in pairs
        if pair.before is not None
    ]
    _, png = cv2.imencode(".png", stacked(rows))
    write_atomic(stage.out / "strip.png", png.tobytes())
    write_report(stage.out / "report.html", _report(stage, record, log, judged, decision, summary, pairs))
    return summary


def _report(
    stage: Stage,
    record: DriveRecord,
    log: DriveLog,
    judged: Judged,
    decision: dict[str, Any],
    summary: dict[str, Any],
    pairs: Sequence[PairShown],
) -> DriveReport:
    frames = f"{summary['masks_received']} of {summary['frames_published']}"
    latency = summary["latency_ms"]
    return DriveReport(
        title="A drive that learned its road" if summary["swap"]["promoted"] else "A drive",
        subtitle=f"{stage.options.camera}, {stage.settings.drive.rate:g} Hz, seed {stage.options.seed}",
        label_space=stage.label_space,
        tiles=[
            Tile("labels used", str(summary["labels_used"]), f"{summary['audit_labels']} of them only judge"),
            Tile("masks", frames, f"longest gap {summary['max_mask_gap_s']:.2f} s"),
            Tile("latency", f"{latency['p50'] or 0:.0f} ms", f"p99 {latency['p99'] or 0:.0f} ms, camera to subscriber"),
        ],
        before=_model_shown(judged.before_version, judged.before),
        after=_model_shown(judged.after_version, judged.after),
        timeline=_timeline(record, log),
        queries=_queries(stage),
        pairs=pairs,
        gates=[GateShown.of(str(decision.get("version", "")), decision)] if decision.get("checks") else [],
        settings=stage.settings.model_dump(mode="json"),
        system=system(),
        versions=versions(),
        command=stage.options.command,
        notes=_notes(stage, summary),
    )


def _notes(stage: Stage, summary: dict[str, Any]) -> list[str]:
    notes = [
        f"mIoU before and after: both models as deployed, on {summary['before']['frames']} labelled frames "
        f"({summary['evaluation']}) that no part of the run saw."
    ]
    source = summary["source"]
    if source:
        notes.append(f"On the source's own frames: {source['before']:.1f} before, {source['after']:.1f} after.")
    if stage.options.annotator == "oracle":
        notes.append("The annotator was an oracle that answers with ground truth; a human takes longer.")
    return notes


def _model_shown(name: str, evaluation: Evaluation) -> ModelShown:
    return ModelShown(name, evaluation.miou, (100 * evaluation.iou).tolist(), len(evaluation.names))


def _timeline(record: DriveRecord, log: DriveLog) -> Timeline:
    ends = [start for _, start in log.phases[1:]]
    # Before the first mask there is nothing to see.
    phases = [(name, start, end) for (name, start), end in zip(log.phases, ends, strict=False) if name != "starting"]
    spans = [Span(seconds(start, log), seconds(end, log), name) for name, start, end in phases]
    if {"training", "decided"} <= log.moments.keys():
        training, decided = (seconds(log.moments[name], log) for name in ("training", "decided"))
        spans.append(Span(training, decided, "training", "training"))
    marks = [Mark(seconds(stamp, log), "swap", name) for name, stamp in record.versions[1:]]
    if "asked" in log.moments:
        marks.append(Mark(seconds(log.moments["asked"], log), "query"))
    return Timeline(
        latency=[(seconds(mask.stamp_ns, log), mask.latency_ms) for mask in record.masks],
        miou=_rolling_miou(record.masks, log),
        spans=spans,
        marks=marks,
    )


def _rolling_miou(masks: Sequence[MaskRecord], log: DriveLog) -> list[tuple[float, float]]:
    known = [(mask.stamp_ns, mask.matrix) for mask in masks if mask.matrix is not None]
    windows = range(LIVE_WINDOW, len(known) + 1, LIVE_WINDOW // 2)
    return [
        (seconds(known[end - 1][0], log), miou(_total([matrix for _, matrix in known[end - LIVE_WINDOW : end]])))
        for end in windows
    ]


def _total(matrices: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.asarray(np.sum(matrices, axis=0))


def _queries(stage: Stage) -> list[QueryShown]:
    with FramePool(stage.pool, stage.settings.adaptation.pool, label_space=stage.label_space) as pool:
        records = [record for record in pool.frames() if record.query_id is not None and record.image_file]
        return [
            QueryShown(str(record.query_id), pool.image(record), pool.label(record), record.audit, record.reason)
            for record in records
        ]


def _pairs(stage: Stage, judged: Judged) -> list[PairShown]:
    """Unseen frames spread over the drive, as both models see them."""
    samples = open_samples(stage.evaluation, stage.label_space)
    shown = spread(samples, PAIRS_SHOWN)
    images = [shown.image(index) for index in range(len(shown))]
    before, after = (_labels(stage, name, images) for name in (judged.before_version, judged.after_version))
    names = [shown.name(index) for index in range(len(shown))]
    return [PairShown(*row) for row in zip(names, images, before, after, strict=True)]


def _labels(stage: Stage, name: str, images: Sequence[Array]) -> list[Array]:
    with closing(deployed_engine(stage, name)) as engine:
        return [engine.infer([image])[0].label for image in images]
