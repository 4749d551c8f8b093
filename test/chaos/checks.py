"""What must hold after a storm, whatever the storm was."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass

from annotator import Ledger
from stage import ENGINE, Stage, running
from storm import Log
from watch import Seen

from ssada_core.data.samples import ArraySamples
from ssada_core.errors import ModelError
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.load import load_engine
from ssada_core.labels import CAMVID
from ssada_core.store.pool import FramePool
from ssada_core.store.registry import ModelRegistry

JUDGED = 60
"""Frames of each domain, not driven on, on which first and current model are compared with exact labels."""
MARGIN = {"night": 2.0, "day": 3.0}
"""Points of mIoU by which the current model may be below the first one: the gate's own margins."""
SETTLED_S = 0.6
"""A frame this short before an end may still have been on its way."""


@dataclass
class Report:
    """Figures, and what does not hold."""

    figures: dict[str, object]
    broken: list[str]


def masks(seen: Seen, log: Log, begun: float, end: float) -> dict[str, object]:
    """Share of frames with a mask while segmentation served, and the longest wait for a mask after an outage.

    It serves from its first mask (again) to its next outage. A wait counts from the end of the outage's reason, and
    only where frames came. Frames without a mask are listed, in seconds from the storm's beginning.
    """
    answered = sorted(seen.masks.values())
    frames = sorted(seen.frames.items(), key=lambda item: item[1])
    begin, served = (answered[0] if answered else end), 0
    missing: list[float] = []
    waits: list[float] = []
    for start, until in [(outage.start, outage.until) for outage in log.outages] + [(end, end)]:
        shown = [(stamp, at) for stamp, at in frames if begin <= at <= start - SETTLED_S]
        served += len(shown)
        missing += [round(at - begun, 2) for stamp, at in shown if stamp not in seen.masks]
        if start == end:
            break
        after = {stamp: at for stamp, at in frames if at > until}
        back = min((seen.masks[stamp] for stamp in after if stamp in seen.masks), default=end)
        first_frame = min(after.values(), default=back)
        waits.append(max(0.0, back - max(until, first_frame)))
        begin = back
    return {
        "frames": served,
        "masks": served - len(missing),
        "share": 1.0 - len(missing) / served if served else 0.0,
        "longest_wait_s": max(waits, default=0.0),
        "outages": len(waits),
        "without_mask": missing,
    }


def lost_labels(pool: FramePool, ledger: Ledger) -> list[str]:
    """Acknowledged labels that the pool does not have, one line each."""
    lost = []
    for query_id, labels in ledger.accepted.items():
        history = [version for version in pool.label_history(query_id) if version.status == "accepted"]
        kept = [pool.read_label(version).tobytes() for version in history]
        lost += [f"label {number} of {query_id} is lost" for number, label in enumerate(labels) if label not in kept]
        record = pool.by_query(query_id)
        if record.state != "labelled":
            lost.append(f"query {query_id} is {record.state}")
    return lost


def models(stage: Stage) -> tuple[dict[str, object], list[str]]:
    """First and current model on exact labels that neither saw, and where the current one is worse."""
    registry = stage.open_registry()
    first, current = str(registry.first()), registry.current_or_fail()
    figures: dict[str, object] = {"first": first, "current": current, "versions": registry.versions()}
    broken: list[str] = []
    for domain, margin in MARGIN.items():
        drive = stage.drive()
        pairs = [drive.frame(100_000 + 7 * index, domain) for index in range(JUDGED)]
        samples = ArraySamples([image for image, _ in pairs], [label for _, label in pairs])
        values = {}
        for version in {first, current}:
            with closing(load_engine(registry.path(version), ENGINE)) as engine:
                values[version] = evaluate(engine, samples, CAMVID.num_classes).miou
        figures[domain] = {"first": round(values[first], 2), "current": round(values[current], 2)}
        if values[current] < values[first] - margin:
            broken.append(f"{current} has {values[current]:.1f} mIoU by {domain}, {first} had {values[first]:.1f}")
    return figures, broken


def stores(stage: Stage, ledger: Ledger) -> tuple[dict[str, object], list[str]]:
    """Pool and registry, opened as a restarted vehicle would."""
    broken: list[str] = []
    registry = stage.open_registry()
    broken += [why for version in registry.versions() if (why := damage(registry, version))]
    with stage.open_pool() as pool:
        broken += pool.verify()
        broken += lost_labels(pool, ledger)
        stats = pool.stats()
    rounds = sorted(stage.rounds.glob("round-*/decision.json"))
    verdicts = [json.loads(path.read_bytes()).get("verdict") for path in rounds]
    broken += [f"left behind: {path}" for path in stage.registry.glob(".v*") if path.suffix != ".tmp"]
    figures: dict[str, object] = {
        "frames": dict(stats.counts),
        "acknowledged": sum(map(len, ledger.accepted.values())),
        "answers": ledger.counts,
        "poisoned": ledger.poisoned,
        "poison_accepted": ledger.poison_accepted,
        "rounds": len(rounds),
        "verdicts": {str(name): verdicts.count(name) for name in set(verdicts)},
        "promotions": sum(entry["action"] == "promote" for entry in registry.history()) - 1,
    }
    return figures, broken


def damage(registry: ModelRegistry, version: str) -> str:
    """What is wrong with a version; "" where nothing is."""
    try:
        registry.verify(version)
    except ModelError as error:
        return str(error)
    return ""


def left_behind(stage: Stage) -> list[str]:
    """Processes of the run that outlived it."""
    return [f"process {pid} is left: {line[:100]}" for pid, line in running(stage)]
