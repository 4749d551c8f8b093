"""From what a driver saw to figures: pure functions, times in nanoseconds of one monotonic clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ssada_core.bench.machine import percentiles

WARM_UP = 5
"""First frames of a drive that do not count as latency: another size, cold caches. They do count as delivered."""


@dataclass(frozen=True)
class Drive:
    """What a driver saw of one drive.

    Attributes:
        sent: stamp → when the frame was published.
        masks: stamp → when its mask arrived at the subscriber.
        timings: stamp → what the node says of it.
        received: frames of this drive that arrived in the node.
        dropped: of these, the ones that a newer one replaced.
        swaps: versions asked for, and when.
    """

    sent: Mapping[int, int]
    masks: Mapping[int, int]
    timings: Mapping[int, Mapping[str, Any]]
    received: int
    dropped: int
    swaps: Sequence[Mapping[str, Any]]

    @property
    def lost(self) -> int:
        """Frames without a mask at the subscriber."""
        return len(self.sent.keys() - self.masks.keys())


def drive_of(answer: Mapping[str, Any], before: tuple[int, int]) -> tuple[Drive, tuple[int, int]]:
    """A driver's answer in order.

    Args:
        answer: of its jobs ``drive`` and ``swap``.
        before: what the node had received and dropped before this drive.

    Returns:
        The drive, and the node's counts after it.
    """
    timings = {int(entry["stamp_ns"]): entry for entry in answer["timings"]}
    last = answer["timings"][-1] if answer["timings"] else {"received": before[0], "dropped": before[1]}
    after = int(last["received"]), int(last["dropped"])
    drive = Drive(
        sent={int(stamp): int(at) for stamp, at in answer["sent"]},
        masks={int(stamp): int(at) for stamp, at in answer["masks"]},
        timings=timings,
        received=after[0] - before[0],
        dropped=after[1] - before[1],
        swaps=answer["swaps"],
    )
    return drive, after


def latencies_ms(drive: Drive) -> dict[str, list[float]]:
    """Milliseconds by what they were spent on, one value per frame after the warm-up.

    ``latency``: from the frame's arrival in the node to its published mask; of these ``engine`` in the compiled graph,
    ``overhead`` in all else (waiting, decoding, resizing, publishing). ``camera``: from the camera to the node.
    ``mask``: from the node to the subscriber.
    """
    stamps = [stamp for stamp in list(drive.sent)[WARM_UP:] if stamp in drive.timings]
    rows: dict[str, list[float]] = {name: [] for name in ("latency", "engine", "overhead", "camera", "mask")}
    for stamp in stamps:
        times = drive.timings[stamp]
        latency, engine = times["published_ns"] - times["received_ns"], times["engine_ns"]
        rows["latency"].append(latency / 1e6)
        rows["engine"].append(engine / 1e6)
        rows["overhead"].append((latency - engine) / 1e6)
        rows["camera"].append((times["received_ns"] - drive.sent[stamp]) / 1e6)
        if stamp in drive.masks:
            rows["mask"].append((drive.masks[stamp] - times["published_ns"]) / 1e6)
    return rows


def figures(drive: Drive) -> dict[str, Any]:
    """Counts and percentiles of one drive."""
    sent = len(drive.sent)
    return {
        "frames": sent,
        "received": drive.received,
        "dropped": drive.dropped,
        "masks": sent - drive.lost,
        "delivered_share": round(drive.received / sent, 4) if sent else 0.0,
        **{f"{name}_ms": percentiles(values) for name, values in latencies_ms(drive).items()},
    }


def gaps_ms(times_ns: Sequence[int]) -> list[float]:
    """Milliseconds between one and the next."""
    return [float(gap) / 1e6 for gap in np.diff(np.sort(np.asarray(times_ns, np.int64)))]


def swap_figures(drive: Drive, rate: float) -> dict[str, Any]:
    """What the swaps cost: frames without a mask, and the longest wait for one, also in periods of the camera."""
    period_ms = 1e3 / rate
    arrived, made = gaps_ms(list(drive.masks.values())), gaps_ms([t["published_ns"] for t in drive.timings.values()])
    sent = gaps_ms(list(drive.sent.values()))
    return {
        "swaps": _swaps_done(drive),
        "frames": len(drive.sent),
        "lost": drive.lost,
        "dropped": drive.dropped,
        "not_received": len(drive.sent) - drive.received,
        "period_ms": round(period_ms, 2),
        "longest_gap_ms": round(max(arrived, default=0.0), 2),
        "longest_gap_periods": round(max(arrived, default=0.0) / period_ms, 3),
        "longest_gap_in_node_ms": round(max(made, default=0.0), 2),
        "longest_gap_of_camera_ms": round(max(sent, default=0.0), 2),
        "preparation_ms": percentiles(_preparations_ms(drive)),
        **{f"{name}_ms": percentiles(values) for name, values in latencies_ms(drive).items()},
    }


def _swaps_done(drive: Drive) -> int:
    """Changes of the version from one mask to the next."""
    versions = [entry["version"] for entry in drive.timings.values()]
    return sum(before != after for before, after in pairwise(versions))


def _preparations_ms(drive: Drive) -> list[float]:
    """From the request of each version to the first mask by it."""
    taken = []
    for swap in drive.swaps:
        later = [
            entry["published_ns"]
            for entry in drive.timings.values()
            if entry["version"] == swap["version"] and entry["published_ns"] > swap["asked_ns"]
        ]
        if later:
            taken.append((min(later) - swap["asked_ns"]) / 1e6)
    return taken
