"""Nothing goes for its age by a clock that has leapt ahead, and nothing stays for ever because it might have."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from ssada_core.labels import CAMVID
from ssada_core.store.pool import Choice, FramePool, PoolSettings

DAY, HOUR = 86_400 * 10**9, 3_600 * 10**9
LIMITED = PoolSettings(keep_free_share=0.0, retention_days=30.0, rate=1000.0)


class Clocks:
    """Wall clock and the clock that nobody sets, as they would go on a vehicle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wall, steady = time.time_ns, time.monotonic
        self._wall = self._steady = 0
        monkeypatch.setattr(time, "time_ns", lambda: wall() + self._wall)
        monkeypatch.setattr(time, "monotonic", lambda: steady() + self._steady / 1e9)

    def leap(self, by: int) -> None:
        """Somebody sets the wall clock, or the vehicle stood: no process can tell."""
        self._wall += by

    def run(self, by: int) -> None:
        """Time that passes while a process runs."""
        self._wall += by
        self._steady += by


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def open_pool(root: Path) -> FramePool:
    return FramePool(root, LIMITED, label_space=CAMVID)


_seed = iter(range(10**6))


def store(pool: FramePool) -> int:
    number = next(_seed)
    image = np.repeat(np.repeat(np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8), 8, 0), 8, 1)
    record = pool.add(image, camera="front", stamp_ns=number * 10**9).record
    assert record is not None
    return record.id


def label(pool: FramePool) -> int:
    number = store(pool)
    (record,) = pool.query([Choice(number, 0.0, False, "")])
    pool.accept_label(str(record.query_id), np.zeros(record.size, np.uint8), "Ada")
    return number


def there(pool: FramePool) -> list[int]:
    return [record.id for record in pool.frames()]


def test_no_label_goes_when_the_clock_of_a_running_node_leaps(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    """One frame after the leap was enough to take the leap for true, and every label for too old."""
    with open_pool(tmp_path) as pool:
        first = label(pool)
        clocks.leap(60 * DAY)
        new = store(pool)
        assert pool.expire() == 0
        assert there(pool) == [first, new]
        assert "the clock leapt ahead and 1 frames look older than retention_days" in caplog.text
        assert "ssada pool purge" in caplog.text
        for _ in range(23):
            clocks.run(HOUR)
            store(pool)  # looks by itself every hour
        assert first in there(pool)
        clocks.leap(-60 * DAY)
        assert pool.expire() == 0
        for _ in range(48):
            clocks.run(HOUR)
            assert pool.expire() == 0
        assert first in there(pool), "it was set right again"


def test_a_leap_that_holds_for_a_day_is_believed(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    with open_pool(tmp_path) as pool:
        first = label(pool)
        clocks.leap(60 * DAY)
        second = label(pool)
        for _ in range(25):
            clocks.run(HOUR)
            pool.expire()
        assert there(pool) == [second]
        assert pool.verify() == []
        assert "1 frames are older than retention_days and purged" in caplog.text
        assert first not in there(pool)


def test_a_clock_that_leaps_again_and_again_is_never_believed(tmp_path: Path, clocks: Clocks) -> None:
    with open_pool(tmp_path) as pool:
        first = label(pool)
        for _ in range(20):
            clocks.leap(40 * DAY)
            clocks.run(HOUR)
            pool.expire()
        assert there(pool) == [first]


def test_a_vehicle_that_stood_for_long_warns_for_a_day_and_keeps_no_face_for_ever(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    with open_pool(tmp_path) as pool:
        first = label(pool)
    clocks.leap(40 * DAY)
    with open_pool(tmp_path) as pool:
        new = store(pool)
        assert "look older than retention_days" in caplog.text
        clocks.run(5 * HOUR)
        pool.expire()
        assert there(pool) == [first, new]
    clocks.leap(20 * HOUR)  # overnight
    with open_pool(tmp_path) as pool:
        assert there(pool) == [new]


def test_a_vehicle_that_is_used_once_a_week_keeps_a_frame_for_one_visit_longer(tmp_path: Path, clocks: Clocks) -> None:
    visits: dict[int, int] = {}
    for visit in range(9):
        with open_pool(tmp_path) as pool:
            visits[label(pool)] = visit
            clocks.run(2 * HOUR)
            pool.expire()
            oldest = visits[there(pool)[0]]
        clocks.leap(7 * DAY)
        assert oldest == max(0, visit - 5), "30 days are more than 4 weeks, and a week until the clock is believed"


def test_on_days_like_any_other_frames_go_at_the_hour(tmp_path: Path, clocks: Clocks) -> None:
    with open_pool(tmp_path) as pool:
        first = label(pool)
        clocks.run(HOUR)
        second = label(pool)
    for _ in range(29):
        clocks.leap(16 * HOUR)  # at night it is off
        with open_pool(tmp_path):
            clocks.run(8 * HOUR)
    clocks.leap(22 * HOUR + HOUR // 2)
    with open_pool(tmp_path) as pool:
        assert there(pool) == [first, second]
        clocks.run(HOUR)
        pool.expire()
        assert there(pool) == [second]


def test_a_process_that_stores_nothing_for_days_has_seen_the_time_pass(tmp_path: Path, clocks: Clocks) -> None:
    with open_pool(tmp_path) as pool:
        first = label(pool)
        clocks.run(20 * DAY)
        second = label(pool)
        clocks.run(20 * DAY)
        assert pool.expire() == 1
        assert there(pool) == [second] != [first]


def test_a_clock_that_was_never_set_says_nothing(tmp_path: Path, clocks: Clocks) -> None:
    with open_pool(tmp_path) as pool:
        first = label(pool)
        clocks.run(29 * DAY)
        second = label(pool)
        assert pool.expire() == 0
    now = time.time_ns()
    clocks.leap(-now)  # a board without a battery begins in 1970
    with open_pool(tmp_path) as pool:
        early = store(pool)
        assert there(pool) == [first, second, early]
    clocks.leap(now + 25 * HOUR)
    with open_pool(tmp_path) as pool:
        assert there(pool) == [second, early]


def test_a_clock_that_is_set_back_a_little_every_hour_is_believed_all_the_same(tmp_path: Path, clocks: Clocks) -> None:
    with open_pool(tmp_path) as pool:
        label(pool)
    clocks.leap(40 * DAY)
    with open_pool(tmp_path) as pool:
        for _ in range(26):
            clocks.run(HOUR)
            pool.expire()
            clocks.leap(-60 * 10**9)
            pool.expire()
        assert there(pool) == []


def test_a_limit_that_is_new_counts_the_frames_of_before(tmp_path: Path, clocks: Clocks) -> None:
    with FramePool(tmp_path, LIMITED.model_copy(update={"retention_days": 0.0}), label_space=CAMVID) as pool:
        label(pool)
        for _ in range(40):
            clocks.run(DAY)
            last = store(pool)
    with open_pool(tmp_path) as pool:
        assert there(pool) == list(range(last - 29, last + 1))
