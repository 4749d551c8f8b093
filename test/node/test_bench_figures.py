"""What a driver saw becomes figures: hand-made drives whose every figure is known."""

from __future__ import annotations

import pytest

from ssada_ros.bench_figures import WARM_UP, drive_of, figures, gaps_ms, latencies_ms, swap_figures

MS = 1_000_000
PERIOD = 100 * MS


def answer(count, *, missing=(), dropped=0, versions=None, received=None, swaps=()):
    """Frames every 100 ms: 2 ms to the node, 30 ms in the engine, 5 ms of overhead, 1 ms to the subscriber."""
    sent = [(index, index * PERIOD) for index in range(count)]
    served = [index for index in range(count) if index not in missing]
    timings = [
        {
            "stamp_ns": index,
            "received_ns": index * PERIOD + 2 * MS,
            "engine_ns": 30 * MS,
            "published_ns": index * PERIOD + 37 * MS,
            "version": versions[index] if versions else "v0001",
            "received": 100 + (count if received is None else received),
            "dropped": 7 + dropped,
        }
        for index in served
    ]
    masks = [(index, index * PERIOD + 38 * MS) for index in served]
    return {"sent": sent, "masks": masks, "timings": timings, "swaps": list(swaps)}


def drive(*args, **kwargs):
    return drive_of(answer(*args, **kwargs), (100, 7))[0]


def test_counts_are_of_this_drive_and_go_on_into_the_next():
    found, after = drive_of(answer(20, missing={4, 5}, dropped=1, received=19), (100, 7))
    assert (found.received, found.dropped, found.lost) == (19, 1, 2)
    assert after == (119, 8)
    nothing = {"sent": [(1, 0)], "masks": [], "timings": [], "swaps": []}
    found, after = drive_of(nothing, (119, 8))
    assert (found.received, found.lost, after) == (0, 1, (119, 8))


def test_latency_is_engine_and_overhead_and_warm_up_does_not_count():
    rows = latencies_ms(drive(20, missing={0, 10}))
    assert {name: set(values) for name, values in rows.items()} == {
        "latency": {35.0},
        "engine": {30.0},
        "overhead": {5.0},
        "camera": {2.0},
        "mask": {1.0},
    }
    assert len(rows["latency"]) == 20 - WARM_UP - 1
    found = figures(drive(20, missing={0, 10}, received=18))
    assert (found["frames"], found["masks"], found["delivered_share"]) == (20, 18, 0.9)
    assert found["overhead_ms"] == {"p50": 5.0, "p90": 5.0, "p99": 5.0}
    assert figures(drive(3))["latency_ms"]["p50"] is None


def test_gaps_are_between_neighbours_in_time():
    assert gaps_ms([30 * MS, 0, 10 * MS]) == [10.0, 20.0]
    assert gaps_ms([5]) == []


def test_a_swap_is_a_change_of_version_and_a_missing_mask_a_gap():
    versions = ["v0001"] * 8 + ["v0002"] * 12
    swaps = [{"version": "v0002", "asked_ns": 5 * PERIOD + 37 * MS}]
    found = swap_figures(drive(20, missing={9}, versions=versions, swaps=swaps), 10.0)
    assert (found["swaps"], found["lost"], found["frames"]) == (1, 1, 20)
    assert found["longest_gap_ms"] == 200.0
    assert found["longest_gap_periods"] == 2.0
    assert found["longest_gap_of_camera_ms"] == 100.0
    assert found["preparation_ms"]["p50"] == pytest.approx(300.0)
    whole = swap_figures(drive(20, versions=versions, swaps=swaps), 10.0)
    assert (whole["lost"], whole["longest_gap_periods"]) == (0, 1.0)
