"""What the adaptation benchmark compares, as configured by ``config/bench/*.yaml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from ssada_core.errors import ConfigError
from ssada_core.learning.offline_settings import PARTS, Mode, only_parts
from ssada_core.learning.settings import TrainingSettings, TuflSettings
from ssada_core.networks.settings import NetworkSettings
from ssada_core.settings import Settings, merge, nearest, parse_settings

SOURCE = "source"
SETTINGS = (
    SOURCE,
    "supervised_12",
    "supervised_25",
    "supervised_100",
    "joint_25",
    "joint_100",
    "ssada_12",
    "ssada_25",
    "ssada_50",
    "ssada_25_random",
    "ssada_25_entropy",
    "ssada_25_confidence",
    "tufl_0",
)
"""The settings of the benchmark, in the order of its table."""

_NAME = re.compile(r"(supervised|joint|ssada|tufl)_(\d+)(?:_(random|entropy|confidence|iou_score|eis)(_plain)?)?")
_PERCENT = {12: 0.125, 6: 0.0625, 3: 0.03125}  # halves of halves, as the papers cut them


@dataclass(frozen=True)
class Recipe:
    """What a setting's name says.

    Attributes:
        name: such as ``ssada_25_random`` or ``ssada_25@teacher``.
        mode: how to train; None: not at all.
        share: of the pool's frames that are labelled.
        strategy: by which SS-ADA's labelled frames are chosen; baselines take theirs at random.
        diverse: different scenes, or the plain top-k.
        variant: key of :attr:`BenchSettings.variants`, or empty.
    """

    name: str
    mode: Mode | None
    share: float
    strategy: str
    diverse: bool
    variant: str


def recipe(name: str) -> Recipe:
    """Read a setting's name: ``MODE_PERCENT[_STRATEGY[_plain]][@VARIANT]``, or ``source``.

    Percent are written as the papers' tables are: ``12`` is 12.5 %.

    Raises:
        ConfigError: if it is no such name.
    """
    plain, _, variant = name.partition("@")
    if plain == SOURCE:
        return Recipe(name, None, 0.0, "random", False, variant)
    match = _NAME.fullmatch(plain)
    if match is None or int(match[2]) > 100:
        raise ConfigError(f"unknown setting '{name}'{nearest(plain, list(SETTINGS))}")
    mode: Any = match[1]
    strategy = match[3] or ("eis" if mode == "ssada" else "random")
    diverse = strategy != "random" and match[4] is None
    return Recipe(name, mode, _PERCENT.get(int(match[2]), int(match[2]) / 100), strategy, diverse, variant)


class BenchData(Settings):
    """Which frames; references as :func:`ssada_core.data.lists.open_samples` takes them."""

    source: str = Field(..., description="Labelled source frames: the source model's, and every step's.")
    held_out: str = Field("", description="Labelled source frames nothing trains on: what adapting forgets shows here.")
    pool: str = Field(..., description="Target frames with labels: unlabelled frames for all, labels as bought.")
    validation: str = Field(..., description="Labelled target frames that report, and never choose.")


class BenchAcquisition(Settings):
    """How SS-ADA buys its labels, all before the training: first a few, then by score with the IoU on those."""

    first_share: float = Field(
        0.25, gt=0, le=1, description="Share of the budget drawn at random first; their IoU is what eis scores by."
    )
    top_share: float = Field(0.5, gt=0, le=1, description="Share of the frames among which distance decides.")
    neighbour_ratio: float = Field(0.25, ge=0, le=1, description="Below this share of the median distance: neighbours.")


class BenchSettings(Settings):
    """``config/bench/*.yaml``: one source model, one pool, many ways to adapt."""

    name: str = Field("adaptation", description="Name of the run's folder and of the result's files.")
    out: str = Field("runs/bench", description="Folder of the runs; each finished one is kept and not run again.")
    label_space: str = Field("camvid", description="A built-in label space or a YAML file.")
    source_model: str = Field("", description="Model all settings start from; empty: trained once by source_training.")
    network: NetworkSettings = Field(default_factory=NetworkSettings, description="Of a source model trained here.")
    data: BenchData
    settings: tuple[str, ...] = Field(SETTINGS, description="What to compare.")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Each setting runs once with each seed.")
    jobs: int = Field(2, ge=1, le=256, description="Runs side by side, each on one thread.")
    quick_iterations: int = Field(40, ge=1, description="Iterations with --quick.")
    acquisition: BenchAcquisition = Field(default_factory=BenchAcquisition)
    source_training: TrainingSettings = Field(default_factory=TrainingSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="The same for every setting.")
    tufl: TuflSettings = Field(default_factory=TuflSettings, description="TUFL's own; iterations are training's.")
    modes: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Per mode, what differs from training: its own best, found on other data."
    )
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Per name, what a setting written SETTING@NAME changes."
    )

    @field_validator("settings")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for name in names:
                recipe(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return names

    def training_of(self, chosen: Recipe, *, seed: int, quick: bool = False) -> tuple[TrainingSettings, TuflSettings]:
        """What one run trains by: the common settings, its mode's, its variant's, then the seed.

        Raises:
            ConfigError: if a mode's or variant's key is unknown, or there is no such variant.
        """
        if chosen.variant and chosen.variant not in self.variants:
            raise ConfigError(f"no variant '{chosen.variant}'{nearest(chosen.variant, sorted(self.variants))}")
        changes = merge(self.modes.get(chosen.mode or "", {}), self.variants.get(chosen.variant, {}))
        own_tufl = changes.pop("tufl", {})
        values = merge(self.training.model_dump(), changes) | {"seed": seed, "threads": 1}
        if quick:
            values["iterations"] = self.quick_iterations
        source = f"modes.{chosen.mode} with variant '{chosen.variant}'"
        training = parse_settings(TrainingSettings, values, source=source)
        training = only_parts(training, PARTS[chosen.mode] if chosen.mode is not None else frozenset())
        own_tufl = {"iterations": training.iterations, **own_tufl}
        return training, parse_settings(TuflSettings, merge(self.tufl.model_dump(), own_tufl), source=source)
