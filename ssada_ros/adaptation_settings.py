"""Parameters of the adaptation node."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ssada_core.adaptation.settings import AdaptationSettings


class AdaptationNodeSettings(AdaptationSettings):
    """The adaptation's own settings and where its frames come from; ``config/ssada.yaml`` shows all defaults."""

    cameras: list[str] = Field(
        default_factory=lambda: ["camera/image"], description="Image topics, relative to the namespace."
    )
    camera_names: list[str] = Field(
        default_factory=list, description="Names under which frames are stored; empty derives them from the topics."
    )
    transport: Literal["auto", "raw", "compressed"] = Field(
        "auto",
        description="Message type of the cameras: auto takes CompressedImage for topics that end in /compressed.",
    )
    camera_reliability: Literal["best_effort", "reliable"] = Field(
        "best_effort", description="QoS of the camera subscriptions; best effort is served by every publisher."
    )
    start_paused: bool = Field(False, description="Store, ask and train nothing until the pause service says so.")
    nice: int = Field(10, ge=0, le=19, description="Niceness of the process: it has no deadline, the masks have.")
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")
