"""The report's figures as inline SVG that follows the page's colours (matplotlib Agg, no display)."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

POINTS_PER_INCH = 40
"""Points a curve is drawn with; of more, each bin's median and range are shown."""

_INK = "#010203"  # replaced by currentColor, so that text and axes follow the page's theme
_LATENCY, _QUALITY = "#3987e5", "#199e70"
_SERIES = ("#a9a79f", "#1f6fd0", "#c98500", "#d55181", "#199e70")
"""Series of curves; the first ones are the page's colours of before and after."""
_PHASES = ("#8f8d86", "#5b6fd6", "#c98500", "#199e70", "#d55181")
_MARKS = {"query": "#c98500", "label": "#8a8985", "swap": "#199e70", "rollback": "#e34948"}


@dataclass(frozen=True)
class Span:
    """A stretch of the timeline, in seconds: ``kind`` is ``phase`` (day, night, …) or ``training``."""

    start_s: float
    end_s: float
    name: str
    kind: str = "phase"


@dataclass(frozen=True)
class Mark:
    """A moment of the timeline; ``kind`` is ``query``, ``label``, ``swap`` or ``rollback``."""

    time_s: float
    kind: str
    text: str = ""


@dataclass(frozen=True)
class Curve:
    """A curve of the timeline: its row (a key of :data:`ROWS`), its name, and (seconds, value) points."""

    row: str
    name: str
    points: Sequence[tuple[float, float]]


ROWS = {
    "miou": "live mIoU, %",
    "confidence": "confidence, %",
    "uncertainty": "uncertainty, %",
    "latency": "latency, ms",
}
"""Rows of the timeline from above, with the titles of their axes."""


@dataclass(frozen=True)
class Timeline:
    """What happened when, in seconds from the drive's start. Every part may be empty.

    Attributes:
        latency: (seconds, milliseconds) per frame.
        miou: (seconds, percent) of the live mIoU, where ground truth is known.
        curves: further ones, also several in a row.
        spans: phases and trainings.
        marks: queries, labels, swaps, rollbacks.
    """

    latency: Sequence[tuple[float, float]] = ()
    miou: Sequence[tuple[float, float]] = ()
    curves: Sequence[Curve] = ()
    spans: Sequence[Span] = ()
    marks: Sequence[Mark] = ()

    def __bool__(self) -> bool:
        return bool(self.latency or self.miou or self.curves or self.spans or self.marks)

    def row(self, name: str) -> list[Curve]:
        """The curves of a row that have points."""
        own = [Curve(name, "", getattr(self, name))] if name in {"latency", "miou"} else []
        return [curve for curve in (*own, *self.curves) if curve.row == name and curve.points]

    def names(self) -> list[str]:
        """Names of the curves that have one, in the order of their first."""
        return list(dict.fromkeys(curve.name for curve in self.curves if curve.name and curve.points))


