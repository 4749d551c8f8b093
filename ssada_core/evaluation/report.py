"""One page that tells a drive: what was asked, learned, judged and swapped, with pictures and figures.

The page is a single HTML file that needs nothing else: no network, no fonts, no scripts from elsewhere.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from ssada_core.data.compressed import encode_jpeg
from ssada_core.data.samples import Array
from ssada_core.evaluation.overlay import overlay
from ssada_core.evaluation.report_data import (
    CheckShown,
    ComparisonShown,
    DamageShown,
    DriveReport,
    GateShown,
    ModelShown,
    PairShown,
    QueryShown,
    StretchShown,
    Tile,
)
from ssada_core.evaluation.report_figures import Curve, Mark, Span, Timeline, timeline_svg
from ssada_core.store.files import write_atomic

__all__ = [
    "CheckShown",
    "ComparisonShown",
    "Curve",
    "DamageShown",
    "DriveReport",
    "GateShown",
    "Mark",
    "ModelShown",
    "PairShown",
    "QueryShown",
    "Span",
    "StretchShown",
    "Tile",
    "Timeline",
    "write_report",
]

OPACITY = 0.55
SERIES = ("var(--before)", "var(--after)", "#c98500", "#d55181", "#199e70")
"""Colours of compared models, as in the timeline."""
_VERDICTS = {
    "promote": "promoted",
    "refuse": "refused",
    "undecided": "undecided",
    "wait_for_human": "waits for a human",
}


def write_report(path: Path, report: DriveReport, *, picture_width: int = 640) -> None:
    """Write the page, atomically.

    Args:
        path: the HTML file.
        report: what to show.
        picture_width: pictures are shrunk to this many pixels; the page's size grows with its square.

    Raises:
        DataError: if a label does not fit its picture.
        StoreError: if the file cannot be written.
    """
    write_atomic(path, render_report(report, picture_width=picture_width).encode())


def render_report(report: DriveReport, *, picture_width: int = 640) -> str:
    """The page's text; see :func:`write_report`."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"percent": _percent, "points": _points, "verdict": _verdict}
    source = files("ssada_core.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    palette = report.label_space.palette_bgr()
    return environment.from_string(source).render(
        report=report,
        tiles=_tiles(report),
        columns=_columns(report),
        classes=_class_rows(report),
        comparisons=[_comparison(comparison) for comparison in report.comparisons],
        legend=list(zip(report.label_space.classes, map(_hex, report.label_space.colors), strict=True)),
        figures=_figures(report.timeline),
        queries=[_query(query, palette, picture_width) for query in report.queries],
        groups=_groups(report, palette, picture_width),
        tables=[
            ("Settings", flatten(report.settings)),
            ("System", flatten(report.system)),
            ("Versions", flatten(report.versions)),
        ],
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows: dotted key and value as text."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flatten(value, f"{name}.")
        else:
            rows.append((name, value if isinstance(value, str) else json.dumps(value, default=str)))
    return rows


def _tiles(report: DriveReport) -> list[Tile]:
    tiles: list[Tile] = []
    before, after = report.before, report.after
    shown = after or before
    if before and after:
        note = f"{_points(after.miou - before.miou)} points on {after.frames} frames"
        tiles.append(Tile("mIoU before → after", f"{_percent(before.miou)} → {_percent(after.miou)} %", note))
    elif shown:
        tiles.append(Tile("mIoU", f"{_percent(shown.miou)} %", f"{shown.version}, {shown.frames} frames"))
    if report.gates:
        tiles.append(Tile("gate", _verdict(report.gates[-1].verdict), report.gates[-1].version))
    return [*tiles, *report.tiles]


def _columns(report: DriveReport) -> list[dict[str, Any]]:
    """The models of the table of classes, each with its name and its colour."""
    if report.compared:
        return [
            {"name": model.version, "words": model.version, "color": SERIES[index % len(SERIES)], "model": model}
            for index, model in enumerate(report.compared)
        ]
    pair = (("before", report.before, "var(--before)"), ("after", report.after, "var(--after)"))
    return [
        {"name": name, "words": f"{name}: {model.version}", "color": color, "model": model}
        for name, model, color in pair
        if model is not None
    ]


def _class_rows(report: DriveReport) -> list[dict[str, Any]]:
    """One row per class that somebody has a value for."""
    models = [column["model"] for column in _columns(report)]
    chances = report.comparisons[0].chances if len(report.comparisons) == 1 else {}
    rows = []
    for index, name in enumerate(report.label_space.classes):
        values = [float(model.iou[index]) for model in models]
        if any(math.isfinite(value) for value in values):
            rows.append(
                {
                    "name": name,
                    "color": _hex(report.label_space.colors[index]),
                    "safety": name in report.label_space.safety,
                    "values": values,
                    "change": values[1] - values[0] if len(values) == 2 else math.nan,
                    "chance": chances.get(name),
                }
            )
    return rows


def _comparison(shown: ComparisonShown) -> dict[str, Any]:
    """A comparison with a colour for the better one in every stretch."""
    cells = []
    for stretch in shown.stretches:
        change = stretch.second - stretch.first
        better = "second" if change > 0.05 else "first" if change < -0.05 else "neither"
        strength = min(1.0, 0.25 + abs(change) / 20)
        words = f"{stretch.start_s:.0f} s: {_percent(stretch.first)} and {_percent(stretch.second)} %"
        cells.append({"better": better, "strength": f"{strength:.2f}", "words": words})
    won = {name: sum(cell["better"] == name for cell in cells) for name in ("first", "second", "neither")}
    return {"shown": shown, "cells": cells, "won": won}


def _groups(report: DriveReport, palette: Array, width: int) -> list[tuple[str, list[dict[str, Any]]]]:
    names = dict.fromkeys(pair.group for pair in report.pairs)
    return [(name, [_pair(pair, palette, width) for pair in report.pairs if pair.group == name]) for name in names]


def _figures(timeline: Timeline) -> list[tuple[str, Markup]]:
    if not timeline:
        return []
    # Two drawings, of which the page shows the one that fits, so that letters are never shrunk.
    wide, narrow = (timeline_svg(timeline, width_in=width, name=name) for name, width in (("w", 10.0), ("n", 3.7)))
    return [("wide", Markup(wide)), ("narrow", Markup(narrow))]  # noqa: S704  (drawn here; matplotlib escapes text)


def _query(query: QueryShown, palette: Array, width: int) -> dict[str, Any]:
    labelled = query.label is not None
    shown = query.image
    if query.label is not None:
        shown = overlay(query.image, query.label, palette, opacity=OPACITY, keep_unlabelled=True)
    return {
        "name": query.name,
        "image": _picture(shown, width),
        "labelled": labelled,
        "audit": query.audit,
        "note": query.note,
    }


def _pair(pair: PairShown, palette: Array, width: int) -> dict[str, Any]:
    before, after = (
        pair.image if label is None else overlay(pair.image, label, palette, opacity=OPACITY)
        for label in (pair.before, pair.after)
    )
    return {
        "name": pair.name,
        "note": pair.note,
        "sides": pair.sides,
        "frame": _picture(pair.image, width) if pair.before is not None else "",
        "before": _picture(before, width),
        "after": _picture(after, width),
    }


def _picture(image: Array, width: int) -> str:
    """A data URI, at most ``width`` pixels wide."""
    if image.shape[1] > width:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, 85)).decode()


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _percent(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "–"


def _points(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−") if math.isfinite(value) else "–"


def _verdict(verdict: str) -> str:
    return _VERDICTS.get(verdict, verdict)
