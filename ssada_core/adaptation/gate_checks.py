"""The gate's single checks: each compares a few figures with a bound and says so in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ssada_core.adaptation.gate_settings import GateRules, GateSettings
from ssada_core.adaptation.measurements import Measurements
from ssada_core.evaluation.metrics import Matrix, iou, miou
from ssada_core.labels import LabelSpace

Figures = dict[str, float | int | str | None]

_REFERENCES = ("champion", "first")


class Check(BaseModel):
    """One condition of a promotion.

    Attributes:
        name: such as ``latency``, ``safety:road`` or ``domain:day``.
        passed: whether the challenger meets it; also true where it could not be judged.
        figures: the numbers compared, and the bound; None where there was nothing to measure.
        words: the same as a sentence's part, with its figures.
        needs_evidence: whether its figures come from the audit frames, so that few frames can err.
        judged: False where there was nothing to measure, or too little.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    figures: Figures
    words: str
    needs_evidence: bool = False
    judged: bool = True


def check_finite(measured: Measurements) -> Check:
    """Every output of the challenger is a finite number."""
    finite = measured.challenger.finite
    words = "all outputs are finite" if finite else "the challenger puts out numbers that are not finite"
    return Check(name="finite", passed=finite, figures={"finite": int(finite)}, words=words)


def check_latency(measured: Measurements, settings: GateSettings) -> Check:
    """The challenger is not slower than the champion by more than the asked ratio (medians)."""
    times = [measured.champion.latencies_s, measured.challenger.latencies_s]
    bound = settings.max_latency_ratio
    if not all(part.size for part in times):
        figures: Figures = {"ratio": None, "bound": bound}
        return Check(name="latency", passed=True, figures=figures, words="latency was not measured", judged=False)
    champion, challenger = (1e3 * float(np.median(part)) for part in times)
    ratio = challenger / champion
    words = (
        f"latency {challenger:.1f} ms is {ratio:.2f} times the champion's {champion:.1f} ms "
        f"({'at most' if ratio <= bound else 'more than'} {bound:.2f})"
    )
    figures = {"champion_ms": champion, "challenger_ms": challenger, "ratio": ratio, "bound": bound}
    return Check(name="latency", passed=ratio <= bound, figures=figures, words=words)


def check_swallowed(measured: Measurements, settings: GateSettings, label_space: LabelSpace) -> Check:
    """No class fills nearly the whole picture unless it does so in the labels (the collapse of self-training)."""
    predicted, true = _shares(measured.challenger.histogram), _truth_shares(measured)
    if predicted is None or true is None:
        return Check(
            name="swallowed", passed=True, figures={"share": None}, words="no prediction was counted", judged=False
        )
    worst = int(predicted.argmax())
    share, real = float(predicted[worst]), float(true[worst])
    # Where one class truly fills the frame (parking seen from above), what is left for the others must not vanish.
    passed = share <= settings.collapse_bound or (1 - share) >= 0.25 * (1 - real)
    name = label_space.classes[worst]
    words = f"'{name}' takes {100 * share:.1f} % of all predicted pixels, {100 * real:.1f} % of the labels"
    figures: Figures = {"class": name, "share": share, "true_share": real, "bound": settings.collapse_bound}
    return Check(name="swallowed", passed=passed, figures=figures, words=words if passed else f"collapse: {words}")


def check_vanished(measured: Measurements, settings: GateSettings, label_space: LabelSpace) -> Check:
    """No class with a real share in the labels vanished from the predictions, which the champion still finds."""
    true = _truth_shares(measured)
    after, before = _shares(measured.challenger.histogram), _shares(measured.champion.histogram)
    if true is None or after is None or before is None:
        return Check(
            name="vanished", passed=True, figures={"classes": None}, words="no prediction was counted", judged=False
        )
    floor = 0.05 * true
    gone = np.flatnonzero((true >= settings.collapse_share) & (after < floor) & (before >= floor))
    if not gone.size:
        return Check(name="vanished", passed=True, figures={"classes": ""}, words="no class vanished")
    lost = [
        f"'{label_space.classes[c]}' ({100 * true[c]:.1f} % of the labels, {100 * after[c]:.2f} % now)" for c in gone
    ]
    figures: Figures = {"classes": ", ".join(label_space.classes[c] for c in gone)}
    return Check(
        name="vanished", passed=False, figures=figures, words=f"vanished from the predictions: {', '.join(lost)}"
    )


def check_source(measured: Measurements, rules: GateRules) -> Check:
    """The source pack's mIoU does not fall by more than its margin; without a pack, the agreement instead."""
    if not len(measured.champion.source):
        return _check_agreement(measured, rules)
    values = _mious({name: getattr(measured, name).source for name in (*_REFERENCES, "challenger")})
    return _fall("source", f"mIoU on {len(measured.champion.source)} source frames", values, rules.source_margin)


def _check_agreement(measured: Measurements, rules: GateRules) -> Check:
    share, bound = measured.agreement, rules.min_agreement
    figures: Figures = {"agreement": share, "bound": bound}
    if share is None:
        words = "source-free round: forgetting of the source was not measured"
        return Check(name="source", passed=True, figures=figures, words=words, judged=False)
    words = (
        f"source-free round: {100 * share:.1f} % of the first model's confident pixels are answered alike "
        f"({'at least' if share >= bound else 'fewer than'} {100 * bound:.0f} %)"
    )
    return Check(name="source", passed=share >= bound, figures=figures, words=words)


