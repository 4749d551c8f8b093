"""Recordings are read as far as they go, and what is broken is counted."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

import bag_fixtures as bags
import pytest
from bag_fixtures import STORAGES, compressed_bag, foreign_bag, frames, split_bag, storage_file, whole_bag

from ssada_core.data.bag_messages import stamp_of
from ssada_core.data.bag_recovery import MISSING_FILE, NO_METADATA, UNKNOWN_MESSAGE, RecoveredBag
from ssada_core.data.bag_storage import BROKEN_PART, CUT_SHORT
from ssada_core.data.bags import read_bag
from ssada_core.data.damage import Damage
from ssada_core.errors import BagError


def stamps(path: Path, damage: Damage, topic: str = "/camera/image") -> list[int]:
    bag = RecoveredBag(path, damage)
    return [stamp_of(message) for _, message in bag.decoded([topic])]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("jpeg", [False, True])
def test_a_whole_bag_reads_as_the_strict_reader_reads_it(tmp_path: Path, storage: str, jpeg: bool):
    path = whole_bag(tmp_path / "bag", storage=storage, jpeg=jpeg)
    damage = Damage()
    bag = RecoveredBag(path, damage)
    topic = "/camera/image/compressed" if jpeg else "/camera/image"
    assert bag.image_topics() == [topic]
    assert bag.label_topics() == ["/camera/label"]
    assert bag.counts == {topic: 20, "/camera/label": 20}
    assert [stamp_of(m) for _, m in bag.decoded([topic])] == [frame.stamp_ns for frame in read_bag(path)]
    assert not damage
    single = RecoveredBag(storage_file(path), damage)
    assert single.topics == bag.topics
    assert len(list(single.messages([topic, "/camera/label"]))) == 40
    assert not damage


@pytest.mark.parametrize("storage", STORAGES)
def test_split_bags_are_read_in_order_with_and_without_metadata(tmp_path: Path, storage: str):
    path = split_bag(tmp_path / "bag", parts=11, each=2, storage=storage)
    expected = [frame.stamp_ns for frame in frames(22)]
    damage = Damage()
    assert stamps(path, damage) == expected
    assert not damage
    (path / "metadata.yaml").unlink()
    assert stamps(path, damage) == expected, "part 10 comes after part 9"
    assert damage.count(NO_METADATA) == 1


@pytest.mark.parametrize(
    ("storage", "mode"),
    [("mcap", "file"), ("mcap", "message"), ("mcap", "storage"), ("sqlite3", "file"), ("sqlite3", "message")],
)
def test_compressed_bags_are_read_with_and_without_metadata(tmp_path: Path, storage: str, mode: str):
    path = compressed_bag(tmp_path / "bag", mode, storage=storage)
    damage = Damage()
    expected = [frame.stamp_ns for frame in frames(12)]
    assert stamps(path, damage) == expected
    assert not damage
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    assert stamps(path, damage) == expected
    assert damage.count(NO_METADATA) == 1


def test_a_missing_part_leaves_the_others(tmp_path: Path):
    path = split_bag(tmp_path / "bag", parts=3, each=4)
    (path / "bag_1.mcap").unlink()
    damage = Damage()
    assert stamps(path, damage) == [frame.stamp_ns for frame in (*frames(4), *frames(4, first=8))]
    assert damage.count(MISSING_FILE) == 1


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_bag_that_was_cut_short_gives_its_beginning(tmp_path: Path, storage: str, share: float):
    path = whole_bag(tmp_path / "bag", count=60, storage=storage)
    file = storage_file(path)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    damage = Damage()
    found = stamps(path, damage)
    expected = [frame.stamp_ns for frame in frames(60)]
    assert found == expected[: len(found)]
    assert len(found) > 60 * (share - 0.25)
    assert damage


def test_an_empty_or_foreign_file_is_counted_and_a_bag_without_any_is_refused(tmp_path: Path):
    path = whole_bag(tmp_path / "bag")
    storage_file(path).write_bytes(b"")
    damage = Damage()
    assert stamps(path, damage) == []
    assert damage.count(CUT_SHORT) == 1
    with pytest.raises(BagError, match="does not exist"):
        RecoveredBag(tmp_path / "none", damage)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match=r"holds no .mcap or .db3"):
        RecoveredBag(tmp_path / "empty", damage)
    (tmp_path / "notes.txt").write_text("hello")
    bag = RecoveredBag(tmp_path / "notes.txt", damage)
    with pytest.raises(BagError, match="no topic with images; it has no topics at all"):
        bag.image_topics()


def test_a_chunk_with_a_wrong_checksum_is_left_out(tmp_path: Path):
    path = compressed_bag(tmp_path / "bag", "storage", count=40)
    file = storage_file(path)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0xFF
    file.write_bytes(data)
    damage = Damage()
    found = stamps(path, damage)
    assert damage.count(BROKEN_PART) + damage.count(CUT_SHORT) >= 1
    assert set(found) <= {frame.stamp_ns for frame in frames(40)}


def test_damage_in_the_middle_of_a_database_is_passed_over(tmp_path: Path):
    path = whole_bag(tmp_path / "bag", count=200, storage="sqlite3")
    file = storage_file(path)
    with sqlite3.connect(file) as database:
        (page_size,) = database.execute("PRAGMA page_size").fetchone()
    data = bytearray(file.read_bytes())
    middle = len(data) // page_size // 2 * page_size
    data[middle : middle + 3 * page_size] = bytes(3 * page_size)
    file.write_bytes(data)
    damage = Damage()
    found = stamps(path, damage)
    expected = [frame.stamp_ns for frame in frames(200)]
    assert 100 < len(found) < 200
    assert found[0] == expected[0]
    assert found[-1] == expected[-1]
    assert damage.count(CUT_SHORT) == 1


def test_messages_that_cannot_be_read_are_counted(tmp_path: Path):
    text = bags.TYPES.types["std_msgs/msg/String"](data="hello")
    good = [("/camera/image", index, bags.image(index + 1, bags.picture(index))) for index in range(3)]
    path = foreign_bag(tmp_path / "bag", [*good, ("/chatter", 9, text)])
    metadata = path / "metadata.yaml"
    # A topic whose type is not what it says: its bytes lead nowhere.
    metadata.write_text(metadata.read_text().replace("std_msgs/msg/String", "sensor_msgs/msg/Image"))
    damage = Damage()
    bag = RecoveredBag(path, damage)
    assert bag.image_topics() == ["/camera/image", "/chatter"]
    assert len(list(bag.decoded(["/camera/image", "/chatter"]))) == 3
    assert damage.count(UNKNOWN_MESSAGE) == 1
    assert "/chatter at 9 ns" in damage.words()


def test_topics_are_found_and_missing_ones_named(tmp_path: Path):
    picture, label = bags.picture(1), bags.truth(1)
    stream = [
        ("/front/image_raw", 1, bags.image(1, picture)),
        ("/front/image_raw/compressed", 1, bags.jpeg(1, b"")),
        ("/rear/image/compressed", 1, bags.jpeg(1, b"")),
        ("/front/mask", 1, bags.image(1, label)),
        ("/front/label", 1, bags.image(1, label)),
    ]
    bag = RecoveredBag(foreign_bag(tmp_path / "bag", stream), Damage())
    assert bag.image_topics() == ["/front/image_raw", "/rear/image/compressed"], "raw before compressed, no masks"
    assert bag.image_topics(["/front/mask"]) == ["/front/mask"]
    with pytest.raises(BagError, match=r"no images on /front/image_ra .did you mean '/front/image_raw'"):
        bag.image_topics(["/front/image_ra"])
    assert bag.label_topics() == ["/front/label"]


def damaged(data: bytes, random_source: random.Random) -> bytes:
    """Bits flipped, bytes overwritten, cut short."""
    raw = bytearray(data)
    if random_source.random() < 0.4:
        raw = raw[: random_source.randrange(len(raw))]
    for _ in range(random_source.randrange(1, 12)):
        if raw:
            # Beginning and end hold what decides how the rest is read.
            ranges = [(0, len(raw)), (0, min(4096, len(raw))), (max(0, len(raw) - 2500), len(raw))]
            place = random_source.randrange(*random_source.choice(ranges))
            raw[place] = raw[place] ^ (1 << random_source.randrange(8)) if random_source.random() < 0.5 else 0xFF
    return bytes(raw)


def fuzz(tmp_path: Path, cases: range) -> int:
    """Read damaged bags; returns how many gave frames. Each is read in a moment, or refused in one line."""
    originals = {}
    for storage in STORAGES:
        originals[storage] = whole_bag(tmp_path / storage, count=12, storage=storage, jpeg=True)
    originals["storage"] = compressed_bag(tmp_path / "storage", "storage")
    originals["message"] = compressed_bag(tmp_path / "message", "message", storage="sqlite3")
    read = 0
    for case in cases:
        source = random.Random(case)
        kind = source.choice(sorted(originals))
        file, target = storage_file(originals[kind]), tmp_path / "case"
        target.mkdir(exist_ok=True)
        for old in target.iterdir():
            old.unlink()
        (target / file.name).write_bytes(damaged(file.read_bytes(), source))
        metadata = (originals[kind] / "metadata.yaml").read_bytes()
        if source.random() < 0.7:
            (target / "metadata.yaml").write_bytes(damaged(metadata, source) if source.random() < 0.5 else metadata)
        read += one_case(target)
    return read


def one_case(path: Path) -> bool:
    start = time.process_time()
    damage = Damage()
    try:
        bag = RecoveredBag(path, damage)
        found = sum(1 for _ in bag.decoded([*bag.image_topics(), *bag.label_topics()]))
    except BagError as error:
        assert "\n" not in str(error)  # noqa: PT017
        found = 0
    assert "\n" not in damage.words()
    assert time.process_time() - start < 20.0
    return found > 0


def test_no_damage_crashes_the_reader(tmp_path: Path):
    assert fuzz(tmp_path, range(60)) > 20


@pytest.mark.slow
def test_five_hundred_kinds_of_damage(tmp_path: Path):
    assert fuzz(tmp_path, range(1000, 1500)) > 200
