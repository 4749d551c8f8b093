"""The whole adaptation in recorded time, with real pools, workers and gates."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from adaptation_fixtures import DRIVE
from markupsafe import escape
from replay_fixtures import ANYTHING, adapting, models, replay, settings, timeless

from ssada_core.data.bag_recovery import RecoveredBag
from ssada_core.data.bags import BagFrame, write_bag
from ssada_core.data.damage import Damage
from ssada_core.data.encodings import encode_png
from ssada_core.errors import ConfigError
from ssada_core.labels import CAMVID
from ssada_core.replay.adapting import until_stamp
from ssada_core.replay.driver import RosLog
from ssada_core.replay.judging import JudgingDriver, Spool
from ssada_core.replay.recording import Recording

SECOND = 10**9
FIRST = 5_000 * SECOND


def drive_bag(path: Path, count: int, *, first: int = 0, labelled: bool = True) -> Path:
    """One frame a second of a simulated night."""

    def frames():
        for index in range(first, first + count):
            image, label = DRIVE.frame(3 * index, "night")
            yield BagFrame(FIRST + index * SECOND, "front", image, None, label if labelled else None)

    write_bag(path, frames(), compressed=False)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return models(tmp_path_factory.mktemp("registry"))


def test_the_adaptation_is_played_in_recorded_time_and_twice_alike(
    tmp_path: Path, model: list[str], monkeypatch: pytest.MonkeyPatch
):
    drive_bag(tmp_path / "bag", 20)
    texts, reports = [], []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        monkeypatch.chdir(tmp_path / run)
        given = adapting(adapt_until="0.6", gate=ANYTHING)
        reports.append(replay(Path("../bag"), Path("out"), model, given, adapt=True))
        texts.append(timeless(Path("out/report.json")))
    assert texts[0] == texts[1]
    adaptation = reports[0].adaptation
    assert [query.asked_s for query in adaptation.queries] == [8.0] * 4
    assert sum(query.audit for query in adaptation.queries) == adaptation.audit_labels == 2
    assert {query.answer for query in adaptation.queries} == {"accepted"}
    (played,) = adaptation.rounds
    assert played.ended_s - played.started_s == 3.0
    assert (played.labelled, played.audit) == (2, 2)
    assert played.unlabelled == round(played.started_s) + 1 - 4, "what the pool held when the round was started"
    assert adaptation.until_s == pytest.approx(11.4)
    assert adaptation.unseen.before.frames == 8
    live = reports[0].series[1]
    if played.verdict == "promote":
        (swap,) = adaptation.swaps
        assert swap.time_s == played.ended_s
        assert live.versions == {"v0001": int(played.ended_s), "v0002": 20 - int(played.ended_s)}
    assert reports[0].series[0].versions == {"v0001": 20}
    assert reports[0].timing.round_seconds
    assert "latency" not in {check["name"] for check in played.checks}
    page = Path("out/report.html").read_text()
    for words in ("query 1", "Frames asked about", "training", "audit", played.words[:30], "adapts", "unseen"):
        assert str(escape(words)) in page, words


def test_a_drive_that_is_not_played_from_its_beginning_has_one_clock(tmp_path: Path, model: list[str]):
    given = adapting(adapt_until="0.8", gate=ANYTHING, recording={"start_s": 8.0})
    report = replay(drive_bag(tmp_path / "bag", 22), tmp_path / "out", model, given, adapt=True)
    adaptation, recording = report.adaptation, report.recording
    assert (recording.frames, recording.first_stamp_ns, recording.duration_s) == (14, FIRST, 13.0)
    newest_s = max(query.stamp_ns - FIRST for query in adaptation.queries) / SECOND
    assert [query.asked_s for query in adaptation.queries] == [16.0] * 4
    assert 8.0 <= newest_s <= 16.0
    (played,) = adaptation.rounds
    assert played.ended_s == played.started_s + 3.0 < 21.0, "it ends within the drive"
    assert adaptation.unfinished == ""
    if played.verdict == "promote":
        (swap,) = adaptation.swaps
        assert swap.time_s == played.ended_s
        assert report.series[1].versions == {"v0001": int(swap.time_s) - 8, "v0002": 22 - int(swap.time_s)}
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("adapts", "unseen", "training"):
        assert words in page, words


def test_a_drive_over_ros_that_is_judged_has_the_clock_of_the_recording(tmp_path: Path):
    models(tmp_path / "registry")
    given = settings(recording={"start_s": 3.0})
    bag = RecoveredBag(drive_bag(tmp_path / "bag", 6), Damage())
    recording = Recording(bag, CAMVID, given.recording, given.truth)
    driver = JudgingDriver(tmp_path, given, CAMVID, Spool(tmp_path / "masks"), RosLog(), lambda _: None)
    with closing(driver):
        for frame in recording.frames():
            driver.serve(frame)
    assert driver.end_s == 5.0


def test_a_round_under_way_at_the_end_is_finished_and_judged_on_the_unseen_list(tmp_path: Path, model: list[str]):
    bag, unseen = drive_bag(tmp_path / "bag", 10), drive_bag(tmp_path / "unseen", 6, first=50)
    given = adapting(gate=ANYTHING).model_copy(update={"round_seconds": 100.0})
    report = replay(bag, tmp_path / "out", model, given, adapt=True, evaluation=str(unseen))
    adaptation = report.adaptation
    assert adaptation.rounds[0].ended_s > 100.0
    assert "after its last frame" in adaptation.unfinished
    assert adaptation.unseen.before.frames == adaptation.unseen.after.frames == 6
    assert str(unseen) in adaptation.unseen.what
    assert adaptation.unseen.names == ("v0001", adaptation.last_version)
    assert report.series[1].versions == {"v0001": 10}
    assert "Unseen frames" in (tmp_path / "out" / "report.html").read_text()


def test_before_and_after_name_who_answered_and_not_who_was_promoted_too_late(tmp_path: Path, model: list[str]):
    given = adapting(adapt_until="0.5", gate=ANYTHING).model_copy(update={"round_seconds": 100.0})
    report = replay(drive_bag(tmp_path / "bag", 22, first=8), tmp_path / "out", model, given, adapt=True)
    adaptation = report.adaptation
    (played,) = adaptation.rounds
    assert (played.verdict, adaptation.last_version) == ("promote", "v0002"), played.words
    assert report.series[1].versions == {"v0001": 22}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "after: v0002" not in page
    for words in ("before: without adaptation (v0001)", "after: with adaptation (v0001)", "none of the drive's frames"):
        assert str(escape(words)) in page, words
    (strip,) = re.findall('<div class="strip".*?</div>', page)
    assert adaptation.unseen.comparison.winner == "", "nobody beats himself"
    assert strip.count("<i ") == adaptation.unseen.comparison.stretches == 4 < len(report.stretches)


def test_a_swap_amid_the_unseen_frames_is_said(tmp_path: Path, model: list[str]):
    given = adapting(adapt_until="0.5", gate=ANYTHING)
    report = replay(drive_bag(tmp_path / "bag", 22, first=8), tmp_path / "out", model, given, adapt=True)
    (swap,) = report.adaptation.swaps
    assert report.adaptation.until_s < swap.time_s - 1 < 20
    assert report.adaptation.unseen.names == ("without adaptation (v0001)", "with adaptation (v0001, v0002)")
    assert "after: with adaptation (v0001, v0002)" in (tmp_path / "out" / "report.html").read_text()


def test_queries_are_answered_from_a_folder_or_left_open(tmp_path: Path, model: list[str]):
    bag = drive_bag(tmp_path / "bag", 12, labelled=False)
    report = replay(bag, tmp_path / "out", model, adapting(answers="none"), adapt=True)
    assert {query.answer for query in report.adaptation.queries} == {"open"}
    assert report.adaptation.rounds == []
    folder = tmp_path / "answers"
    folder.mkdir()
    for index in range(0, 12, 2):
        label = DRIVE.frame(3 * index, "night")[1]
        (folder / f"{FIRST + index * SECOND}.png").write_bytes(encode_png(np.ascontiguousarray(label)))
    half = replay(bag, tmp_path / "half", model, adapting(answers=str(folder)), adapt=True)
    answers = {(query.stamp_ns - FIRST) // SECOND: query.answer for query in half.adaptation.queries}
    assert all((answer == "open") == bool(second % 2) for second, answer in answers.items())
    assert len(answers) == 4
    stamps = [query.stamp_ns for query in report.adaptation.queries]
    assert [query.stamp_ns for query in half.adaptation.queries] == stamps, "the same seed asks for the same frames"


def test_where_the_adaptation_stops_may_be_a_share_or_a_stamp():
    assert until_stamp("", 100, 200) is None
    assert until_stamp("0.5", 100, 200) == 150
    assert until_stamp("1", 100, 200) == 200
    assert until_stamp("170", 100, 200) == 170
    for wrong in ("1.5", "-0.1", "soon", "0"):
        with pytest.raises(ConfigError, match=f"'{wrong}' is neither"):
            until_stamp(wrong, 100, 200)


def test_only_one_model_can_adapt(tmp_path: Path, model: list[str]):
    with pytest.raises(ConfigError, match="give --model once"):
        replay(drive_bag(tmp_path / "bag", 2), tmp_path / "out", [*model, *model], adapting(), adapt=True)
