"""Small replays: a real network with random weights, run by torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def replay(
    bag: Path, out: Path, references: Sequence[str], given: ReplaySettings | None = None, **options: Any
) -> ReplayReport:
    return run_replay(
        ReplayOptions(bag=bag, out=out, models=tuple(references), command="ssada replay bag", **options),
        given or settings(),
        log=lambda _: None,
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
