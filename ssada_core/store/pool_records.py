"""What the frame pool speaks of: its settings, and the plain values it takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssada_core.data.privacy import PrivacySettings
from ssada_core.settings import Settings

State = Literal["buffered", "queried", "labelled", "held", "skipped", "rejected"]
STATES: tuple[State, ...] = get_args(State)

AddReason = Literal["stored", "rate", "standstill", "duplicate", "full", "disk", "privacy"]


class PoolSettings(Settings):
    """What is stored, and how much of it (ARCHITECTURE contract 2)."""

    rate: float = Field(1.0, gt=0, le=1000, description="Frames per second considered for storing, per camera.")
    max_frames: int = Field(50_000, ge=1, description="Frames kept at most.")
    max_bytes: int = Field(20_000_000_000, ge=1, description="Bytes of images kept at most.")
    max_age_days: float = Field(30.0, gt=0, description="Days after which a frame that nobody asked for is dropped.")
    keep_free_share: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="Share of the disk kept free: unasked frames make room; where they cannot, nothing is stored.",
    )
    duplicate_threshold: float = Field(
        0.8,
        ge=0,
        le=255,
        description="A frame whose 16x12 grey thumbnail differs from any stored one of its camera by no more than this "
        "many grey levels on average is a copy and not stored; 0 drops exact copies only.",
    )
    standstill_threshold: float = Field(
        1.0, ge=0, le=255, description="The same against the camera's last stored frame: the vehicle stands."
    )
    jpeg_quality: int = Field(95, ge=1, le=100, description="JPEG quality of frames that did not come as JPEG.")
    vehicle: str = Field("", max_length=200, description="Name of the vehicle, kept with each frame.")
    retention_days: float = Field(
        0.0,
        ge=0,
        description="Days after which every frame goes, asked for or not, with its labels; 0 keeps what was asked for.",
    )
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)


@dataclass(frozen=True)
class FrameRecord:
    """One frame of the pool, as it was when it was read.

    Attributes:
        id: number of the frame, in order of arrival.
        camera: the camera's name.
        stamp_ns: the frame's own time stamp in nanoseconds.
        vehicle: the vehicle's name.
        width: pixels.
        height: pixels.
        state: see :data:`STATES`.
        query_id: ``<pool id>-<frame number>`` once a human was asked, else None.
        audit: drawn at random to judge models; its label is never trained on (contract 3).
        batch: number of the query batch.
        score: the acquisition's score when it was chosen.
        reason: why it was chosen, held, skipped or rejected.
        model_version: the model that scored it last.
        image_file: path relative to the pool's folder; the file is gone once rejected.
        label_file: the accepted label's path, or None.
        annotator: who gave the accepted label.
        stored_at: wall clock, nanoseconds.
        labelled_at: wall clock of the accepted label, nanoseconds.
        domain: name of the kind of road it was taken on; empty where nobody told.
        clip: number of the driver's flag it was kept for, else None. An audit frame of a clip is a regression case.
    """

    id: int
    camera: str
    stamp_ns: int
    vehicle: str
    width: int
    height: int
    state: State
    query_id: str | None
    audit: bool
    batch: int | None
    score: float | None
    reason: str
    model_version: str | None
    image_file: str
    label_file: str | None
    annotator: str | None
    stored_at: int
    labelled_at: int | None
    domain: str = ""
    clip: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class Clip:
    """A moment that a driver flagged: its frames stay, are asked for first, and judge every later model.

    Attributes:
        id: 1, 2, … per pool.
        stamp_ns: the flagged frame's time stamp, nanoseconds.
        flagged_at: wall clock, nanoseconds.
    """

    id: int
    stamp_ns: int
    flagged_at: int


@dataclass(frozen=True)
class Added:
    """What became of a frame: its record when it was stored, and always the reason."""

    record: FrameRecord | None
    reason: AddReason


@dataclass(frozen=True)
class FrameScores:
    """What a model said of a frame.

    Attributes:
        model_version: which model.
        uncertainty: mean normalised entropy, in [0, 1] (METHOD §5).
        confidence: mean of the largest class probability, in [0, 1].
        histogram: pixels per predicted class, of length C.
        features: float32 [D], or None.
    """

    model_version: str
    uncertainty: float
    confidence: float
    histogram: list[int]
    features: NDArray[np.float32] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Choice:
    """A frame that the acquisition wants labelled."""

    frame_id: int
    score: float
    audit: bool
    reason: str


@dataclass(frozen=True)
class LabelVersion:
    """One label that was given for a query; corrections make new versions, old ones stay.

    Attributes:
        version: 1, 2, … per query.
        status: accepted, or held as suspicious.
        why: why it was held.
        file: path relative to the pool's folder.
        annotator: who gave it.
        given_at: wall clock, nanoseconds.
    """

    version: int
    status: Literal["accepted", "held"]
    why: str
    file: str
    annotator: str
    given_at: int


@dataclass(frozen=True)
class PoolStats:
    """The pool in figures.

    Attributes:
        counts: frames by state, every state present.
        audit_open: audit frames that were asked for and have no accepted label.
        audit_labelled: audit frames with an accepted label.
        image_bytes: bytes of stored images.
        label_versions: labels ever given, corrections and held ones included.
        batches: query batches so far.
        cameras: frames kept by camera.
    """

    counts: Mapping[State, int]
    audit_open: int
    audit_labelled: int
    image_bytes: int
    label_versions: int
    batches: int
    cameras: Mapping[str, int]
