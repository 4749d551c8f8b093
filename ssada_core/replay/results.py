"""From the sums of a pass to the figures of ``report.json``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ssada_core.data.damage import Damage
from ssada_core.evaluation.evaluate import Evaluation
from ssada_core.evaluation.metrics import miou
from ssada_core.labels import LabelSpace
from ssada_core.replay.compare import PROBABILITY, TIE, Comparison, compare
from ssada_core.replay.figures import (
    ClassFigures,
    ComparisonFigures,
    DamageFigures,
    Quality,
    RecordingFigures,
    SeriesFigures,
    StretchFigures,
    Timing,
)
from ssada_core.replay.recording import Recording
from ssada_core.replay.session import Pass
from ssada_core.replay.settings import ReplaySettings
from ssada_core.replay.tally import Series, Tally, finite

DIGITS = 6
"""Decimals of figures: more than anybody reads, fewer than summation order shows in."""


def recording_figures(path: str, recording: Recording, done: Pass, every: int) -> RecordingFigures:
    """What was played."""
    stamps = [stamp for part in recording.stamps_ns.values() for stamp in part]
    return RecordingFigures(
        path=path,
        cameras=done.cameras,
        frames=done.frames,
        labelled=sum(done.tally.labelled.values()),
        first_stamp_ns=recording.first_ns or 0,
        duration_s=(max(stamps) - min(stamps)) / 1e9 if stamps else 0.0,
        every=every,
    )


def damage_figures(damage: Damage) -> list[DamageFigures]:
    """What was broken."""
    return [DamageFigures(kind=item.kind, count=item.count, example=item.example) for item in damage]


def quality(series: Series, frames: int, space: LabelSpace) -> Quality:
    """A series' agreement with the ground truth."""
    return Quality(frames=frames, **_agreement(series, space))


def evaluated(evaluation: Evaluation, space: LabelSpace) -> Quality:
    """The same of an evaluation of other frames."""
    values = {name: _percent(value) for name, value in zip(space.classes, evaluation.iou, strict=True)}
    return Quality(
        frames=len(evaluation.names),
        miou=_rounded(finite(evaluation.miou)),
        pixel_accuracy=_rounded(finite(evaluation.pixel_accuracy)),
        iou=values,
    )


def series_figures(tally: Tally, space: LabelSpace) -> list[SeriesFigures]:
    """Every series over the whole drive."""
    labelled = sum(tally.labelled.values())
    return [
        SeriesFigures(
            name=name,
            versions=series.versions,
            frames=labelled,
            confidence=_rounded(series.confidence.mean()),
            uncertainty=_rounded(series.uncertainty.mean()),
            **_agreement(series, space),
        )
        for name, series in tally.series.items()
    ]


def stretch_figures(tally: Tally, stretch_s: float) -> list[StretchFigures]:
    """The drive in stretches; those without a frame are left out."""
    return [
        StretchFigures(
            start_s=number * stretch_s,
            frames=tally.frames[number],
            labelled=tally.labelled.get(number, 0),
            miou={name: _stretch_miou(series, number) for name, series in tally.series.items()},
        )
        for number in sorted(tally.frames)
    ]


def comparisons(tally: Tally, space: LabelSpace, settings: ReplaySettings) -> list[ComparisonFigures]:
    """Every pair of series."""
    found = []
    for (first, a), (second, b) in combinations(tally.series.items(), 2):
        result = compare((first, second), (a, b), space.classes, samples=settings.bootstrap_samples, seed=settings.seed)
        if result is not None:
            found.append(comparison_figures(result))
    return found


def comparison_figures(result: Comparison) -> ComparisonFigures:
    """A comparison as figures."""
    low, high = result.difference.interval(PROBABILITY)
    won = {result.first: 0, result.second: 0, "neither": 0}
    for _, first, second in result.stretches:
        change = second - first
        won[result.second if change > TIE else result.first if change < -TIE else "neither"] += 1
    return ComparisonFigures(
        first=result.first,
        second=result.second,
        gain=round(result.difference.gain, DIGITS),
        interval=(round(low, DIGITS), round(high, DIGITS)) if np.isfinite([low, high]).all() else None,
        probability=round(result.difference.probability_above(0.0), DIGITS),
        winner=result.winner,
        words=result.words(),
        stretches=result.difference.stretches,
        stretches_won=won,
        classes=[
            ClassFigures(
                name=one.name,
                first=_rounded(one.first),
                second=_rounded(one.second),
                probability=_rounded(one.probability),
            )
            for one in result.classes
        ],
    )


def timing(done: Pass) -> Timing:
    """What depends on the machine."""
    return Timing(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        seconds=round(done.seconds, 3),
        read_seconds=round(done.read_seconds, 3),
        read_share=round(done.read_seconds / done.seconds, 4) if done.seconds else 0.0,
        frames_per_second=round(done.frames / done.seconds, 2) if done.seconds else 0.0,
        latency_ms={name: _latency(series.latency.values) for name, series in done.tally.series.items()},
    )


def _latency(values: Sequence[float]) -> dict[str, float]:
    p50, p99, longest = np.percentile(values, (50, 99, 100)) if values else (0.0, 0.0, 0.0)
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "longest": round(float(longest), 3)}


def _agreement(series: Series, space: LabelSpace) -> dict[str, Any]:
    values = {name: _percent(value) for name, value in zip(space.classes, series.iou, strict=True)}
    return {"miou": _rounded(series.mean_iou()), "pixel_accuracy": _rounded(series.accuracy()), "iou": values}


def _stretch_miou(series: Series, number: int) -> float | None:
    matrix = series.stretches.get(number)
    return None if matrix is None else _rounded(finite(miou(matrix)))


def _percent(value: float) -> float | None:
    return _rounded(finite(100 * float(value)))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), DIGITS)
