"""What the demo writes in the end, from a real stage whose unseen frames come from two cameras."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from ros_fixtures import make_registry

from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_ros.demo_drive import DriveLog
from ssada_ros.demo_monitor import DriveRecord, MaskRecord
from ssada_ros.demo_options import DemoOptions
from ssada_ros.demo_report import write_results
from ssada_ros.demo_settings import find_evaluation, load_demo_settings
from ssada_ros.demo_stage import prepare

pytestmark = pytest.mark.ros

SMALL = ("drive.width=96", "drive.height=64", "drive.source_frames=4", "drive.source_eval_frames=2")
START, MS = 1_700_000_000_000_000_000, 1_000_000


def frames_of(folder: Path, *sizes: tuple[int, int]) -> Path:
    """A list of one labelled frame of each size (h, w)."""
    lines = []
    for number, size in enumerate(sizes):
        image, label = SimulatedDrive(seed=9, size=size).frame(number, "night")
        cv2.imwrite(str(folder / f"image{number}.png"), image)
        cv2.imwrite(str(folder / f"label{number}.png"), label)
        lines.append(f"image{number}.png label{number}.png\n")
    (folder / "mixed.txt").write_text("".join(lines))
    return folder / "mixed.txt"


def test_unseen_frames_may_have_different_shapes(tmp_path: Path) -> None:
    make_registry(tmp_path / "models")
    options = DemoOptions(
        model=str(tmp_path / "models"),
        out=tmp_path / "demo",
        overrides=SMALL,
        evaluation=str(frames_of(tmp_path, (96, 160), (96, 120))),
    )
    settings = load_demo_settings(options)
    stage = prepare(options, settings, find_evaluation(options, settings), lambda _: None)
    record = DriveRecord(
        published_ns=[START], masks=[MaskRecord(START, START + 40 * MS, None)], versions=[("v0001", START)], status={}
    )
    summary = write_results(stage, record, DriveLog([("source", START), ("end", START + 1000 * MS)]))
    assert summary["before"]["frames"] == 2
    strip = cv2.imread(str(stage.out / "strip.png"))
    assert strip is not None
    assert strip.shape[1] == 3 * 400 + 2 * 4  # three panels, 240 high, of the wider frame, and two gaps
    page = (stage.out / "report.html").read_text(encoding="utf-8")
    assert "image0" in page
    assert "image1" in page
