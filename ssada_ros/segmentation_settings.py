"""Parameters of the segmentation node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from ssada_core.errors import ConfigError
from ssada_core.inference.engine import EngineSettings
from ssada_ros.input_settings import CameraInputSettings

DYNAMIC = frozenset({"rate", "camera_weights", "overlay_opacity", "confidence_threshold", "silence_s"})
"""Parameters that may change while the node runs; all others are read when it is configured."""


class SegmentationSettings(CameraInputSettings):
    """Every parameter of ``segmentation_node``; ``config/ssada.yaml`` shows them with their defaults."""

    model: str = Field(
        "sim-day",
        description="Model to run: a registry folder (its current version), REGISTRY@VERSION, a model folder, "
        "or the name of a shipped model.",
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    trusted_key: str = Field("", description="Public key without whose signature no model is run; empty: none.")
    follow_promotions: bool = Field(
        True, description="Swap to versions announced on ssada/promoted; never where model is REGISTRY@VERSION."
    )
    rate: float = Field(
        0.0, ge=0.0, le=1000.0, description="Masks per second and camera at most; 0 for all. May change while running."
    )
    camera_weights: list[float] = Field(
        default_factory=list,
        description="How often each camera is served against the others while the machine is too slow for all; empty "
        "for all alike. May change while running.",
    )
    confidence_threshold: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Pixels of less confidence are 255 (unlabelled) in the mask. May change while running.",
    )
    overlay_opacity: float = Field(
        0.5, ge=0.0, le=1.0, description="Opacity of the colours in the overlay. May change while running."
    )
    silence_s: float = Field(
        4.0,
        gt=0.0,
        description="Seconds without a frame after which a camera is reported, within a second. May change while "
        "running.",
    )
    mask_reliability: Literal["best_effort", "reliable"] = Field(
        "reliable", description="QoS of the masks; reliable serves both kinds of subscriber."
    )
    mask_durability: Literal["volatile", "transient_local"] = Field(
        "volatile", description="The same; transient_local also gives the last mask to those who subscribe later."
    )
    mask_depth: int = Field(1, ge=1, le=100, description="Masks kept for a reliable subscriber that is slow.")
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")


def weights_of(cameras: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Each camera's weight.

    Raises:
        ConfigError: if there is not one above 0 for each.
    """
    if not weights:
        return dict.fromkeys(cameras, 1.0)
    if len(weights) != len(cameras):
        raise ConfigError(f"camera_weights has {len(weights)} numbers for {len(cameras)} cameras: give one each")
    if wrong := [weight for weight in weights if not 0.001 <= weight <= 1000.0]:
        raise ConfigError(f"camera_weights: {wrong[0]:g} is not between 0.001 and 1000")
    return dict(zip(cameras, weights, strict=True))
