"""The page of a replay: its figures and pictures in the shape of the drive report that the demo writes as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ssada_core.evaluation.report import (
    ComparisonShown,
    Curve,
    DamageShown,
    DriveReport,
    GateShown,
    Mark,
    ModelShown,
    PairShown,
    QueryShown,
    Span,
    StretchShown,
    Tile,
    Timeline,
    write_report,
)
from ssada_core.labels import LabelSpace
from ssada_core.replay.figures import AdaptationFigures, ComparisonFigures, Quality, ReplayReport, StretchFigures
from ssada_core.replay.moments import Moment
from ssada_core.replay.results import stretch_figures
from ssada_core.replay.session import Pass

LEFT_BARE = "frame"


def write_page(
    path: Path,
    report: ReplayReport,
    done: Pass,
    space: LabelSpace,
    *,
    queries: Sequence[QueryShown] = (),
    pairs: Sequence[PairShown] = (),
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        report: the figures.
        done: the pass, for curves and pictures.
        space: names and colours.
        queries: the frames that were asked for.
        pairs: unseen frames before and after, which come before the drive's own moments.

    Raises:
        StoreError: if the file cannot be written.
    """
    write_report(path, drive_report(report, done, space, queries=queries, pairs=pairs))


def drive_report(
    report: ReplayReport,
    done: Pass,
    space: LabelSpace,
    *,
    queries: Sequence[QueryShown] = (),
    pairs: Sequence[PairShown] = (),
) -> DriveReport:
    """What the page shows; see :func:`write_page`."""
    unseen = report.adaptation.unseen if report.adaptation is not None else None
    stretches = report.stretches if unseen is None else stretch_figures(done.after, report.stretch_s)
    return DriveReport(
        title=_title(report),
        subtitle=_subtitle(report),
        label_space=space,
        tiles=_tiles(report),
        before=_shown(unseen.names[0], unseen.before, space) if unseen else None,
        after=_shown(unseen.names[1], unseen.after, space) if unseen else None,
        compared=[] if unseen else _compared(report, space),
        comparisons=[_comparison(one, stretches) for one in _comparisons(report)],
        damage=[DamageShown(one.kind, one.count, one.example) for one in report.damage],
        timeline=_timeline(report, done),
        queries=queries,
        pairs=[*pairs, *_moments(report, done)],
        gates=_gates(report.adaptation),
        settings=report.settings,
        system={**report.system, **_speed(report)},
        versions=report.versions,
        command=report.command,
        notes=_notes(report),
    )


def _title(report: ReplayReport) -> str:
    if report.adaptation is not None:
        return "What it would have learned on this drive" if report.adaptation.swaps else "A drive, with adaptation"
    names = [series.name for series in report.series]
    return f"{' and '.join(names)} on one drive" if len(names) > 1 else "What it would have seen on this drive"


def _subtitle(report: ReplayReport) -> str:
    recording = report.recording
    cameras = ", ".join(f"{name} ({count} frames)" for name, count in recording.cameras.items())
    how = f"over ROS at ×{report.ros.speed:g}" if report.ros is not None else "read directly"
    return f"{recording.path}: {cameras}, {recording.duration_s:.1f} s, {how}"


def _tiles(report: ReplayReport) -> list[Tile]:
    recording = report.recording
    tiles = [Tile("frames", str(recording.frames), f"{recording.labelled} with ground truth")]
    if report.adaptation is not None:
        tiles += _adaptation_tiles(report.adaptation)
    for series in report.series:
        value = "–" if series.miou is None else f"{series.miou:.1f} %"
        tiles.append(Tile("mIoU over the drive", value, series.name))
    if report.ros is not None:
        share = f"of {report.ros.published} published, {report.ros.reliability.replace('_', ' ')}"
        tiles.append(Tile("dropped", str(report.ros.dropped), share))
        gap = report.timing.longest_gap_s
        tiles.append(Tile("longest gap between masks", "–" if gap is None else f"{gap:.2f} s"))
        if report.timing.swap_gaps_s:
            gaps = ", ".join(f"{gap:.2f} s" for gap in report.timing.swap_gaps_s)
            tiles.append(Tile("without a mask at a swap", gaps, "from the old model's last to the new one's first"))
    last = report.series[-1]
    if last.confidence is not None:
        note = "" if last.uncertainty is None else f"uncertainty {100 * last.uncertainty:.1f} %"
        tiles.append(Tile("mean confidence", f"{100 * last.confidence:.1f} %", note))
    latency = report.timing.latency_ms[last.name]
    what = "camera to subscriber" if report.mode == "ros" else "inference"
    tiles.append(Tile("latency", f"{latency['p50']:.0f} ms", f"p99 {latency['p99']:.0f} ms, {what}"))
    broken = sum(one.count for one in report.damage)
    tiles.append(Tile("broken", str(broken), "cases, listed below" if broken else "nothing in the recording"))
    return tiles


