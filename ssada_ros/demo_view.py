"""The demo's live view in the terminal (rich), or plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from ssada_ros.demo_drive import DriveLog
from ssada_ros.demo_monitor import DemoMonitor, DriveRecord

LINE_EVERY_S = 10.0
RECENT = 50
"""Masks over which rate, latency and live mIoU are shown."""

View = Callable[[DriveLog], None]


class LiveView:
    """A panel that is drawn anew several times a second. A context manager."""

    def __init__(self, monitor: DemoMonitor, console: Console) -> None:
        self._monitor = monitor
        self._live = Live(console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> View:
        self._live.start()
        return self._draw

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _draw(self, log: DriveLog) -> None:
        record = self._monitor.record()
        self._live.update(panel(record, log))


class LineView:
    """One line every few seconds: logs, CI, ``--no-view``."""

    def __init__(self, monitor: DemoMonitor, console: Console) -> None:
        self._monitor = monitor
        self._console = console
        self._phase = ""
        self._next_s = 0.0

    def __enter__(self) -> View:
        return self._say

    def __exit__(self, *_: object) -> None:
        return None

    def _say(self, log: DriveLog) -> None:
        if log.phase == self._phase and time.monotonic() < self._next_s:
            return
        self._phase, self._next_s = log.phase, time.monotonic() + LINE_EVERY_S
        values = rows(self._monitor.record(), log)
        self._console.print(" · ".join(f"{name} {value}" for name, value in values.items() if value), soft_wrap=True)


def rows(record: DriveRecord, log: DriveLog) -> dict[str, str]:
    """What is shown: name → text."""
    recent = record.masks[-RECENT:]
    status = record.status
    return {
        "phase": log.phase,
        "masks": f"{len(record.masks)} of {len(record.published_ns)}",
        "rate": f"{_rate(record):.1f} Hz" if len(recent) > 1 else "",
        "latency": f"{np.median([mask.latency_ms for mask in recent]):.0f} ms" if recent else "",
        "model": record.versions[-1][0] if record.versions else "",
        "live mIoU": " → ".join(f"{value:.1f} ({name})" for name, value in record.live_miou(RECENT).items()),
        "pool": _pool(status),
        "training": _training(status.get("training", {})),
        "gate": str(status.get("decision", {}).get("verdict", "")),
    }


def panel(record: DriveRecord, log: DriveLog) -> Panel:
    """The live view's panel."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold cyan")
    table.add_column()
    for name, value in rows(record, log).items():
        table.add_row(name, value)
    training = record.status.get("training", {})
    total, done = int(training.get("iterations") or 0), int(training.get("iteration") or 0)
    parts: list[Any] = [table]
    if 0 < done < total:
        parts.append(ProgressBar(total=total, completed=done, width=50))
    return Panel(Group(*parts), title="ssada demo", border_style="cyan", width=76)


def _rate(record: DriveRecord) -> float:
    times = [mask.received_ns for mask in record.masks[-RECENT:]]
    return (len(times) - 1) * 1e9 / max(times[-1] - times[0], 1)


def _pool(status: dict[str, Any]) -> str:
    if not status:
        return ""
    counts = status["pool"]
    words = f"{counts['buffered']} frames, {status['asked']} of {status['budget']} asked, {status['labels']} labelled"
    return f"{words} (paused)" if status["paused"] else words


def _training(figures: dict[str, Any]) -> str:
    if not figures:
        return ""
    eta = figures.get("eta_seconds")
    ahead = f", {eta:.0f} s to go" if eta else ""
    return f"{figures.get('iteration', 0)}/{figures.get('iterations', 0)}{ahead}"
