"""What an adaptation in recorded time amounts to: figures and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssada_core.adaptation.round import ROUND_FILE, read_round
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import spread
from ssada_core.evaluation.evaluate import Evaluation, evaluate
from ssada_core.evaluation.report import PairShown, QueryShown
from ssada_core.labels import LabelSpace
from ssada_core.replay import results
from ssada_core.replay.adapted import Adapted, AskedFrame, PlayedRound
from ssada_core.replay.compare import compare
from ssada_core.replay.figures import AdaptationFigures, QueryFigures, RoundFigures, SwapFigures, UnseenFigures
from ssada_core.replay.session import Pass
from ssada_core.replay.settings import ReplaySettings
from ssada_core.replay.tally import Series

PAIRS_SHOWN = 6
FRAMES_PER_STRETCH = 5
"""Neighbouring frames of an evaluation list that are resampled together."""


@dataclass
class AdaptationResults:
    """Figures and pictures of the adaptation, and what it took on this machine."""

    figures: AdaptationFigures
    queries: list[QueryShown] = field(default_factory=list)
    pairs: list[PairShown] = field(default_factory=list)
    round_seconds: list[float] = field(default_factory=list)
    gate_latency: list[str] = field(default_factory=list)


def gather(
    driver: Adapted,
    done: Pass,
    settings: ReplaySettings,
    space: LabelSpace,
    evaluation: str,
    *,
    round_seconds: float | None,
) -> AdaptationResults:
    """Judge first and last model on unseen frames and collect what happened.

    Args:
        driver: who drove.
        done: the pass over the recording.
        settings: of the replay.
        space: names of the classes.
        evaluation: a list or bag of unseen labelled frames; empty for none.
        round_seconds: of the drive, that a round took; None where it took what it took.

    Raises:
        SsadaError: if the evaluation's frames cannot be read or a model cannot be run.
    """
    pairs: list[PairShown] = []
    unseen = _unseen_after(done, settings, space)
    if evaluation:
        unseen, pairs = _unseen_list(driver, evaluation, settings, space)
    figures = _figures(driver, done.first_ns, settings, round_seconds, unseen)
    decisions = [one.decision for one in driver.rounds]
    return AdaptationResults(
        figures,
        _pictures(driver, driver.asked),
        pairs,
        [float(one["round"]["seconds"]) for one in decisions if "round" in one],
        [str(check["words"]) for one in decisions for check in one.get("checks", []) if check["name"] == "latency"],
    )


def _figures(
    driver: Adapted,
    first_ns: int,
    settings: ReplaySettings,
    round_seconds: float | None,
    unseen: UnseenFigures | None,
) -> AdaptationFigures:
    specs = sorted((driver.root / "rounds").glob(f"round-*/{ROUND_FILE}"))
    stats = driver.pool.stats()
    return AdaptationFigures(
        seed=settings.seed,
        round_seconds=round_seconds,
        until_s=None if driver.until_ns is None else (driver.until_ns - first_ns) / 1e9,
        answers=settings.answers,
        first_version=driver.first_version,
        last_version=driver.swaps[-1].version if driver.swaps else driver.first_version,
        queries=[_query(number, asked) for number, asked in enumerate(driver.asked, 1)],
        labels=stats.counts["labelled"],
        audit_labels=stats.audit_labelled,
        rounds=[_round(one, spec.parent) for one, spec in zip(driver.rounds, specs, strict=False)],
        swaps=[SwapFigures(version=one.version, time_s=one.time_s, reason=one.reason) for one in driver.swaps],
        unfinished=_unfinished(driver.rounds, driver.end_s),
        unseen=unseen,
    )


def _query(number: int, asked: AskedFrame) -> QueryFigures:
    record, result = asked.record, asked.result
    return QueryFigures(
        number=number,
        camera=record.camera,
        stamp_ns=record.stamp_ns,
        asked_s=asked.asked_s,
        batch=record.batch or 0,
        audit=record.audit,
        score=None if record.score is None else round(record.score, results.DIGITS),
        reason=record.reason,
        answer="open" if result is None else result.status,
        why="" if result is None else result.why,
    )


def _round(played: PlayedRound, folder: Path) -> RoundFigures:
    decision = played.decision
    result: dict[str, Any] = decision.get("round", {})
    return RoundFigures(
        started_s=played.started_s,
        ended_s=played.ended_s,
        reason=read_round(folder).reason,
        version=str(decision.get("version", "")),
        verdict=str(decision.get("verdict", "")),
        words=str(decision.get("words", "")),
        labelled=result.get("labelled", 0),
        audit=result.get("audit", 0),
        unlabelled=result.get("unlabelled", 0),
        source=result.get("source", 0),
        iterations=result.get("iterations", 0),
        losses=result.get("losses", {}),
        checks=[check for check in decision.get("checks", []) if check["name"] != "latency"],
    )


def _unfinished(rounds: Sequence[PlayedRound], end_s: float) -> str:
    late = [one for one in rounds if one.ended_s > end_s]
    if not late:
        return ""
    start, after = late[-1].started_s, late[-1].ended_s - end_s
    return (
        f"The last round was started {start:.1f} s into the drive and ended {after:.1f} s after its last frame: "
        "its model served none of the drive's frames."
    )


def _unseen_after(done: Pass, settings: ReplaySettings, space: LabelSpace) -> UnseenFigures | None:
    """The frames behind the point at which the adaptation stopped."""
    tally = done.after
    labelled = sum(tally.labelled.values())
    if not labelled:
        return None
    (first, before), (last, after) = tally.series.items()
    result = compare(
        (first, last), (before, after), space.classes, samples=settings.bootstrap_samples, seed=settings.seed
    )
    return UnseenFigures(
        what=f"{labelled} labelled frames of the drive behind the point at which the adaptation stopped",
        names=(_name(first, before), _name(last, after)),
        before=results.quality(before, labelled, space),
        after=results.quality(after, labelled, space),
        comparison=None if result is None else results.comparison_figures(result),
    )


def _name(series_name: str, series: Series) -> str:
    """A swap may come amid these frames, or after all of them: so the series is named, and who answered for it."""
    return f"{series_name} ({', '.join(series.versions)})"


def _unseen_list(
    driver: Adapted, reference: str, settings: ReplaySettings, space: LabelSpace
) -> tuple[UnseenFigures, list[PairShown]]:
    samples = open_samples(reference, space)
    first, last = driver.load_pair()
    evaluations = [evaluate(model.engine, samples, space.num_classes) for model in (first, last)]
    pair = (_series(evaluations[0], space), _series(evaluations[1], space))
    names = (first.version, last.version)
    result = compare(names, pair, space.classes, samples=settings.bootstrap_samples, seed=settings.seed)
    shown = spread(samples, PAIRS_SHOWN)
    pairs = []
    for index in range(len(shown)):
        image = shown.image(index)
        labels = [model.engine.infer([image])[0].label for model in (first, last)]
        pairs.append(PairShown(shown.name(index), image, labels[0], labels[1], group="Unseen frames"))
    figures = UnseenFigures(
        what=f"both models as deployed, on {len(evaluations[0].names)} labelled frames that the drive does not show "
        f"({reference}), {FRAMES_PER_STRETCH} neighbours to a stretch",
        names=names,
        before=results.evaluated(evaluations[0], space),
        after=results.evaluated(evaluations[1], space),
        comparison=None if result is None else results.comparison_figures(result),
    )
    return figures, pairs


def _series(evaluation: Evaluation, space: LabelSpace) -> Series:
    series = Series(space.num_classes)
    for index, matrix in enumerate(evaluation.matrices):
        series.add(index // FRAMES_PER_STRETCH, matrix)
    return series


def _pictures(driver: Adapted, asked: Sequence[AskedFrame]) -> list[QueryShown]:
    pool = driver.pool
    found = []
    for number, one in enumerate(asked, 1):
        record = pool.get(one.record.id)
        note = f"at {one.asked_s:.1f} s · {record.reason}"
        found.append(QueryShown(f"query {number}", pool.image(record), pool.label(record), record.audit, note))
    return found
