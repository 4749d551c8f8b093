"""Parameters of every node that takes frames from cameras."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ssada_core.settings import Settings


class CameraInputSettings(Settings):
    """Which cameras there are, and how they are subscribed to; the same in every node."""

    cameras: list[str] = Field(
        default_factory=lambda: ["camera/image"], description="Image topics, relative to the namespace."
    )
    camera_names: list[str] = Field(
        default_factory=list,
        description="Names of the cameras in topics and in the pool; empty derives them from the topics.",
    )
    transport: Literal["auto", "raw", "compressed"] = Field(
        "auto",
        description="Message type of the cameras: auto follows the publishers that there are, also those of the "
        "topic's /compressed, and before the first takes CompressedImage for topics that end so.",
    )
    camera_reliability: Literal["best_effort", "reliable", "auto"] = Field(
        "best_effort",
        description="QoS of the camera subscriptions; best effort is served by every publisher. auto: reliable while "
        "all publishers offer it.",
    )
    camera_durability: Literal["volatile", "transient_local"] = Field(
        "volatile", description="The same; volatile is served by every publisher."
    )
    camera_depth: int = Field(
        1, ge=1, le=100, description="Frames that may wait in the middleware; more add delay, not masks."
    )
    regions: list[float] = Field(
        default_factory=list,
        description="Part of the frame that is looked at: left, top, right, bottom as shares of it (0 to 1), once for "
        "all cameras or once for each; empty for all of it.",
    )
    max_message_mib: int = Field(
        64, ge=1, le=1024, description="Larger messages, and pictures that decode to more than this, are refused."
    )
