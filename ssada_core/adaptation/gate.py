"""The gate: whether a challenger replaces the champion (ARCHITECTURE contracts 3, 4 and 7).

A challenger is promoted only if the mIoU on the target's audit frames gains with the asked probability,
by a bootstrap over whole stretches of the drive (:mod:`ssada_core.evaluation.bootstrap`), and every
check passes. Too little evidence is a verdict of its own that says how many frames are missing; with
them the challenger is looked at once more, so each look asks for a little more than the probability
that both together keep. A refusal asks for less evidence than a promotion, because keeping the champion
is the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ssada_core.adaptation.gate_checks import (
    Check,
    check_cases,
    check_domains,
    check_finite,
    check_latency,
    check_safety,
    check_source,
    check_swallowed,
    check_vanished,
)
from ssada_core.adaptation.gate_figures import DomainFigures, case_figures, domain_figures
from ssada_core.adaptation.gate_settings import GateRules, GateSettings
from ssada_core.adaptation.measurements import Measurements, ModelMeasurement
from ssada_core.errors import WorkerError
from ssada_core.evaluation.bootstrap import PairedDifference, paired_difference
from ssada_core.labels import LabelSpace

__all__ = ["Check", "Decision", "GateSettings", "Measurements", "ModelMeasurement", "decide"]

Verdict = Literal["promote", "refuse", "undecided", "wait_for_human"]

INTERVAL = 0.9
"""Share of the bootstrap's draws inside the interval that is reported."""

_MOST_FRAMES_ASKED = 1000


