"""``report.json`` of a replay (schema: ``docs/schemas/report.schema.json``).

Everything but ``timing`` and ``system`` follows from recording, models, settings and seed: two runs of the same command
write the same bytes there. mIoU, IoU and accuracy are in percent, times in seconds from the recording's first frame,
whether it was played or not.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Figures(BaseModel):
    """Strict about its keys."""

    model_config = ConfigDict(extra="forbid")


class RecordingFigures(Figures):
    """What was played."""

    path: str
    cameras: dict[str, int] = Field(description="Frames played, by camera.")
    frames: int
    labelled: int = Field(description="Frames with ground truth.")
    first_stamp_ns: int
    duration_s: float
    every: int


class DamageFigures(Figures):
    """Something that was broken in the recording."""

    kind: str
    count: int
    example: str


class ModelFigures(Figures):
    """A model that ran."""

    reference: str
    version: str
    weights_sha256: str
    backend: str
    precision: str
    input_height: int
    input_width: int


class Quality(Figures):
    """Agreement with ground truth, in percent; None where there is none."""

    frames: int
    miou: float | None
    pixel_accuracy: float | None
    iou: dict[str, float | None]


class SeriesFigures(Quality):
    """One series of answers over the whole drive."""

    name: str
    versions: dict[str, int] = Field(description="Frames answered, by model version.")
    confidence: float | None = Field(description="Mean, in [0, 1].")
    uncertainty: float | None = Field(description="Mean, in [0, 1].")


class StretchFigures(Figures):
    """A stretch of the drive."""

    start_s: float
    frames: int
    labelled: int
    miou: dict[str, float | None] = Field(description="By series.")


class ClassFigures(Figures):
    """One class of a comparison."""

    name: str
    first: float | None
    second: float | None
    probability: float | None = Field(description="That the second is better.")


class ComparisonFigures(Figures):
    """The second series against the first, paired frame by frame, resampled by stretches."""

    first: str
    second: str
    gain: float
    interval: tuple[float, float] | None
    probability: float
    winner: str = Field(description="Series that is better with a probability of 0.9; empty if neither is.")
    words: str
    stretches: int
    stretches_won: dict[str, int]
    classes: list[ClassFigures]


class QueryFigures(Figures):
    """A frame that was asked for."""

    number: int
    camera: str
    stamp_ns: int
    asked_s: float
    batch: int
    audit: bool
    score: float | None
    reason: str
    answer: Literal["accepted", "held", "refused", "open"]
    why: str


class RoundFigures(Figures):
    """A round of training and what the gate said."""

    started_s: float
    ended_s: float
    reason: str
    version: str
    verdict: str
    words: str
    labelled: int
    audit: int
    unlabelled: int
    source: int
    iterations: int
    losses: dict[str, float]
    checks: list[dict[str, Any]]


class SwapFigures(Figures):
    """A model that took over."""

    version: str
    time_s: float
    reason: str


class UnseenFigures(Figures):
    """Before and after the adaptation, on frames that no part of it saw."""

    what: str
    names: tuple[str, str] = Field(
        description="Whose before and after are: two versions, or two series with the versions that answered."
    )
    before: Quality
    after: Quality
    comparison: ComparisonFigures | None


class AdaptationFigures(Figures):
    """The adaptation in recorded time."""

    seed: int
    round_seconds: float | None = Field(description="Of the drive, that every round took; over ROS what it took.")
    until_s: float | None
    answers: str
    first_version: str
    last_version: str
    queries: list[QueryFigures]
    labels: int
    audit_labels: int
    rounds: list[RoundFigures]
    swaps: list[SwapFigures]
    unfinished: str = Field("", description="What was still going on when the drive ended.")
    unseen: UnseenFigures | None


class RosFigures(Figures):
    """The drive over real nodes."""

    speed: float
    published: int
    served: int
    dropped: int
    reliability: str


class Timing(Figures):
    """What depends on the machine and the hour."""

    created: str
    seconds: float
    read_seconds: float = Field(description="Waiting for frames and labels to be read and decoded.")
    read_share: float
    frames_per_second: float
    latency_ms: dict[str, dict[str, float]] = Field(description="p50, p99 and longest, by series.")
    round_seconds: list[float] = Field(default_factory=list, description="What the rounds took on this machine.")
    gate_latency: list[str] = Field(default_factory=list, description="The gate's words on latency.")
    swap_gaps_s: list[float] = Field(default_factory=list, description="Over ROS: time without a mask at each swap.")
    longest_gap_s: float | None = Field(None, description="Over ROS: longest time between two masks.")


class ReplayReport(Figures):
    """The whole file."""

    format: Literal[1] = 1
    command: str
    mode: Literal["direct", "ros"]
    recording: RecordingFigures
    damage: list[DamageFigures]
    models: list[ModelFigures]
    series: list[SeriesFigures]
    stretch_s: float
    stretches: list[StretchFigures]
    comparisons: list[ComparisonFigures]
    adaptation: AdaptationFigures | None
    ros: RosFigures | None
    settings: dict[str, Any]
    versions: dict[str, str]
    system: dict[str, Any]
    timing: Timing
