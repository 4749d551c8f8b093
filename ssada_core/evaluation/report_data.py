"""What a drive report shows, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssada_core.data.samples import Array
from ssada_core.evaluation.report_figures import Timeline
from ssada_core.labels import LabelSpace


@dataclass(frozen=True)
class Tile:
    """One figure of the summary."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class ModelShown:
    """A model's quality on the labelled frames, in percent.

    Attributes:
        version: its name in the registry.
        miou: mIoU.
        iou: one value per class; NaN where the class is absent from the ground truth.
        frames: labelled frames it was measured on.
    """

    version: str
    miou: float
    iou: Sequence[float]
    frames: int


@dataclass(frozen=True)
class QueryShown:
    """A frame that a human was asked about, with the label given (None: open or skipped)."""

    name: str
    image: Array
    label: Array | None = None
    audit: bool = False
    note: str = ""


@dataclass(frozen=True)
class PairShown:
    """A frame as segmented before and after the adaptation."""

    name: str
    image: Array
    before: Array
    after: Array
    note: str = ""


@dataclass(frozen=True)
class CheckShown:
    """One of the gate's conditions."""

    name: str
    passed: bool
    words: str
    judged: bool = True


@dataclass(frozen=True)
class GateShown:
    """The gate's decision on one challenger."""

    version: str
    verdict: str
    words: str
    checks: Sequence[CheckShown] = ()

    @classmethod
    def of(cls, version: str, decision: Mapping[str, Any]) -> GateShown:
        """From a decision as stored in a manifest (``Decision.model_dump``)."""
        checks = [
            CheckShown(str(check["name"]), bool(check["passed"]), str(check["words"]), bool(check.get("judged", True)))
            for check in decision.get("checks", [])
        ]
        return cls(version, str(decision["verdict"]), str(decision["words"]), checks)


@dataclass(frozen=True)
class DriveReport:
    """All that the page shows; whatever is empty is left out of it.

    Attributes:
        title: heading of the page.
        label_space: names and colours of the classes.
        subtitle: one line under the heading: date, vehicle, recording.
        tiles: further summary figures, after those that follow from ``before``, ``after`` and ``gates``.
        before: the model the drive began with.
        after: the model it ended with.
        timeline: latency, live mIoU, phases, queries, trainings and swaps.
        queries: frames asked about.
        pairs: frames before and after.
        gates: decisions in the order they were made.
        settings: nested mapping of all settings.
        system: machine, cores, memory, …
        versions: of the software.
        command: the exact command line.
        notes: what a reader must know to read the figures right.
    """

    title: str
    label_space: LabelSpace
    subtitle: str = ""
    tiles: Sequence[Tile] = ()
    before: ModelShown | None = None
    after: ModelShown | None = None
    timeline: Timeline = field(default_factory=Timeline)
    queries: Sequence[QueryShown] = ()
    pairs: Sequence[PairShown] = ()
    gates: Sequence[GateShown] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    notes: Sequence[str] = ()
