"""Parameters of the segmentation node."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ssada_core.inference.engine import EngineSettings
from ssada_core.settings import Settings


class SegmentationSettings(Settings):
    """Every parameter of ``segmentation_node``; ``config/ssada.yaml`` shows them with their defaults."""

    model: str = Field(
        "sim-day",
        description="Model to run: a registry folder (its current version), REGISTRY@VERSION, a model folder, "
        "or the name of a shipped model.",
    )
    cameras: list[str] = Field(
        default_factory=lambda: ["camera/image"], description="Image topics, relative to the namespace."
    )
    camera_names: list[str] = Field(
        default_factory=list, description="Names under which the masks appear; empty derives them from the topics."
    )
    transport: Literal["auto", "raw", "compressed"] = Field(
        "auto",
        description="Message type of the cameras: auto takes CompressedImage for topics that end in /compressed.",
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    follow_promotions: bool = Field(True, description="Swap to versions announced on ssada/promoted.")
    overlay_opacity: float = Field(0.5, ge=0.0, le=1.0, description="Opacity of the colours in the overlay.")
    silence_s: float = Field(
        4.0, gt=0.0, description="Seconds without a frame after which a camera is reported, within a second."
    )
    camera_reliability: Literal["best_effort", "reliable"] = Field(
        "best_effort", description="QoS of the camera subscriptions; best effort is served by every publisher."
    )
    mask_reliability: Literal["best_effort", "reliable"] = Field(
        "reliable", description="QoS of the masks; reliable serves both kinds of subscriber."
    )
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")