def check_domains(measured: Measurements, rules: GateRules) -> Iterator[Check]:
    """No earlier domain falls by more than its margin; the target does not fall below the first model."""
    masks = measured.masks()
    for domain, mask in masks.items():
        if not mask.any():
            continue
        values = _mious({name: getattr(measured, name).audit[mask] for name in (*_REFERENCES, "challenger")})
        where = (
            f"mIoU on {int(mask.sum())} {'target' if domain == measured.target else domain or 'earlier'} audit frames"
        )
        if domain == measured.target:
            del values["champion"]  # the gain itself is judged by the bootstrap
        name = "target" if domain == measured.target else f"domain:{domain or 'earlier'}"
        yield _fall(name, where, values, rules.domain_margin, needs_evidence=True)


def check_safety(
    measured: Measurements, rules: GateRules, label_space: LabelSpace, margins: Mapping[str, float]
) -> Iterator[Check]:
    """No safety class falls by more than its margin, in any domain where it has enough labelled pixels.

    The source pack is a domain, too, with a margin of its own for classes that have none.

    Args:
        measured: the models' figures.
        rules: with the margin of classes that have none of their own.
        label_space: with the names of the safety classes.
        margins: single classes' own, points.
    """
    models = (*_REFERENCES, "challenger")
    stacks = {
        "" if domain == measured.target else f"@{domain or 'earlier'}": {
            model: getattr(measured, model).audit[mask].sum(axis=0) for model in models
        }
        for domain, mask in measured.masks().items()
    }
    if len(measured.champion.source):
        stacks["@source pack"] = {model: getattr(measured, model).source.sum(axis=0) for model in models}
    for suffix, matrices in stacks.items():
        for name in label_space.safety:
            margin = margins.get(name, rules.source_safety_margin if suffix == "@source pack" else rules.safety_margin)
            yield _check_class(matrices, rules, margin, name, label_space.index(name), suffix)


def _check_class(
    matrices: Mapping[str, Matrix], rules: GateRules, margin: float, name: str, index: int, suffix: str
) -> Check:
    title = f"safety:{name}{suffix}"
    pixels = int(matrices["champion"][index].sum())
    if not pixels or pixels < rules.safety_min_pixels:
        figures: Figures = {"pixels": pixels, "min_pixels": rules.safety_min_pixels}
        words = f"IoU of '{name}{suffix}' is not judged: {pixels} labelled pixels of {rules.safety_min_pixels}"
        return Check(name=title, passed=True, figures=figures, words=words, needs_evidence=True, judged=False)
    values = {model: 100 * float(iou(matrix)[index]) for model, matrix in matrices.items()}
    check = _fall(title, f"IoU of '{name}{suffix}'", values, margin, needs_evidence=True)
    return check.model_copy(update={"figures": {**check.figures, "pixels": pixels}})


def check_cases(measured: Measurements, rules: GateRules, bars: Mapping[str, float]) -> Iterator[Check]:
    """No regression case falls below the best that a promoted model ever reached on it, by more than its margin.

    Args:
        measured: the models' figures.
        rules: with the margin.
        bars: mIoU in percent by query id, of the best promoted model so far.
    """
    for number, case in enumerate(measured.case_ids):
        values = {name: miou(getattr(measured, name).cases[number]) for name in (*_REFERENCES, "challenger")}
        if case in bars:
            values["best"] = bars[case]
        yield _fall(f"case:{case}", f"mIoU on the flagged frame {case}", values, rules.case_margin)


def _fall(name: str, what: str, values: Mapping[str, float], margin: float, *, needs_evidence: bool = False) -> Check:
    """The challenger's value against every reference's: it may fall by ``margin`` points and no more."""
    figures: Figures = {**values, "margin": margin}
    if not np.isfinite(list(values.values())).all():
        figures = {"margin": margin}
        words = f"{what} is not judged: nothing is labelled there"
        return Check(name=name, passed=True, figures=figures, words=words, needs_evidence=needs_evidence, judged=False)
    after = values["challenger"]
    worst = max((model for model in values if model != "challenger"), key=lambda model: values[model])
    change = after - values[worst]
    who = {"champion": "champion", "best": "best model"}.get(worst, "first model")
    words = (
        f"{what} {'falls' if change < 0 else 'goes'} from the {who}'s {values[worst]:.1f} to {after:.1f} % "
        f"({change:+.1f} points, margin {margin:.1f})"
    )
    return Check(name=name, passed=-change <= margin, figures=figures, words=words, needs_evidence=needs_evidence)


def _mious(stacks: Mapping[str, Matrix]) -> dict[str, float]:
    return {name: miou(stack.sum(axis=0)) for name, stack in stacks.items()}


def _shares(histogram: NDArray[np.int64]) -> NDArray[np.float64] | None:
    total = int(histogram.sum())
    return histogram / total if total else None


def _truth_shares(measured: Measurements) -> NDArray[np.float64] | None:
    return _shares(np.asarray(measured.champion.audit.sum(axis=(0, 2))))
