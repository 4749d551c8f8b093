"""Rates and latencies over a sliding window, for diagnostics."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW = 600
"""Frames remembered: two minutes at 5 Hz."""


@dataclass(frozen=True)
class Timing:
    """Summary of a window; zeros before the first frame. Latencies in milliseconds, rate in Hz.

    The overhead is what is left of the latency without the engine's compiled graph.
    """

    frames: int
    rate_hz: float
    p50_ms: float
    p99_ms: float
    engine_p50_ms: float
    overhead_p50_ms: float
    age_s: float


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
            last, frames = self._done_ns[-1], self._frames
        # Up to now, not up to the last frame: a camera that stops must not keep its rate.
        span_s = (now_ns - recent[0]) / 1e9 if recent else 0.0
        rate = (len(recent) - 1) / span_s if span_s > 0 else 0.0
        p50, p99 = np.percentile(latencies, (50, 99))
        spent, added = float(np.median(engine)), float(np.median(latencies - engine))
        return Timing(frames, rate, float(p50), float(p99), spent, added, (now_ns - last) / 1e9)