def timeline_svg(timeline: Timeline, *, width_in: float, name: str) -> str:
    """Draw the timeline ``width_in`` inches wide: rows of curves below each other, on one time axis.

    Args:
        timeline: what to draw.
        width_in: 10 for a desk, 4 for a telephone; letters keep their size.
        name: unique within the page, for the ids inside the SVG.
    """
    rows = [row for row in ROWS if timeline.row(row)] or ["marks"]
    with mpl.rc_context(_style(name)):
        figure = Figure(figsize=(width_in, 0.75 + 1.75 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
        for row, axis in zip(rows, axes, strict=True):
            _draw_spans(axis, timeline, named=axis is axes[0])
            _draw_marks(axis, timeline)
            _draw_row(axis, timeline, row, most=round(width_in * POINTS_PER_INCH))
        axes[-1].set_xlabel("seconds of the drive")
        _draw_key(figure, timeline, most=6 if width_in > 5 else 2)
        return _inline(figure, name)


def _draw_row(axis: Any, timeline: Timeline, row: str, *, most: int) -> None:  # noqa: ANN401  (matplotlib has no types here)
    if row == "marks":
        axis.set_yticks([])
        return
    highest = 0.0
    names = timeline.names()
    for curve in timeline.row(row):
        points: NDArray[np.float64] = np.asarray(curve.points, np.float64)
        single = _LATENCY if row == "latency" else _QUALITY
        color = _SERIES[names.index(curve.name) % len(_SERIES)] if curve.name else single
        times, low, middle, high = thin(points, most)
        if len(points) > most:
            axis.fill_between(times, low, high, color=color, alpha=0.25, linewidth=0)
        axis.plot(times, middle, color=color, linewidth=1.6, marker="o" if len(points) < 20 else "", markersize=4)
        highest = max(highest, float(np.nanmax(high)))
    axis.set_ylabel(ROWS[row])
    axis.set_ylim(bottom=0, top=None if row == "latency" else min(100.0, max(10.0, highest * 1.15)))
    axis.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.6)


def thin(points: NDArray[np.float64], most: int) -> tuple[NDArray[np.float64], ...]:
    """Reduce a curve ``[N, 2]`` to at most ``most`` bins: their middle times, minima, medians and maxima."""
    ordered = points[np.argsort(points[:, 0], kind="stable")]
    bins = np.array_split(ordered, min(len(ordered), most))
    rows = [(part[:, 0].mean(), part[:, 1].min(), np.median(part[:, 1]), part[:, 1].max()) for part in bins]
    return tuple(np.asarray(rows, np.float64).T)


def _draw_spans(axis: Any, timeline: Timeline, *, named: bool) -> None:  # noqa: ANN401
    names = list(dict.fromkeys(span.name for span in timeline.spans if span.kind == "phase"))
    for span in timeline.spans:
        if span.kind == "training":
            axis.axvspan(span.start_s, span.end_s, ymax=0.04, color=_MARKS["query"], alpha=0.9, linewidth=0)
            continue
        color = _PHASES[names.index(span.name) % len(_PHASES)]
        axis.axvspan(span.start_s, span.end_s, color=color, alpha=0.10, linewidth=0)
        if named:
            axis.annotate(
                span.name, ((span.start_s + span.end_s) / 2, 1.0), xycoords=("data", "axes fraction"),
                xytext=(0, 3), textcoords="offset points", ha="center", va="bottom",
            )  # fmt: skip


def _draw_marks(axis: Any, timeline: Timeline) -> None:  # noqa: ANN401
    for mark in timeline.marks:
        color = _MARKS.get(mark.kind, _INK)
        big = mark.kind in {"swap", "rollback"}
        axis.axvline(mark.time_s, color=color, linewidth=1.6 if big else 0.8, linestyle="-" if big else (0, (2, 2)))


def _draw_key(figure: Any, timeline: Timeline, *, most: int) -> None:  # noqa: ANN401
    kinds = list(dict.fromkeys(mark.kind for mark in timeline.marks))
    handles: list[Any] = [
        Line2D([], [], color=_SERIES[number % len(_SERIES)], linewidth=1.6, label=name)
        for number, name in enumerate(timeline.names())
    ]
    handles += [
        Line2D([], [], color=_MARKS.get(kind, _INK), linewidth=1.6, label=kind,
               linestyle="-" if kind in {"swap", "rollback"} else (0, (2, 2)))
        for kind in kinds
    ]  # fmt: skip
    if any(span.kind == "training" for span in timeline.spans):
        handles.append(Patch(color=_MARKS["query"], label="training"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), most), frameon=False)


def _style(name: str) -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "text.parse_math": False,  # names are text, also between dollar signs
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.xmargin": 0.01,
    }


def _inline(figure: Any, name: str) -> str:  # noqa: ANN401
    """The SVG element alone: no prolog, no metadata, no namespaces (HTML knows them), unique ids."""
    figure.patch.set_alpha(0.0)
    for axis in figure.axes:
        axis.patch.set_alpha(0.0)
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace(_INK, "currentColor")
