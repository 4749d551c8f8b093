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
    """A frame as segmented before and after the adaptation, or by two models.

    Attributes:
        name: of the frame.
        image: uint8 H×W×3 BGR.
        before: labels on the left of the slider; None shows the bare frame there.
        after: labels on its right.
        note: figures.
        group: heading it stands under.
        sides: names of left and right.
    """

    name: str
    image: Array
    before: Array | None
    after: Array
    note: str = ""
    group: str = "Before and after"
    sides: tuple[str, str] = ("before", "after")


@dataclass(frozen=True)
class StretchShown:
    """A stretch of the drive: when it began, and the mIoU of both in percent."""

    start_s: float
    first: float
    second: float


@dataclass(frozen=True)
class ComparisonShown:
    """Two models on the same frames.

    Attributes:
        first: name of the first.
        second: name of the second.
        winner: name of the better one; empty if neither is surely better.
        words: the result in a sentence.
        chances: by class, the probability that the second is better.
        stretches: along the drive.
    """

    first: str
    second: str
    winner: str
    words: str
    chances: Mapping[str, float] = field(default_factory=dict)
    stretches: Sequence[StretchShown] = ()


@dataclass(frozen=True)
class DamageShown:
    """Something that was broken in the recording, how often, and its first case in words."""

    kind: str
    count: int
    example: str


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
        compared: models side by side, instead of ``before`` and ``after``.
        comparisons: each pair of them.
        damage: what was broken in the recording; None where there was no recording.
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
    compared: Sequence[ModelShown] = ()
    comparisons: Sequence[ComparisonShown] = ()
    damage: Sequence[DamageShown] | None = None
    timeline: Timeline = field(default_factory=Timeline)
    queries: Sequence[QueryShown] = ()
    pairs: Sequence[PairShown] = ()
    gates: Sequence[GateShown] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    notes: Sequence[str] = ()
