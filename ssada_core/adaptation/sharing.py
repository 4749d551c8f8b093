"""When a training round waits because the masks need the machine: a rule, and the file by which it is told.

The node that hears of the masks' latency decides; the worker looks at the file between two of its steps. Without
news the file goes stale and the worker goes on, so that nobody waits for a node that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ssada_core.settings import Settings
from ssada_core.store.files import store_error, write_atomic

PAUSE_FILE = "pause"
"""In the folder of the rounds: why training waits, as one line of text."""
STALE_S = 10.0
"""Older than this, the file says nothing; whoever wants a pause writes it every second."""
LOOK_S = 0.2
THERMAL_ROOT = Path("/sys/class/thermal")
_THROTTLING_TRIPS = frozenset({"passive", "hot", "critical"})
"""Kinds of trip points from which on Linux slows a board down, or worse."""


class SharingSettings(Settings):
    """When training waits for the masks."""

    max_latency_ms: float = Field(
        0.0,
        ge=0.0,
        le=60_000.0,
        description="Training waits while a camera's p99 from frame to mask is above this, milliseconds; 0: no bound.",
    )
    resume_share: float = Field(
        0.85, gt=0.0, le=1.0, description="It goes on below this share of the bound, so that it does not flutter."
    )
    least_pause_s: float = Field(5.0, ge=0.0, le=3600.0, description="Shortest pause, seconds.")
    thermal: bool = Field(True, description="Training also waits while Linux slows the board down because it is hot.")


@dataclass(frozen=True)
class Seen:
    """What is known of the machine.

    Attributes:
        p99_ms: largest p99 latency of the cameras over the last seconds; 0 without news.
        hot: what is too hot, in words; empty if nothing is.
    """

    p99_ms: float = 0.0
    hot: str = ""


class PauseRule:
    """Pauses at once, resumes late: latency over the bound or heat, until both have been better for a while."""

    def __init__(self, settings: SharingSettings) -> None:
        self._settings = settings
        self._since_s = 0.0
        self.reason = ""
        """Why training waits; empty while it may go on."""

    def update(self, seen: Seen, now_s: float) -> str:
        """Look again; returns :attr:`reason`.

        Args:
            seen: the newest figures.
            now_s: seconds on a clock that does not go back.
        """
        bound = self._settings.max_latency_ms
        over = 0 < bound < seen.p99_ms
        if over or (seen.hot and self._settings.thermal):
            if not self.reason:
                self._since_s = now_s
            self.reason = (
                f"masks take {seen.p99_ms:.0f} ms (p99), the bound is {bound:.0f}" if over else f"too hot: {seen.hot}"
            )
        elif self.reason and self._calm(seen, now_s):
            self.reason = ""
        return self.reason

    def _calm(self, seen: Seen, now_s: float) -> bool:
        bound = self._settings.max_latency_ms
        long_enough = now_s - self._since_s >= self._settings.least_pause_s
        return long_enough and (bound == 0 or seen.p99_ms <= bound * self._settings.resume_share)


def tell(folder: Path, reason: str) -> None:
    """Have the worker of the rounds in ``folder`` wait, or, without a reason, go on.

    Raises:
        StoreError: if the disk refuses.
    """
    if reason:
        write_atomic(folder / PAUSE_FILE, f"{reason}\n".encode())
        return
    path = folder / PAUSE_FILE
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise store_error("delete", path, error) from error


def told(folder: Path) -> str:
    """Why training is to wait; empty if it is not, or the word is too old."""
    path = folder / PAUSE_FILE
    try:
        fresh = time.time() - path.stat().st_mtime < STALE_S
        return path.read_text(encoding="utf-8").strip() if fresh else ""
    except OSError:
        return ""


class Patience:
    """Asked between two steps whether to stop; while training is to wait, it does not answer."""

    def __init__(self, folder: Path, should_stop: Callable[[], bool], beat: Callable[[], None]) -> None:
        """Prepare.

        Args:
            folder: of the rounds, in which the file may appear.
            should_stop: the question itself.
            beat: called while waiting, so that nobody takes it for hung.
        """
        self._folder = folder
        self._should_stop = should_stop
        self._beat = beat

    def __call__(self) -> bool:
        """Whether training should end."""
        while not self._should_stop() and told(self._folder):
            self._beat()
            time.sleep(LOOK_S)
        return self._should_stop()


def too_hot(root: Path = THERMAL_ROOT) -> str:
    """Which of Linux's thermal zones is above a trip point at which it slows the board down; empty if none is.

    Args:
        root: where the zones are.
    """
    for zone in sorted(root.glob("thermal_zone*")):
        degrees = _number(zone / "temp")
        for kind in sorted(zone.glob("trip_point_*_type")):
            limit = _number(kind.with_name(kind.name.replace("_type", "_temp")))
            if _text(kind) in _THROTTLING_TRIPS and degrees is not None and limit is not None and 0 < limit <= degrees:
                return f"{_text(zone / 'type') or zone.name} at {degrees / 1000:.0f} °C (limit {limit / 1000:.0f})"
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None
