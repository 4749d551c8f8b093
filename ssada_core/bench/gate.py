"""The gate's operating curve: how often it promotes a challenger of a known true gain, by number of audit frames.

Challengers of every quality lie on the line through champion and challenger in weight space, from behind the
champion (worse) to the challenger (better). Each is run once over all frames, which gives its true gain; then audit
frames are drawn at random, again and again, and the real gate decides on them.

Two models that differ everywhere but are equally good are made by swapping champion and challenger at random, stretch
by stretch: what the evidence for a gain alone then promotes, all other checks aside, is the gate's error of the first
kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import Field

from ssada_core.adaptation.conductor import MOST_ASKED
from ssada_core.adaptation.gate import Decision, GateSettings, Measurements, ModelMeasurement, decide
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import Samples, spread
from ssada_core.errors import ConfigError
from ssada_core.evaluation.evaluate import Progress, evaluate
from ssada_core.evaluation.metrics import Matrix, miou
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import read_model
from ssada_core.inference.torch_engine import TorchEngine
from ssada_core.labels import LabelSpace
from ssada_core.settings import Settings
from ssada_core.store.models import resolve_model

_SECOND = 1_000_000_000
_LATENCY = np.full(9, 0.01)
_FIRST, _SECOND_LOOK = "first look", "with the second look"
_EQUAL_TRIALS = 4
"""Times as many draws for equally good models, whose share is small."""


class GateBench(Settings):
    """What is measured."""

    champion: str = Field(description="Model reference of the champion, which is the first model, too.")
    challenger: str = Field(description="Model reference of a challenger that was trained from it.")
    target: str = Field(description="Labelled frames of the road that was adapted to; none of them trained on.")
    source: str = Field("", description="Labelled source frames, as the source pack has them.")
    frames: int = Field(300, ge=16, description="Target frames that are run, spread over all.")
    source_frames: int = Field(24, ge=0, description="Source frames, likewise.")
    rate: float = Field(1.0, gt=0, description="Target frames per second: neighbours share a stretch of the road.")
    shares: tuple[float, ...] = Field(
        (-0.3, -0.15, -0.05, -0.02, -0.01, 0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
        description="Places on the line through champion (0) and challenger (1).",
    )
    audit_frames: tuple[int, ...] = Field((4, 8, 12, 16, 24, 32), description="Numbers of audit frames.")
    trials: int = Field(100, ge=1, description="Draws of audit frames at each place and number.")
    gate: GateSettings = Field(default_factory=lambda: GateSettings(bootstrap_samples=400))
    seed: int = Field(0, ge=0, description="Of the draws.")


@dataclass(frozen=True)
class _Place:
    """One challenger on all frames."""

    share: float
    target: Matrix
    source: Matrix


def measure(bench: GateBench, on_place: Progress | None = None) -> dict[str, Any]:
    """Run the models and let the gate decide.

    Returns:
        Plain figures: ``places`` with the true gain in points of mIoU and the share of every verdict by number of
        audit frames; ``false_promotions``, the largest share of promotions among places without a true gain;
        ``equally_good``, the share of promotions of the challenger where it is as good as the champion.

    Raises:
        ConfigError: if the two models are no pair, or there are fewer target frames than are to be drawn.
        DataError: if frames cannot be read.
    """
    torch.set_num_threads(1)
    places, space = _run(bench, on_place)
    champion = next(place for place in places if place.share == 0.0)
    if len(champion.target) < max(bench.audit_frames):
        raise ConfigError(
            f"{len(champion.target)} target frames are labelled: draw fewer than {max(bench.audit_frames)}"
        )
    rows = [_judge(bench, champion, place, space) for place in places]
    none = [row for row in rows if row["gain"] <= 0]
    worst = {
        look: max((share["promote"] for row in none for share in row["verdicts"][look].values()), default=0.0)
        for look in (_FIRST, _SECOND_LOOK)
    }
    return {
        "settings": bench.model_dump(mode="json"),
        "target_frames": len(champion.target),
        "champion_miou": miou(champion.target.sum(axis=0)),
        "places": rows,
        "false_promotions": worst,
        "equally_good": _equally_good(bench, champion, places[-1], space),
    }


def _run(bench: GateBench, on_place: Progress | None) -> tuple[list[_Place], LabelSpace]:
    network, manifest = read_model(resolve_model(bench.champion))
    other, theirs = read_model(resolve_model(bench.challenger))
    if manifest.network != theirs.network or manifest.label_space["classes"] != theirs.label_space["classes"]:
        raise ConfigError(
            f"{bench.challenger} is another network than {bench.champion}: name a version trained from it"
        )
    space = manifest.labels()
    target = spread(open_samples(bench.target, space), bench.frames)
    source = spread(open_samples(bench.source, space), bench.source_frames) if bench.source else None
    one = {name: value.clone() for name, value in network.state_dict().items()}
    two = other.state_dict()
    size = (manifest.network.input_height, manifest.network.input_width)
    places = []
    shares = sorted({0.0, *bench.shares})
    for number, share in enumerate(shares):
        network.load_state_dict({name: _between(one[name], two[name], share) for name in one})
        engine = TorchEngine(network, size, EngineSettings(backend="torch", threads=1))
        places.append(_Place(share, _matrices(engine, target, space), _matrices(engine, source, space)))
        if on_place is not None:
            on_place(number + 1, len(shares))
    return places, space


def _between(one: torch.Tensor, two: torch.Tensor, share: float) -> torch.Tensor:
    if not one.is_floating_point():
        return one
    mixed = one + share * (two - one)
    # Behind the champion a variance could become negative, which no training makes.
    return torch.where((one > 0) & (two > 0), mixed.clamp_min(1e-6), mixed)


def _matrices(engine: TorchEngine, samples: Samples | None, space: LabelSpace) -> Matrix:
    if samples is None or len(samples) == 0:
        return np.zeros((0, space.num_classes, space.num_classes), np.int64)
    return evaluate(engine, samples, space.num_classes).matrices


def _judge(bench: GateBench, champion: _Place, place: _Place, space: LabelSpace) -> dict[str, Any]:
    before, after = (miou(each.target.sum(axis=0)) for each in (champion, place))
    verdicts: dict[str, dict[str, dict[str, float]]] = {_FIRST: {}, _SECOND_LOOK: {}}
    reasons: dict[str, int] = {}
    for count in bench.audit_frames:
        found: dict[str, list[str]] = {_FIRST: [], _SECOND_LOOK: []}
        for trial in range(bench.trials):
            rng = np.random.default_rng([bench.seed, count, trial])
            first, again = _looks(bench, champion, place, rng.permutation(len(champion.target)), count, space)
            found[_FIRST].append(first.verdict)
            found[_SECOND_LOOK].append(again.verdict)
            for check in again.checks:
                if not check.passed:
                    reasons[check.name] = reasons.get(check.name, 0) + 1
        for look, each in found.items():
            verdicts[look][str(count)] = {
                verdict: each.count(verdict) / bench.trials for verdict in ("promote", "refuse", "undecided")
            }
    sources = [miou(each.source.sum(axis=0)) if len(each.source) else None for each in (champion, place)]
    change = sources[1] - sources[0] if sources[0] is not None and sources[1] is not None else None
    return {
        "share": place.share,
        "gain": after - before,
        "source_change": change,
        "verdicts": verdicts,
        "failed_checks": dict(sorted(reasons.items(), key=lambda item: -item[1])),
    }


def _equally_good(
    bench: GateBench, champion: _Place, challenger: _Place, space: LabelSpace
) -> dict[str, dict[str, float]]:
    """Shares of promotions by look and number of audit frames."""
    aside = {"safety_margin": 100.0, "domain_margin": 100.0, "source_margin": 100.0, "source_safety_margin": 100.0}
    open_to_all = bench.model_copy(update={"gate": bench.gate.model_copy(update={**aside, "collapse_share": 0.999})})
    stretch = np.arange(len(champion.target)) * (1.0 / bench.rate) // bench.gate.stretch_s
    shares: dict[str, dict[str, float]] = {_FIRST: {}, _SECOND_LOOK: {}}
    trials = _EQUAL_TRIALS * bench.trials
    for count in bench.audit_frames:
        promoted = {_FIRST: 0, _SECOND_LOOK: 0}
        for trial in range(trials):
            rng = np.random.default_rng([bench.seed, count, trial, 1])
            swapped = rng.random(int(stretch[-1]) + 1)[stretch.astype(np.int64)] < 0.5
            one, two = champion.target.copy(), challenger.target.copy()
            one[swapped], two[swapped] = challenger.target[swapped], champion.target[swapped]
            pair = _Place(0.0, one, champion.source), _Place(1.0, two, champion.source)
            looks = _looks(open_to_all, *pair, rng.permutation(len(stretch)), count, space)
            for name, look in zip(promoted, looks, strict=True):
                promoted[name] += look.verdict == "promote"
        for name, number in promoted.items():
            shares[name][str(count)] = number / trials
    return shares


def _looks(
    bench: GateBench,
    champion: _Place,
    place: _Place,
    order: NDArray[np.int64],
    count: int,
    space: LabelSpace,
) -> tuple[Decision, Decision]:
    """The decision on the first ``count`` frames, and the last one: with the frames that an undecided one asks for."""
    first = _decide(bench, champion, place, order[:count], space)
    if first.verdict != "undecided" or not 0 < first.frames_needed <= MOST_ASKED:
        return first, first
    return first, _decide(bench, champion, place, order[: count + first.frames_needed], space)


def _decide(
    bench: GateBench, champion: _Place, place: _Place, chosen: NDArray[np.int64], space: LabelSpace
) -> Decision:
    stamps = (chosen * (_SECOND / bench.rate)).astype(np.int64)
    old, new = (
        ModelMeasurement(
            each.target[chosen], each.source, np.asarray(each.target[chosen].sum(axis=(0, 1))), _LATENCY, finite=True
        )
        for each in (champion, place)
    )
    return decide(Measurements(stamps, old, new, old), bench.gate, space)


def markdown(figures: Mapping[str, Any]) -> str:
    """The curve as tables, for ``docs/results/gate.md``."""
    counts = [str(count) for count in figures["settings"]["audit_frames"]]
    lines = []
    for look in (_FIRST, _SECOND_LOOK):
        lines += [
            f"Promoted, percent of {figures['settings']['trials']} draws, {look}:",
            "",
            f"| true gain, points | source pack | {' | '.join(f'{count} audit frames' for count in counts)} |",
            f"| ---: | ---: | {' | '.join('---:' for _ in counts)} |",
        ]
        for row in sorted(figures["places"], key=lambda row: row["gain"]):
            shares = [f"{100 * row['verdicts'][look][count]['promote']:.0f}" for count in counts]
            source = "–" if row["source_change"] is None else f"{row['source_change']:+.1f}"
            lines.append(f"| {row['gain']:+.2f} | {source} | {' | '.join(shares)} |")
        lines.append("")
    lines += [
        "Promoted where both are equally good, by the evidence for a gain alone, percent of "
        f"{_EQUAL_TRIALS * figures['settings']['trials']} draws:",
        "",
        f"| | {' | '.join(f'{count} audit frames' for count in counts)} |",
        f"| --- | {' | '.join('---:' for _ in counts)} |",
    ]
    for look, shares in figures["equally_good"].items():
        lines.append(f"| {look} | {' | '.join(f'{100 * shares[count]:.1f}' for count in counts)} |")
    return "\n".join([*lines, ""])


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the curve into a PNG file."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    rows = sorted(figures["places"], key=lambda row: row["gain"])
    gains = [row["gain"] for row in rows]
    for axes, look in zip(figure.subplots(1, 2, sharey=True), (_FIRST, _SECOND_LOOK), strict=True):
        for number, count in enumerate(figures["settings"]["audit_frames"]):
            shares = [100 * row["verdicts"][look][str(count)]["promote"] for row in rows]
            colour = (0.1, 0.25 + 0.1 * number, 0.85 - 0.12 * number)
            axes.plot(gains, shares, marker=".", color=colour, label=str(count))
        axes.axvline(0, color="0.6", linewidth=0.8)
        axes.set_xscale("symlog", linthresh=1.0)  # what is decided lies around 0, what is trained far from it
        ticks = [-10, -1, 0, 1, 10]
        axes.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
        axes.set(xlabel="true gain, points of mIoU", title=look, ylim=(-2, 102))
    figure.axes[0].set_ylabel("promoted, percent of draws")
    figure.axes[1].legend(title="audit frames", fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
