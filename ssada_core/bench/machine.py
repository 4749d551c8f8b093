"""What a measurement was made on, and the percentiles that every one of them states."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def machine() -> dict[str, object]:
    """Processor, its cores, and those that this process may use."""
    usable = len(os.sched_getaffinity(0))
    return {"cpu": _cpu(), "cores": os.cpu_count(), "usable_cores": usable, "python": platform.python_version()}


def percentiles(milliseconds: Sequence[float]) -> dict[str, float | None]:
    """Median, 90th and 99th percentile, rounded to 0.01; None without values."""
    if not milliseconds:
        return {"p50": None, "p90": None, "p99": None}
    values = np.percentile(np.asarray(milliseconds), [50, 90, 99])
    return {name: round(float(value), 2) for name, value in zip(("p50", "p90", "p99"), values, strict=True)}


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
