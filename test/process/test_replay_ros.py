"""A recording over the real node: what comes back is what a direct replay gives."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from adaptation_fixtures import DRIVE
from replay_fixtures import ANYTHING, adapting, models, settings

from ssada_core.data.bags import BagFrame, write_bag
from ssada_core.errors import ConfigError
from ssada_core.replay.run import ReplayOptions, run_replay
from ssada_ros.drive import RosDriver

FRAMES = 25
ADAPTED = 160
"""80 s at 2 Hz: a round of four iterations takes some 15 s on two idle cores, most of it imports."""
SKIPPED = 40
"""Frames before those, 20 s, that are not played: times are seconds from the recording's first frame all the same."""


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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_nodes_adapt_while_the_drive_is_played(tmp_path: Path, ros_domain: int):
    """Long enough that a short round ends, and is swapped to, before the drive does."""

    def frames():
        for index in range(SKIPPED + ADAPTED):
            image, label = DRIVE.frame(max(0, index - SKIPPED), "night")
            yield BagFrame(10**18 + index * 500_000_000, "front", image, None, label)

    write_bag(tmp_path / "bag", frames(), compressed=True)
    references = models(tmp_path / "registry")
    given = adapting(gate=ANYTHING, recording={"start_s": SKIPPED / 2})
    options = ReplayOptions(
        bag=tmp_path / "bag", out=tmp_path / "out", models=tuple(references), command="ssada replay bag", adapt=True
    )
    report = run_replay(options, given, log=lambda _: None, ros=RosDriver)
    adaptation = report.adaptation
    assert report.mode == "ros"
    assert report.ros.published == ADAPTED
    assert report.ros.dropped <= ADAPTED // 10
    assert len(adaptation.queries) == 4
    assert {query.answer for query in adaptation.queries} == {"accepted"}
    for query in adaptation.queries:
        assert SKIPPED / 2 <= (query.stamp_ns - report.recording.first_stamp_ns) / 1e9 <= query.asked_s
    assert (adaptation.labels, adaptation.audit_labels) == (4, 2)
    assert adaptation.round_seconds is None
    (played,) = adaptation.rounds
    assert played.ended_s > played.started_s >= max(query.asked_s for query in adaptation.queries)
    assert played.verdict == "promote", played.words
    (swap,) = adaptation.swaps
    assert swap.version == adaptation.last_version == "v0002"
    assert swap.time_s < SKIPPED / 2 + report.recording.duration_s, "the drive must be longer than the round"
    live = report.series[1]
    assert set(live.versions) == {"v0001", "v0002"}
    assert sum(live.versions.values()) == report.ros.served == ADAPTED - report.ros.dropped
    assert report.series[0].versions == {"v0001": report.ros.served}
    (gap,) = report.timing.swap_gaps_s
    assert 0.4 <= gap <= report.timing.longest_gap_s
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("without a mask at a swap", "by the real nodes while the drive was played", "Frames asked about"):
        assert words in page, words


def test_what_real_nodes_cannot_do_is_said(tmp_path: Path):
    write_bag(tmp_path / "bag", [BagFrame(10**18, "front", *DRIVE.frame(0, "night")[:1])], compressed=False)
    references = tuple(models(tmp_path / "registry"))
    for chosen, given, words in (
        (references * 2, settings(), "give --model once"),
        (references, settings(adapt_until="0.5"), "leave --adapt-until out"),
    ):
        options = ReplayOptions(bag=tmp_path / "bag", out=tmp_path / "out", models=chosen, command="", adapt=True)
        with pytest.raises(ConfigError, match=words):
            run_replay(options, given, log=lambda _: None, ros=RosDriver)
