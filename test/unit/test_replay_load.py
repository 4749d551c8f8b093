"""Long drives and damaged ones: flat memory, no crash, no hang."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bag_fixtures as bags
import numpy as np
import psutil
import pytest
from adaptation_fixtures import ENGINE
from bag_fixtures import frames, storage_file, whole_bag
from replay_fixtures import models, settings
from test_bag_recovery import damaged

from ssada_core.data.bag_recovery import RecoveredBag
from ssada_core.data.bags import BagFrame, write_bag
from ssada_core.data.damage import Damage
from ssada_core.errors import BagError
from ssada_core.labels import CAMVID
from ssada_core.replay.ahead import ahead
from ssada_core.replay.driver import DirectDriver
from ssada_core.replay.models import find_models, load
from ssada_core.replay.outputs import FramesTable
from ssada_core.replay.recording import Recording
from ssada_core.replay.session import Pass, play
from ssada_core.replay.settings import RecordingSettings, TruthSettings

MEGABYTE = 2**20


def played(path: Path, driver: DirectDriver, table: Path, on_frame=None) -> tuple[Pass, Damage]:
    damage = Damage()
    recording = Recording(RecoveredBag(path, damage), CAMVID, RecordingSettings(), TruthSettings())
    writer = FramesTable(table)
    try:
        return play(recording, driver, CAMVID, settings(), table=writer, on_frame=on_frame), damage
    finally:
        writer.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory):
    (model,) = find_models(models(tmp_path_factory.mktemp("registry")))
    opened = DirectDriver(["m"], [load(model, model.folder, ENGINE, lambda _: None)])
    yield opened
    opened.close()


def memory_of(tmp_path: Path, driver: DirectDriver, items: Iterator[BagFrame], marks: tuple[int, int]) -> float:
    """Megabytes that the process grows between two frames of a drive."""
    count = write_bag(tmp_path / "bag", items, compressed=False)
    seen = {}

    def on_frame(done: int, _: int) -> None:
        if done in marks:
            seen[done] = psutil.Process().memory_info().rss

    done, damage = played(tmp_path / "bag", driver, tmp_path / "frames.csv", on_frame)
    assert (done.frames, bool(damage)) == (count, False)
    return (seen[marks[1]] - seen[marks[0]]) / MEGABYTE


def test_memory_hardly_grows(tmp_path: Path, driver: DirectDriver):
    def large() -> Iterator[BagFrame]:
        for index in range(240):
            image = np.full((240, 320, 3), index, np.uint8)
            yield BagFrame(bags.FIRST_NS + index * bags.SECOND, "front", image, None, image[:, :, 0] % 11)

    grown = memory_of(tmp_path, driver, large(), (90, 240))
    assert grown < 20, "150 of these frames with their labels are 46 MB"


@pytest.mark.slow
def test_memory_stays_flat_on_a_drive_of_20000_frames(tmp_path: Path, driver: DirectDriver):
    items = (frames(1, first=index)[0] for index in range(20_000))
    assert memory_of(tmp_path, driver, items, (2_000, 20_000)) < 30, "18 000 of these frames are 55 MB"


def replay_damaged(tmp_path: Path, driver: DirectDriver, cases: range) -> int:
    """Whole passes over damaged bags; returns how many gave frames."""
    originals = [whole_bag(tmp_path / name, 8, storage=name, jpeg=True) for name in bags.STORAGES]
    good = 0
    for case in cases:
        source = random.Random(case)
        original = source.choice(originals)
        target = tmp_path / f"case{case}"
        target.mkdir()
        file = storage_file(original)
        (target / file.name).write_bytes(damaged(file.read_bytes(), source))
        if source.random() < 0.8:
            (target / "metadata.yaml").write_bytes((original / "metadata.yaml").read_bytes())
        start = time.process_time()
        try:
            done, damage = played(target, driver, tmp_path / "frames.csv")
        except BagError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            good += 1
            assert done.frames == 8 or damage, "what is missing is said"
        assert time.process_time() - start < 20
    return good


def test_damaged_bags_are_replayed_or_refused(tmp_path: Path, driver: DirectDriver):
    assert replay_damaged(tmp_path, driver, range(40)) > 10


@pytest.mark.slow
def test_five_hundred_damaged_bags_are_replayed_or_refused(tmp_path: Path, driver: DirectDriver):
    assert replay_damaged(tmp_path, driver, range(5000, 5500)) > 150


def test_reading_ahead_keeps_order_and_errors_and_ends():
    def items():
        yield from range(20)
        raise BagError("broken at 20")

    found = []
    with pytest.raises(BagError, match="broken at 20"), ahead(items()) as taken:
        found.extend(taken)
    assert found == list(range(20))
    with ahead(iter(range(10**9)), 2) as taken:
        assert next(taken) == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]
    with ahead(iter(())) as taken:
        assert list(taken) == []
