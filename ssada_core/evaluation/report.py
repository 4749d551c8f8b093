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
    DriveReport,
    GateShown,
    ModelShown,
    PairShown,
    QueryShown,
    Tile,
)
from ssada_core.evaluation.report_figures import Mark, Span, Timeline, timeline_svg
from ssada_core.store.files import write_atomic

__all__ = [
    "CheckShown",
    "DriveReport",
    "GateShown",
    "Mark",
    "ModelShown",
    "PairShown",
    "QueryShown",
    "Span",
    "Tile",
    "Timeline",
    "write_report",
]

OPACITY = 0.55
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
        classes=_class_rows(report),
        legend=list(zip(report.label_space.classes, map(_hex, report.label_space.colors), strict=True)),
        figures=_figures(report.timeline),
        queries=[_query(query, palette, picture_width) for query in report.queries],
        pairs=[_pair(pair, palette, picture_width) for pair in report.pairs],
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


def _class_rows(report: DriveReport) -> list[dict[str, Any]]:
    """One row per class that somebody has a value for."""
    rows = []
    for index, name in enumerate(report.label_space.classes):
        values = [_value(model, index) for model in (report.before, report.after)]
        known = [value for value in values if math.isfinite(value)]
        if known:
            rows.append(
                {
                    "name": name,
                    "color": _hex(report.label_space.colors[index]),
                    "safety": name in report.label_space.safety,
                    "before": values[0],
                    "after": values[1],
                    "change": values[1] - values[0],
                }
            )
    return rows


def _value(model: ModelShown | None, index: int) -> float:
    return float(model.iou[index]) if model is not None else math.nan


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
    before, after = (overlay(pair.image, label, palette, opacity=OPACITY) for label in (pair.before, pair.after))
    return {
        "name": pair.name,
        "note": pair.note,
        "frame": _picture(pair.image, width),
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
