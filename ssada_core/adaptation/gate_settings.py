"""The gate's settings: three policies with their own numbers, each of which can be overridden."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from ssada_core.settings import Settings

Policy = Literal["strict", "manual", "lenient"]

OWN = -1.0
"""Value of a setting that takes the policy's own number (a ROS parameter cannot be "not given")."""


_SHARE_OF_A_LOOK = 0.625
"""Part of the allowed error that each of two looks at the same challenger may spend (Pocock, Biometrika 64, 1977,
has about 0.6 for two looks); 5/8 leaves the fewest stretches at 4 (for 0.9) and 3 (for 0.8)."""


@dataclass(frozen=True)
class GateRules:
    """The numbers that a decision is made by; see :class:`GateSettings` for their meaning."""

    probability: float
    min_gain: float
    min_audit_frames: int
    safety_margin: float
    safety_min_pixels: int
    domain_margin: float
    source_margin: float
    min_agreement: float
    case_margin: float
    source_safety_margin: float

    @property
    def look_probability(self) -> float:
        """What each look must show, so that both together keep ``probability``.

        An undecided challenger is looked at once more, with more frames: two chances to be promoted by luck.
        """
        return round(1.0 - _SHARE_OF_A_LOOK * (1.0 - self.probability), 12)

    @property
    def min_stretches(self) -> int:
        """Fewest stretches of the drive with which the asked probability can be reached at all.

        n stretches that all gain show at most ``1 - 2**-n`` (the exact sign test).
        """
        return max(2, math.ceil(round(-math.log2(1.0 - self.look_probability), 9)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, stored with every decision."""
        return {**asdict(self), "look_probability": self.look_probability, "min_stretches": self.min_stretches}


_STRICT = GateRules(
    probability=0.9,
    min_gain=0.5,
    min_audit_frames=8,
    safety_margin=3.0,
    safety_min_pixels=2000,
    domain_margin=2.0,
    source_margin=3.0,
    min_agreement=0.9,
    case_margin=5.0,
    source_safety_margin=3.0,
)
_LENIENT = GateRules(
    probability=0.8,
    min_gain=0.0,
    min_audit_frames=2,
    safety_margin=8.0,
    safety_min_pixels=2000,
    domain_margin=5.0,
    source_margin=10.0,
    min_agreement=0.75,
    case_margin=10.0,
    source_safety_margin=10.0,
)
POLICY_RULES: dict[Policy, GateRules] = {"strict": _STRICT, "manual": _STRICT, "lenient": _LENIENT}
"""Each policy's own numbers. ``manual`` asks for the same evidence as ``strict`` and then for a human."""


class GateSettings(Settings):
    """When a challenger replaces the champion. Margins and gains are points of IoU or mIoU (percent)."""

    policy: Policy = Field(
        "strict",
        description="strict promotes on strong evidence, manual then waits for a human, lenient is for demonstrations.",
    )
    probability: float = Field(
        OWN,
        ge=-1,
        lt=1,
        description="Probability of a gain that both looks at a challenger keep; -1: strict 0.9, lenient 0.8.",
    )
    min_gain: float = Field(
        OWN, ge=-1, le=100, description="Points of mIoU that count as a gain; -1: strict 0.5, lenient 0."
    )
    min_audit_frames: int = Field(
        int(OWN), ge=-1, description="Fewest audit frames of the target to judge by; -1: strict 8, lenient 2."
    )
    safety_margin: float = Field(
        OWN, ge=-1, le=100, description="Points of IoU a safety class may fall; -1: strict 3, lenient 8."
    )
    safety_margins: list[str] = Field(
        default_factory=list,
        description="Margins of single safety classes, such as pedestrian=1.5; the others have safety_margin.",
    )
    safety_min_pixels: int = Field(
        int(OWN), ge=-1, description="Labelled pixels below which a safety class is not judged; -1: 2000."
    )
    domain_margin: float = Field(
        OWN, ge=-1, le=100, description="Points of mIoU an earlier domain may fall; -1: strict 2, lenient 5."
    )
    source_margin: float = Field(
        OWN,
        ge=-1,
        le=100,
        description="Points of mIoU the source pack may fall (a network of this size pays something for a new domain); "
        "-1: strict 3, lenient 10.",
    )
    source_safety_margin: float = Field(
        OWN,
        ge=-1,
        le=100,
        description="Points of IoU that a safety class without a margin of its own may fall on the source pack; "
        "-1: strict 3, lenient 10.",
    )
    min_agreement: float = Field(
        OWN,
        ge=-1,
        le=1,
        description="Without a source pack: share of the first model's confident pixels that must be answered alike; "
        "-1: strict 0.9, lenient 0.75.",
    )
    case_margin: float = Field(
        OWN,
        ge=-1,
        le=100,
        description="Points of mIoU that a regression case may fall below the best model it ever had; "
        "-1: strict 5, lenient 10.",
    )
    max_latency_ratio: float = Field(
        1.25, gt=0, le=100, description="Challenger's median latency over the champion's, measured in turns."
    )
    bootstrap_samples: int = Field(2000, ge=100, le=100_000, description="Draws of the block bootstrap.")
    stretch_s: float = Field(
        5.0, gt=0, le=3600, description="Length in seconds of the stretches of the drive that are resampled whole."
    )
    collapse_bound: float = Field(
        0.9, gt=0, lt=1, description="Share of all predicted pixels that no class may pass, unless it has that share."
    )
    collapse_share: float = Field(
        0.01, gt=0, lt=1, description="Share in the audit labels from which a class must not vanish."
    )
    seed: int = Field(0, ge=0, description="Seed of the bootstrap.")

    @field_validator("probability")
    @classmethod
    def _at_least_even(cls, value: float) -> float:
        if value != OWN and value < 0.5:
            raise ValueError("a probability below 0.5 would promote what is likely worse: give 0.5 to 0.99, or -1")
        return value

    @field_validator("safety_margins")
    @classmethod
    def _are_margins(cls, value: list[str]) -> list[str]:
        _margins(value)
        return value

    def margins(self) -> dict[str, float]:
        """Points that single safety classes may fall."""
        return _margins(self.safety_margins)

    def rules(self) -> GateRules:
        """The policy's numbers, replaced where a setting gives another."""
        values = asdict(POLICY_RULES[self.policy])
        given = {name: getattr(self, name) for name in values}
        return GateRules(**{name: own if given[name] < 0 else given[name] for name, own in values.items()})


def _margins(words: list[str]) -> dict[str, float]:
    margins = {}
    for word in words:
        name, equals, points = word.partition("=")
        try:
            margins[name.strip()] = float(points)
        except ValueError:
            equals = ""
        if not equals or not name.strip() or not 0 <= margins[name.strip()] <= 100:
            raise ValueError(f"'{word}' is not class=points, such as pedestrian=1.5, with 0 to 100 points")
    return margins