class Decision(BaseModel):
    """The gate's answer, stored with the model version (``model_dump(mode="json")``).

    Attributes:
        verdict: what to do with the challenger.
        policy: under which rules.
        words: the reason, one or two sentences with their figures.
        checks: every condition, also those that passed.
        gain: challenger's mIoU minus champion's on the target's audit frames, points; None if unlabelled.
        gain_interval: where 90 % of the bootstrap's draws lie; None below two stretches.
        probability: of a gain above ``rules["min_gain"]``, never surer than the number of stretches allows.
        miou_champion: percent, on the target's audit frames.
        miou_challenger: percent.
        audit_frames: target frames it rests on.
        stretches: independent stretches of the drive they lie in.
        frames_needed: how many more audit frames an undecided verdict asks for; 0 otherwise.
        rules: the numbers it was made by.
        target: the road that the round adapted to; empty where roads are not told apart.
        domains: figures by road (``source`` is the source pack): frames, mIoU and IoU by class of every model.
        cases: mIoU by regression case of every model, percent.
        asks: query ids of the frames that an undecided verdict waits for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    policy: str
    words: str
    checks: list[Check]
    gain: float | None
    gain_interval: tuple[float, float] | None
    probability: float
    miou_champion: float | None
    miou_challenger: float | None
    audit_frames: int
    stretches: int
    frames_needed: int = Field(0, ge=0)
    rules: dict[str, Any]
    target: str = ""
    domains: dict[str, DomainFigures] = Field(default_factory=dict)
    cases: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    asks: list[str] = Field(default_factory=list)


def decide(
    measured: Measurements,
    settings: GateSettings,
    label_space: LabelSpace,
    bars: Mapping[str, float] | None = None,
) -> Decision:
    """Judge a challenger by its measurements alone; the same input gives the same decision.

    Args:
        measured: what the worker measured.
        settings: policy and margins.
        label_space: of the models.
        bars: best mIoU of a promoted model on each regression case so far, percent by query id.

    Raises:
        WorkerError: if the measurements are of another number of classes than ``label_space``.
    """
    if measured.num_classes != label_space.num_classes:
        raise WorkerError(
            f"measurements have {measured.num_classes} classes but label space '{label_space.name}' "
            f"{label_space.num_classes}: measure again with the model's own label space"
        )
    rules = settings.rules()
    difference = _difference(measured, settings, rules)
    checks = [*_checks(measured, settings, rules, label_space), *check_cases(measured, rules, bars or {})]
    verdict, words, needed = _verdict(difference, checks, rules)
    if verdict == "promote" and settings.policy == "manual":
        verdict, words = "wait_for_human", f"{words} Policy manual: waits for a human to confirm."
    low, high = difference.interval(INTERVAL)
    return Decision(
        verdict=verdict,
        policy=settings.policy,
        words=words,
        checks=checks,
        gain=_finite(difference.gain),
        gain_interval=(low, high) if math.isfinite(low) else None,
        probability=difference.probability_above(rules.min_gain),
        miou_champion=_finite(difference.before),
        miou_challenger=_finite(difference.after),
        audit_frames=difference.frames,
        stretches=difference.stretches,
        frames_needed=needed,
        rules=rules.to_dict(),
        target=measured.target,
        domains=domain_figures(measured, label_space),
        cases=case_figures(measured),
    )


def _difference(measured: Measurements, settings: GateSettings, rules: GateRules) -> PairedDifference:
    target = measured.masks()[measured.target]
    return paired_difference(
        measured.champion.audit[target],
        measured.challenger.audit[target],
        measured.stamps_ns[target],
        length_s=settings.stretch_s,
        samples=settings.bootstrap_samples,
        probability=rules.look_probability,
        seed=settings.seed,
    )


def _checks(measured: Measurements, settings: GateSettings, rules: GateRules, label_space: LabelSpace) -> list[Check]:
    return [
        check_finite(measured),
        check_latency(measured, settings),
        check_swallowed(measured, settings, label_space),
        check_vanished(measured, settings, label_space),
        check_source(measured, rules),
        *check_domains(measured, rules),
        *check_safety(measured, rules, label_space, settings.margins()),
    ]


def _verdict(difference: PairedDifference, checks: Sequence[Check], rules: GateRules) -> tuple[Verdict, str, int]:
    """The verdict, its words, and the frames that are missing."""
    failed = [check for check in checks if not check.passed]
    certain = [check for check in failed if not check.needs_evidence]
    gain = _describe(difference, rules)
    if certain:
        return "refuse", _sentence("Refused: " + "; ".join(check.words for check in failed), gain), 0
    if difference.gain < 0 and difference.probability_above(0.0) <= 1.0 - rules.probability:
        worse = ["the target gets worse", *(check.words for check in failed)]
        return "refuse", _sentence("Refused: " + "; ".join(worse), gain), 0
    missing = _missing(difference, rules)
    if missing:
        so_far = "".join(f"; so far {check.words}" for check in failed)
        return "undecided", _sentence(_too_little(difference, rules, missing) + so_far, gain), missing
    if failed:
        return "refuse", _sentence("Refused: " + "; ".join(check.words for check in failed), gain), 0
    unjudged = "; ".join(check.words for check in checks if not check.judged)
    return _by_gain(difference, rules, f"{gain} Not judged: {unjudged}." if unjudged else gain)


def _by_gain(difference: PairedDifference, rules: GateRules, gain: str) -> tuple[Verdict, str, int]:
    probability = difference.probability_above(rules.min_gain)
    if probability >= rules.look_probability:
        return "promote", _sentence("Promoted", gain), 0
    if difference.gain <= rules.min_gain or probability <= 1.0 - rules.probability:
        return "refuse", _sentence("Refused: no gain to speak of", gain), 0
    needed = _frames_for_power(difference, rules)
    many = f"about {needed}" if needed < _MOST_FRAMES_ASKED else f"{needed} or"
    words = f"Undecided: the gain is not sure enough; {many} more audit frames would show it"
    return "undecided", _sentence(words, gain), needed


def _missing(difference: PairedDifference, rules: GateRules) -> int:
    """Audit frames without which nothing can be promoted; each new one may lie in a stretch of its own."""
    return max(0, rules.min_audit_frames - difference.frames, rules.min_stretches - difference.stretches)


def _frames_for_power(difference: PairedDifference, rules: GateRules) -> int:
    """How many more frames like these would make the probability reach what is asked, if the gain stays."""
    z = NormalDist().inv_cdf(rules.look_probability)
    factor = (z * difference.deviation / (difference.gain - rules.min_gain)) ** 2
    return min(_MOST_FRAMES_ASKED, max(1, math.ceil(difference.frames * (factor - 1.0))))


def _too_little(difference: PairedDifference, rules: GateRules, missing: int) -> str:
    return (
        f"Undecided: too little evidence, {difference.frames} audit frames in {difference.stretches} stretches of the "
        f"drive, where {rules.min_audit_frames} frames in {rules.min_stretches} stretches are the least; "
        f"needs {missing} more"
    )


def _describe(difference: PairedDifference, rules: GateRules) -> str:
    if not math.isfinite(difference.gain):
        return "No audit frame of the target is labelled yet."
    interval = difference.interval(INTERVAL)
    spread = f"90 % interval {interval[0]:+.1f} to {interval[1]:+.1f}" if difference.draws.size else "no interval"
    # Cut off, not rounded: the words never claim more than the figure.
    probability, asked = (
        math.floor(100 * each) / 100 for each in (difference.probability_above(rules.min_gain), rules.look_probability)
    )
    bound = f"above {rules.min_gain:.1f} points " if rules.min_gain else ""
    return (
        f"Target mIoU {difference.before:.1f} → {difference.after:.1f} % ({difference.gain:+.1f} points, {spread}) on "
        f"{difference.frames} audit frames in {difference.stretches} stretches; probability of a gain {bound}"
        f"{probability:.2f}, asked {asked:.2f}."
    )


def _sentence(head: str, gain: str) -> str:
    return f"{head}. {gain}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