def _adaptation_tiles(adaptation: AdaptationFigures) -> list[Tile]:
    asked = len(adaptation.queries)
    labels = Tile("labels", f"{adaptation.labels} of {asked} asked", f"{adaptation.audit_labels} of them only judge")
    swaps = ", ".join(f"{swap.version} at {swap.time_s:.0f} s" for swap in adaptation.swaps)
    return [labels, Tile("swaps", str(len(adaptation.swaps)), swaps)]


def _shown(name: str, quality: Quality, space: LabelSpace) -> ModelShown:
    values = [math.nan if value is None else value for value in (quality.iou[name] for name in space.classes)]
    return ModelShown(name, math.nan if quality.miou is None else quality.miou, values, quality.frames)


def _compared(report: ReplayReport, space: LabelSpace) -> list[ModelShown]:
    return [_shown(series.name, series, space) for series in report.series if series.frames]


def _comparisons(report: ReplayReport) -> list[ComparisonFigures]:
    adaptation = report.adaptation
    if adaptation is not None and not adaptation.swaps:
        return []  # one model all the way: there is nothing to compare
    if adaptation is not None and adaptation.unseen is not None:
        return [adaptation.unseen.comparison] if adaptation.unseen.comparison is not None else []
    return report.comparisons


def _comparison(figures: ComparisonFigures, stretches: Sequence[StretchFigures]) -> ComparisonShown:
    """Along the ``stretches`` of what was compared: of the whole drive, or of its unseen part alone."""
    shown = []
    for stretch in stretches:
        values = stretch.miou.get(figures.first), stretch.miou.get(figures.second)
        if values[0] is not None and values[1] is not None:
            shown.append(StretchShown(stretch.start_s, values[0], values[1]))
    chances = {one.name: one.probability for one in figures.classes if one.probability is not None}
    return ComparisonShown(figures.first, figures.second, figures.winner, figures.words, chances, shown)


def _timeline(report: ReplayReport, done: Pass) -> Timeline:
    curves = []
    many = len(done.tally.series) > 1
    half = report.stretch_s / 2
    for name, series in done.tally.series.items():
        shown = name if many else ""
        points = [(one.start_s + half, one.miou[name]) for one in report.stretches]
        curves.append(Curve("miou", shown, [(second, value) for second, value in points if value is not None]))
        for row, curve in (("confidence", series.confidence), ("uncertainty", series.uncertainty)):
            curves.append(Curve(row, shown, [(second, 100 * value) for second, value in curve.points()]))
        curves.append(Curve("latency", shown, series.latency.points()))
    adaptation = report.adaptation
    return Timeline(
        curves=curves,
        spans=_spans(report, done.end_s),
        marks=_marks(adaptation, done.end_s) if adaptation is not None else [],
    )


def _spans(report: ReplayReport, end: float) -> list[Span]:
    adaptation, begin = report.adaptation, end - report.recording.duration_s
    if adaptation is None:
        return []
    spans = [Span(one.started_s, min(one.ended_s, end), "training", "training") for one in adaptation.rounds]
    if adaptation.until_s is not None and adaptation.until_s < end:
        spans += [Span(begin, adaptation.until_s, "adapts"), Span(adaptation.until_s, end, "unseen")]
    return [span for span in spans if span.end_s > span.start_s]


