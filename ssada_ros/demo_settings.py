"""What ``ssada demo`` is given: the command's own options and the YAML that it runs by."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ssada_core.config import load_yaml, parse_overrides
from ssada_core.errors import ConfigError
from ssada_core.resources import resource
from ssada_core.settings import Settings, merge, parse_settings
from ssada_ros.adaptation_settings import AdaptationNodeSettings
from ssada_ros.demo_options import DemoOptions
from ssada_ros.segmentation_settings import SegmentationSettings

SOURCE_SEED, SOURCE_EVAL_SEED, UNSEEN_SEED = 500, 600, 1000
"""Added to the drive's seed: other streets than the ones driven through, and than the others of these."""


class DriveSettings(Settings):
    """The drive itself."""

    rate: float = Field(5.0, gt=0, le=60, description="Frames per second of the camera.")
    width: int = Field(640, ge=64, le=4096, description="Width of simulated frames, pixels.")
    height: int = Field(384, ge=64, le=4096, description="Height of simulated frames, pixels.")
    compressed: bool = Field(False, description="Publish CompressedImage instead of Image.")
    source_domain: str = Field("day", description="Where the simulated drive begins: the source model's world.")
    target_domain: str = Field("night", description="What the simulated world turns to.")
    before_s: float = Field(15.0, ge=0, le=3600, description="Seconds of driving before the adaptation begins.")
    after_s: float = Field(15.0, ge=0, le=3600, description="Seconds of driving after the gate's decision.")
    eval_frames: int = Field(24, ge=1, le=10000, description="Frames of an unseen simulated drive that judge the run.")
    source_frames: int = Field(96, ge=1, le=100000, description="Frames in the source pack that is made for the run.")
    source_eval_frames: int = Field(24, ge=0, le=10000, description="Source frames on which forgetting is measured.")
    timeout_s: float = Field(1800.0, gt=0, description="Seconds after which a run without a decision is given up.")


class DemoSettings(Settings):
    """``config/demo.yaml`` and ``config/demo_bag.yaml``."""

    model: str = Field("sim-day", description="Model that the drive starts with.")
    source_data: str = Field("", description="What it was trained on; empty for a simulated drive's own source domain.")
    drive: DriveSettings = Field(default_factory=DriveSettings)
    segmentation: SegmentationSettings = Field(default_factory=SegmentationSettings)
    adaptation: AdaptationNodeSettings = Field(default_factory=AdaptationNodeSettings)


def load_demo_settings(options: DemoOptions) -> DemoSettings:
    """Read the configuration and apply the command line over it.

    Raises:
        ConfigError: if a key or value is wrong.
    """
    simulated = options.camera.partition(":")[0] == "sim"
    path = options.config or resource("config/demo.yaml" if simulated else "config/demo_bag.yaml")
    values = merge(load_yaml(path), parse_overrides(options.overrides))
    if options.budget is not None:
        cycle = {"budget": options.budget, "new_labels": options.budget}
        values = merge(values, {"adaptation": {"cycle": cycle}})
    if options.rate is not None:
        values = merge(values, {"drive": {"rate": options.rate}})
    for key, value in (("model", options.model), ("source_data", options.source_data)):
        if value is not None:
            values[key] = value
    values = merge(values, {"adaptation": {"seed": options.seed, "training": {"seed": options.seed}}})
    return parse_settings(DemoSettings, values, source=str(path))


def find_evaluation(options: DemoOptions, settings: DemoSettings) -> str:
    """The frames that judge the run: a path, ``sim:…``, or the name of a list beside the source data (``dusk_val``).

    Without ``--eval`` a simulated drive is judged on another simulated drive, by another seed.

    Raises:
        ConfigError: if there is no such thing, or none was given for a recorded drive.
    """
    drive, reference = settings.drive, options.evaluation
    if reference is None:
        if not options.camera.startswith("sim"):
            raise ConfigError(
                "--eval is needed for a recorded drive: a labelled list or bag that the drive does not show"
            )
        return simulated(drive.target_domain, options.seed + UNSEEN_SEED, drive.eval_frames)
    folder = Path(settings.source_data).parent
    for candidate in (Path(reference), folder / reference, folder / f"{reference}.txt"):
        if candidate.exists():
            return str(candidate)
    if reference.startswith("sim:"):
        return reference
    raise ConfigError(
        f"evaluation set '{reference}' is neither a path nor a list in {folder}: give a list file, a bag, or sim:night"
    )


def simulated(domain: str, seed: int, frames: int, step: int = 10) -> str:
    """Reference to frames of a simulated drive, two seconds apart at 5 Hz."""
    return f"sim:{domain}:{seed}:0-{frames * step}:{step}"
