"""Parts of recordings, message for message, and the commands that make and show them."""

from __future__ import annotations

import json
from pathlib import Path

import bag_fixtures as bags
import pytest
from bag_fixtures import STORAGES, foreign_bag, frames, split_bag, storage_file, whole_bag
from cli_fixtures import ssada_here
from typer.testing import CliRunner

from ssada_core.cli import app
from ssada_core.data.bag_cut import UNKNOWN_TYPE, Cut, cut_bag
from ssada_core.data.bag_storage import CUT_SHORT
from ssada_core.data.bag_survey import survey_bag
from ssada_core.data.bags import bag_info, read_bag
from ssada_core.errors import BagError


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("to", STORAGES)
def test_a_span_is_copied_message_for_message(tmp_path: Path, storage: str, to: str):
    path = whole_bag(tmp_path / "bag", 20, storage=storage)
    told = []
    count, damage = cut_bag(path, tmp_path / "cut", Cut(1.0, 2.0), storage=to, progress=lambda *a: told.append(a))
    assert (count, bool(damage)) == (10, False)
    back = list(read_bag(tmp_path / "cut"))
    expected = frames(5, first=5)
    assert [frame.stamp_ns for frame in back] == [frame.stamp_ns for frame in expected]
    for got, wrote in zip(back, expected, strict=True):
        assert (got.image == wrote.image).all()
        assert (got.label == wrote.label).all()
    assert bag_info(tmp_path / "cut").storage == to


def test_topics_and_every_nth_frame_with_its_label(tmp_path: Path):
    path = whole_bag(tmp_path / "bag", 12)
    assert cut_bag(path, tmp_path / "labels", Cut(topics=("/camera/label",)))[0] == 12
    assert [topic.name for topic in bag_info(tmp_path / "labels").topics] == ["/camera/label"]
    assert cut_bag(path, tmp_path / "third", Cut(every=3))[0] == 8
    back = list(read_bag(tmp_path / "third"))
    assert [int(frame.label[0, 0]) for frame in back] == [0, 3, 6, 9]
    with pytest.raises(BagError, match=r"no topic /camera/lable .did you mean '/camera/label'"):
        cut_bag(path, tmp_path / "x", Cut(topics=("/camera/lable",)))
    with pytest.raises(BagError, match="exists already"):
        cut_bag(path, tmp_path / "third", Cut())
    with pytest.raises(BagError, match=r"nothing of .* lies in that part"):
        cut_bag(path, tmp_path / "x", Cut(start_s=99.0))
    assert not (tmp_path / "x").exists()


def test_a_damaged_and_a_split_bag_become_whole(tmp_path: Path):
    path = whole_bag(tmp_path / "bag", 60)
    file = storage_file(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    count, damage = cut_bag(path, tmp_path / "mended", Cut())
    assert damage
    assert 40 < count < 70
    assert len(list(read_bag(tmp_path / "mended"))) == pytest.approx(count / 2, abs=1)
    split = split_bag(tmp_path / "split", parts=3, each=4)
    assert cut_bag(split, tmp_path / "one", Cut())[0] == 24
    assert [frame.stamp_ns for frame in read_bag(tmp_path / "one")] == [frame.stamp_ns for frame in frames(12)]


def test_types_that_are_not_known_are_counted(tmp_path: Path):
    text = bags.TYPES.types["std_msgs/msg/String"](data="hello")
    path = foreign_bag(tmp_path / "bag", [("/i", 1, bags.image(1, bags.picture(1))), ("/odd", 2, text)])
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("std_msgs/msg/String", "vendor_msgs/msg/Odd"))
    count, damage = cut_bag(path, tmp_path / "cut", Cut())
    assert (count, damage.count(UNKNOWN_TYPE)) == (1, 1)


def test_the_commands(tmp_path: Path):
    path = whole_bag(tmp_path / "bag", 20)
    run = CliRunner().invoke
    cut = run(app, ["bag", "cut", str(path), str(tmp_path / "cut"), "--start", "1", "--end", "3", "--every", "2"])
    assert cut.exit_code == 0, cut.output
    info = run(app, ["bag", "info", str(tmp_path / "cut")])
    shown = json.loads(info.stdout)
    assert (shown["messages"], shown["storage"]) == (10, "mcap")
    assert shown["duration_s"] == pytest.approx(1.6)


def survey(path: Path, *more: str) -> dict:
    shown = ssada_here("bag", "info", path, *more)
    assert shown.status == 0, shown.err
    return json.loads(shown.out) | {"said": shown.err}


@pytest.mark.parametrize("storage", STORAGES)
def test_info_of_a_truncated_bag_says_what_can_be_read_and_what_is_broken(tmp_path: Path, storage: str):
    path = whole_bag(tmp_path / "bag", 60, storage=storage)
    whole = survey(path)
    assert (whole["messages"], whole["damage"]) == (120, [])
    assert survey(path, "--check") == whole
    file = storage_file(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    left = survey(path, "--check")
    assert 40 < left["messages"] < 120
    assert sum(topic["messages"] for topic in left["topics"]) == left["messages"]
    assert left["duration_s"] < whole["duration_s"]
    assert left["damage"][0]["kind"] == CUT_SHORT
    assert "1x file that is cut short" in left["said"]
    if storage == "mcap":  # its index is at the end; a database has none that would be missed
        assert survey(path) == left


def test_info_of_a_bag_without_metadata_and_of_none(tmp_path: Path):
    path = whole_bag(tmp_path / "bag", 6)
    (path / "metadata.yaml").unlink()
    found = survey(path)
    assert found["messages"] == 12
    assert [item["count"] for item in found["damage"]] == [1]
    for missing in (tmp_path / "none", tmp_path):
        done = ssada_here("bag", "info", missing)
        assert (done.status, done.out) == (1, "")
        assert done.err.strip().startswith("error: bag ")


def test_reading_through_tells_how_far_it_is(tmp_path: Path):
    told = []
    survey_bag(whole_bag(tmp_path / "bag", 60), thorough=True, progress=lambda *a: told.append(a))
    assert told == [(50, 120), (100, 120)]