def _marks(adaptation: AdaptationFigures, end_s: float) -> list[Mark]:
    """Queries and swaps of the drive; what came after its end is said in words."""
    asked = dict.fromkeys(query.asked_s for query in adaptation.queries)
    marks = [Mark(second, "query") for second in asked]
    marks += [Mark(swap.time_s, "swap", swap.version) for swap in adaptation.swaps]
    return [mark for mark in marks if mark.time_s <= end_s]


def _moments(report: ReplayReport, done: Pass) -> list[PairShown]:
    best, worst = done.moments.best(), done.moments.worst()
    first_ns = report.recording.first_stamp_ns
    names = tuple(series.name for series in report.series)
    groups = (("Best moments", best), ("Worst moments", worst))
    return [_moment(moment, group, names, first_ns) for group, moments in groups for moment in moments]


def _moment(moment: Moment, group: str, names: tuple[str, ...], first_ns: int) -> PairShown:
    frame, answers = moment.served.frame, moment.served.answers
    name = f"{frame.camera} at {(frame.stamp_ns - first_ns) / 1e9:.1f} s"
    values = [f"{value:.1f} %" for value in (moment.values[0], moment.values[-1]) if value is not None]
    sure = answers[-1].uncertainty
    unsure = "" if sure is None else f"uncertainty {100 * sure:.1f} %"
    if len(answers) > 1:
        note = f"mIoU of the frame {' → '.join(values)}" if values else unsure
        return PairShown(name, frame.image, answers[0].label, answers[-1].label, note, group, (names[0], names[-1]))
    note = f"mIoU of the frame {values[-1]}" if values else unsure
    if frame.label is not None:
        sides = ("ground truth", "prediction")
        return PairShown(name, frame.image, frame.label, answers[0].label, note, group, sides)
    return PairShown(name, frame.image, None, answers[0].label, note, group, (LEFT_BARE, "prediction"))


def _gates(adaptation: AdaptationFigures | None) -> list[GateShown]:
    rounds = adaptation.rounds if adaptation is not None else []
    return [
        GateShown.of(one.version, {"verdict": one.verdict, "words": one.words, "checks": one.checks}) for one in rounds
    ]


def _notes(report: ReplayReport) -> list[str]:
    notes = []
    adaptation = report.adaptation
    if not report.recording.labelled:
        notes.append("The recording has no ground truth: no mIoU, only what the model says of itself.")
    if adaptation is not None:
        who = f"Queries answered by: {adaptation.answers}; a human takes longer than the ground truth."
        notes.append(f"{_pace(adaptation, report)} {who}")
        if adaptation.unseen is not None:
            notes.append(f"Before and after: {adaptation.unseen.what}.")
        if adaptation.unfinished:
            notes.append(adaptation.unfinished)
    if report.mode == "direct":
        notes.append("Every frame was answered, one after another: nothing can be dropped in a direct replay.")
    return notes


def _pace(adaptation: AdaptationFigures, report: ReplayReport) -> str:
    if adaptation.round_seconds is not None:
        took = f"{adaptation.round_seconds:g} s of the drive"
        return f"Adaptation in recorded time, seed {adaptation.seed}: a round takes {took}, whatever it took here."
    rounds = ", ".join(f"{seconds:.0f} s" for seconds in report.timing.round_seconds) or "none was ended"
    return (
        f"Adaptation by the real nodes while the drive was played, seed {adaptation.seed}: a round took what it takes "
        f"beside the masks on this machine ({rounds}). The masks were compared with the first model's afterwards."
    )


def _speed(report: ReplayReport) -> dict[str, object]:
    timing = report.timing
    return {
        "replay": f"{timing.seconds:.1f} s, {timing.frames_per_second:.1f} frames/s",
        "waiting for reading and decoding": f"{100 * timing.read_share:.1f} % of that",
        "models": ", ".join(
            f"{model.version}: {model.backend} {model.precision}, {model.input_width}x{model.input_height}"
            for model in report.models
        ),
    }
