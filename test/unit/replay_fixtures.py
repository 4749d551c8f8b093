"""Small replays: a real network with random weights, run by torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adaptation_fixtures import make_registry

from ssada_core.data.bag_recovery import RecoveredBag
from ssada_core.data.damage import Damage
from ssada_core.labels import CAMVID
from ssada_core.replay.figures import ReplayReport
from ssada_core.replay.recording import DriveFrame, Recording
from ssada_core.replay.run import ReplayOptions, run_replay
from ssada_core.replay.settings import RecordingSettings, ReplaySettings, TruthSettings

ENGINE = {"backend": "torch", "threads": 1}


def models(root: Path, count: int = 1) -> list[str]:
    """References to ``count`` different models."""
    make_registry(root, count)
    return [f"{root}@v{number:04d}" for number in range(1, count + 1)]


def settings(**values: Any) -> ReplaySettings:
    return ReplaySettings.model_validate({"engine": ENGINE, "bootstrap_samples": 200, **values})


# Any challenger passes: what is tested is when, not whether.
ANYTHING = {
    **{"min_gain": 0.0, "probability": 0.5, "min_agreement": 0.0, "domain_margin": 100.0, "safety_margin": 100.0},
    **{"collapse_bound": 0.999, "collapse_share": 0.999, "stretch_s": 0.4, "min_audit_frames": 2},
}


def adapting(**values):
    """A small adaptation: eight frames, four labels, one audit frame of every two, six iterations."""
    gate = {"policy": "lenient", "max_latency_ratio": 100.0, **values.pop("gate", {})}
    training = {
        "iterations": 4, "source_batch": 0, "labelled_batch": 1, "unlabelled_batch": 1, "crop_height": 64,
        "crop_width": 96, "checkpoint_every": 2, "prefetch": False,
        "freeze_batch_norm": True,  # it cannot learn from one image
    }  # fmt: skip
    adaptation = {
        "pool": {"rate": 100.0, "keep_free_share": 0.0, "standstill_threshold": 0.0, "duplicate_threshold": 0.0},
        "cycle": {
            "budget": 4, "batch": 4, "max_open": 4, "min_frames": 8, "frames_between": 1, "new_labels": 4,
            "cooldown_s": 1.0,
        },
        "acquisition": {"audit_every": 2},
        "label_check": {"max_disagreement": 1.0},  # its weights are random
        "gate": gate,
        "watch": {"frames": 0},  # it takes a model of random weights back
        "engine": ENGINE,
        "training": training,
        "low_priority": False,  # on a machine that others use, an idle process may wait for minutes
    }  # fmt: skip
    return settings(adaptation=adaptation, stretch_s=4.0, round_seconds=3.0, **values)


def replay(
    bag: Path,
    out: Path,
    references: Sequence[str],
    given: ReplaySettings | None = None,
    *,
    log: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> ReplayReport:
    return run_replay(
        ReplayOptions(bag=bag, out=out, models=tuple(references), command="ssada replay bag", **options),
        given or settings(),
        log=log,
    )


def record(bag: Path, recording: dict[str, Any] | None = None, **truth: Any) -> tuple[list[DriveFrame], Damage]:
    """The frames of a bag as they are played, and what was broken."""
    damage = Damage()
    opened = Recording(
        RecoveredBag(bag, damage), CAMVID, RecordingSettings(**(recording or {})), TruthSettings(**truth)
    )
    found = list(opened.frames())
    opened.note_gaps(5.0)
    return found, damage


def timeless(path: Path) -> str:
    """``report.json`` without what depends on the machine and the hour."""
    values = json.loads(path.read_text(encoding="utf-8"))
    for key in ("timing", "system"):
        del values[key]
    return json.dumps(values)
