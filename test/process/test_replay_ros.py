"""A recording over the real node: what comes back is what a direct replay gives."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from adaptation_fixtures import DRIVE
from replay_fixtures import models, settings

from ssada_core.data.bags import BagFrame, write_bag
from ssada_core.replay.run import ReplayOptions, run_replay
from ssada_ros.drive import RosDriver

FRAMES = 25


def rows(out: Path) -> dict[int, tuple[str, str]]:
    with (out / "frames.csv").open() as file:
        return {int(row["stamp_ns"]): (row["mask_crc32"], row["miou"]) for row in csv.DictReader(file)}


@pytest.mark.ros
@pytest.mark.parametrize("compressed", [False, True])
def test_the_masks_of_the_node_are_those_of_a_direct_replay(tmp_path: Path, ros_domain: int, compressed: bool):
    def frames():
        for index in range(FRAMES):
            image, label = DRIVE.frame(index, "night")
            yield BagFrame(10**18 + index * 200_000_000, "front", image, None, label)

    write_bag(tmp_path / "bag", frames(), compressed=compressed)
    references = models(tmp_path / "registry")

    def replay(out: Path, **ros):
        options = ReplayOptions(bag=tmp_path / "bag", out=out, models=tuple(references), command="ssada replay bag")
        return run_replay(options, settings(), log=lambda _: None, **ros)

    direct = replay(tmp_path / "direct")
    over_ros = replay(tmp_path / "ros", ros=RosDriver)
    assert (over_ros.ros.published, over_ros.ros.dropped) == (FRAMES, 0)
    assert rows(tmp_path / "ros") == rows(tmp_path / "direct")
    assert len(rows(tmp_path / "ros")) == FRAMES
    assert over_ros.mode == "ros"
    assert over_ros.series[0].miou == direct.series[0].miou
    assert over_ros.timing.longest_gap_s > 0
    page = (tmp_path / "ros" / "report.html").read_text()
    for words in ("over ROS at ×1", "of 25 published, reliable", "camera to subscriber", "longest gap between masks"):
        assert words in page, words
