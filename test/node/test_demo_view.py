"""What the demo shows while it runs."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from rich.console import Console

from ssada_ros.demo_drive import DriveLog
from ssada_ros.demo_monitor import DriveRecord, MaskRecord
from ssada_ros.demo_view import LineView, LiveView, panel, rows

pytestmark = pytest.mark.ros

MS = 1_000_000
RECORD = DriveRecord(
    published_ns=[0, 200 * MS, 400 * MS],
    masks=[MaskRecord(0, 30 * MS, None), MaskRecord(400 * MS, 430 * MS, None)],
    versions=[("v0001", 0)],
    status={
        "pool": {"buffered": 7},
        "asked": 3,
        "budget": 12,
        "labels": 2,
        "paused": True,
        "training": {"iteration": 40, "iterations": 150, "eta_seconds": 61.4},
        "decision": {"verdict": "promote"},
    },
)
LOG = DriveLog([("target", 0)])


class Witness:
    """Stands where the monitor node does."""

    def record(self) -> DriveRecord:
        return RECORD


def test_rows_by_hand() -> None:
    assert rows(RECORD, LOG) == {
        "phase": "target",
        "masks": "2 of 3",
        "rate": "2.5 Hz",
        "latency": "30 ms",
        "model": "v0001",
        "live mIoU": "",
        "pool": "7 frames, 3 of 12 asked, 2 labelled (paused)",
        "training": "40/150, 61 s to go",
        "gate": "promote",
    }


def test_the_live_miou_is_told_apart_by_version() -> None:
    right, half = np.array([[4, 0], [0, 4]]), np.array([[2, 2], [2, 2]])
    masks = [MaskRecord(stamp, stamp, matrix) for stamp, matrix in ((10, half), (20, half), (30, right))]
    record = DriveRecord(masks=masks, versions=[("v0001", 10), ("v0002", 30)])
    assert rows(record, LOG)["live mIoU"] == "33.3 (v0001) → 100.0 (v0002)"


def test_nothing_is_shown_of_what_is_not_known_yet() -> None:
    shown = rows(DriveRecord(), DriveLog())
    assert shown.pop("masks") == "0 of 0"
    assert set(shown.values()) == {""}


def test_lines_come_with_a_new_phase_and_not_with_every_tick() -> None:
    out = io.StringIO()
    with LineView(Witness(), Console(file=out, width=300)) as say:  # type: ignore[arg-type]
        for _ in range(5):
            say(LOG)
        say(DriveLog([("after", 0)]))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("phase target · masks 2 of 3")
    assert lines[1].startswith("phase after")


def test_the_panel_is_drawn_with_and_without_figures() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=False)
    console.print(panel(RECORD, LOG))
    console.print(panel(DriveRecord(), DriveLog()))
    assert "61 s to go" in out.getvalue()
    with LiveView(Witness(), console) as draw:  # type: ignore[arg-type]
        draw(LOG)
    assert "2.5 Hz" in out.getvalue()
