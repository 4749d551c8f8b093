"""How full the frame pool is, and how much of its disk is left."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping

from ssada_core.store.pool_records import PoolSettings

_GONE = ("rejected",)
"""States of frames whose image is not kept any more."""


def pool_room(folder: str, settings: PoolSettings, counts: Mapping[str, int], image_bytes: int) -> dict[str, object]:
    """Figures for diagnostics; those of the disk are NaN where it cannot be asked, of which the pool itself complains.

    Args:
        folder: of the pool.
        settings: its bounds.
        counts: its frames by state.
        image_bytes: what their images take.
    """
    frames = sum(count for state, count in counts.items() if state not in _GONE)
    free, free_share = _disk(folder)
    return {
        "fill_percent": 100.0 * max(frames / settings.max_frames, image_bytes / settings.max_bytes),
        "disk_free_gb": free / 1e9,
        "disk_free_percent": 100.0 * free_share,
        "disk_is_short": free_share < settings.keep_free_share,
    }


def _disk(folder: str) -> tuple[float, float]:
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return math.nan, math.nan
    return float(disk.free), disk.free / disk.total
