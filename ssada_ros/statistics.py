"""Rates and latencies over a sliding window, for diagnostics."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

LATENCY_KEY = "latency_recent_p99_ms"
"""Under which the segmentation node's diagnostics give the newest p99; the adaptation node reads it there."""
WINDOW = 600
"""Frames remembered: two minutes at 5 Hz."""


@dataclass(frozen=True)
class Timing:
    """Summary of a window; zeros before the first frame. Times in milliseconds but for the age, rate in Hz.

    Attributes:
        frames: all of them, also those before the window.
        rate_hz: over the last seconds.
        p50_ms: median latency.
        p99_ms: 99th percentile of the latency.
        engine_p50_ms: median time in the engine's compiled graph.
        overhead_p50_ms: median of what is left of the latency without it.
        age_s: since the last frame.
        interval_p50_ms: median time between two frames.
        interval_p99_ms: 99th percentile of it.
        interval_max_ms: the longest.
    """

    frames: int
    rate_hz: float
    p50_ms: float
    p99_ms: float
    engine_p50_ms: float
    overhead_p50_ms: float
    age_s: float
    interval_p50_ms: float = 0.0
    interval_p99_ms: float = 0.0
    interval_max_ms: float = 0.0
    recent_p99_ms: float = 0.0


class TimingWindow:
    """Latencies and arrival times of the last :data:`WINDOW` frames of one camera. Safe from any thread."""

    def __init__(self) -> None:
        self._done_ns: deque[int] = deque(maxlen=WINDOW)
        self._latency_ns: deque[int] = deque(maxlen=WINDOW)
        self._engine_ns: deque[int] = deque(maxlen=WINDOW)
        self._frames = 0
        self._lock = threading.Lock()

    def add(self, received_ns: int, done_ns: int, engine_ns: int = 0) -> None:
        """Record one frame by monotonic times, and the engine's share of the time between, in nanoseconds."""
        with self._lock:
            self._done_ns.append(done_ns)
            self._latency_ns.append(done_ns - received_ns)
            self._engine_ns.append(engine_ns)
            self._frames += 1

    def summary(self, now_ns: int, horizon_s: float = 10.0) -> Timing:
        """Rate over the last ``horizon_s`` up to now, latency percentiles over the window."""
        with self._lock:
            if not self._done_ns:
                return Timing(0, 0.0, 0.0, 0.0, 0.0, 0.0, float("inf"))
            recent = [done for done in self._done_ns if now_ns - done <= horizon_s * 1e9]
            latencies = np.fromiter(self._latency_ns, np.int64) / 1e6
            engine = np.fromiter(self._engine_ns, np.int64) / 1e6
            intervals = np.diff(np.fromiter(self._done_ns, np.int64)) / 1e6
            last, frames = self._done_ns[-1], self._frames
        # Up to now, not up to the last frame: a camera that stops must not keep its rate.
        span_s = (now_ns - recent[0]) / 1e9 if recent else 0.0
        rate = (len(recent) - 1) / span_s if span_s > 0 else 0.0
        p50, p99 = np.percentile(latencies, (50, 99))
        between = np.percentile(intervals, (50, 99, 100)) if len(intervals) else np.zeros(3)
        middle, most, longest = map(float, between)
        spent, added = float(np.median(engine)), float(np.median(latencies - engine))
        age_s = (now_ns - last) / 1e9
        now_p99 = float(np.percentile(latencies[-len(recent) :], 99)) if recent else 0.0
        return Timing(
            frames, rate, float(p50), float(p99), spent, added, age_s, middle, most, longest, recent_p99_ms=now_p99
        )


JUMP_S = 10.0
"""Seconds by which stamps may run ahead of the clock from one frame to the next, as those of a fast replay do."""


class StampWatch:
    """Counts stamps that do not go on: equal or older than the one before, or far ahead of it."""

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        self.jumps = 0
        """Stamps that did not go on."""
        self.words = ""
        """What the last of them did; empty before the first."""

    def add(self, stamp_ns: int, received_ns: int) -> None:
        """Note one frame's stamp, and when it came by a clock that does not jump."""
        if self._last is not None:
            step, gap = stamp_ns - self._last[0], received_ns - self._last[1]
            if step <= 0 or step - gap > JUMP_S * 1e9:
                self.jumps += 1
                self.words = "stamps stand still" if not step else f"stamps jumped by {step / 1e9:+.3f} s"
        self._last = (stamp_ns, received_ns)
