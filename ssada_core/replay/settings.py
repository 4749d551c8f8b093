"""Settings of a replay: what of the recording is played, where its ground truth is, what the report shows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.inference.engine import EngineSettings
from ssada_core.settings import Settings


class RecordingSettings(Settings):
    """Which frames of the recording are played."""

    topics: list[str] = Field(default_factory=list, description="Image topics; empty takes every camera of the bag.")
    start_s: float = Field(0.0, ge=0, description="Seconds after the first frame at which the replay begins.")
    end_s: float = Field(0.0, ge=0, description="Seconds after the first frame at which it ends; 0 is the end.")
    every: int = Field(1, ge=1, le=1_000_000, description="Every n-th frame of each camera.")

    @model_validator(mode="after")
    def _is_a_span(self) -> RecordingSettings:
        if self.end_s and self.end_s <= self.start_s:
            raise ValueError(f"end_s {self.end_s:g} is not after start_s {self.start_s:g}")
        return self

    def played(self, first_ns: int, last_ns: int) -> tuple[int, int]:
        """Where the played part of a recording begins and ends, in nanoseconds."""
        end_ns = min(last_ns, first_ns + round(self.end_s * 1e9)) if self.end_s else last_ns
        return min(first_ns + round(self.start_s * 1e9), end_ns), end_ns


class TruthSettings(Settings):
    """Where ground truth comes from, if there is any."""

    source: Literal["auto", "topic", "folder", "none"] = Field(
        "auto", description="auto: the folder where one is given, else the bag's label topics, if there are any."
    )
    topic: str = Field("", description="Label topic; empty finds those named …/label.")
    folder: str = Field("", description="Folder of label images.")
    by: Literal["auto", "stamp", "order"] = Field(
        "auto",
        description="How a folder's files belong to frames; auto: by stamp where all names are stamps, else by order.",
    )
    tolerance_s: float = Field(0.0, ge=0, le=3600, description="Seconds a label's stamp may differ from its frame's.")


class ReplaySettings(Settings):
    """``config/replay.yaml``."""

    recording: RecordingSettings = Field(default_factory=RecordingSettings)
    truth: TruthSettings = Field(default_factory=TruthSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    stretch_s: float = Field(
        5.0, gt=0, le=3600, description="Seconds of the stretches of the drive that are compared and resampled whole."
    )
    bootstrap_samples: int = Field(2000, ge=100, le=100_000, description="Draws of the paired bootstrap.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Everything random follows from it.")
    moments: int = Field(3, ge=0, le=50, description="Best and worst moments shown, each.")
    gap_factor: float = Field(
        5.0, gt=1, description="A pause between two frames this many times the usual one is reported as a gap."
    )
    round_seconds: float = Field(
        507.0,
        ge=0,
        description="Seconds of the drive that a round takes, whatever it takes on this machine. The default was "
        "measured once: 300 iterations beside the masks on 2 cores without a GPU (README, CamVid).",
    )
    adapt_until: str = Field(
        "", description="Where the adaptation stops: a share of the drive (0.5) or a stamp in ns; empty is the end."
    )
    answers: str = Field(
        "truth", description="Who answers queries: truth (the ground truth), none, or a folder of label images."
    )
    source_frames: int = Field(200, ge=1, description="Frames in the source pack that is made of the source data.")
    adaptation: AdaptationSettings = Field(default_factory=AdaptationSettings)
