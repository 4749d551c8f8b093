"""When training waits for the masks, and that a real worker does."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from adaptation_fixtures import (
    TRAINING,
    environment,
    fill_pool,
    make_registry,
    round_spec,
    wait_until,
    worker_command,
)

from ssada_core.adaptation.round import PROGRESS_FILE, write_round
from ssada_core.adaptation.sharing import (
    PAUSE_FILE,
    STALE_S,
    Patience,
    PauseRule,
    Seen,
    SharingSettings,
    tell,
    told,
    too_hot,
)
from ssada_core.errors import StoreError
from ssada_core.learning.progress import read_progress

BOUND = SharingSettings(max_latency_ms=100, resume_share=0.8, least_pause_s=3)


def test_it_pauses_at_once_and_resumes_when_it_has_been_calm_for_long_enough():
    rule = PauseRule(BOUND)
    assert rule.update(Seen(99), 0.0) == ""
    assert rule.update(Seen(101), 1.0) == "masks take 101 ms (p99), the bound is 100"
    assert rule.update(Seen(50), 2.0), "paused for less than 3 s"
    assert rule.update(Seen(90), 5.0), "above 80 % of the bound"
    assert rule.update(Seen(80), 6.0) == ""
    assert rule.update(Seen(99), 7.0) == ""


def test_without_news_a_pause_ends_and_without_a_bound_there_is_none():
    rule = PauseRule(BOUND)
    assert rule.update(Seen(500), 0.0)
    assert rule.update(Seen(0), 4.0) == ""
    assert PauseRule(SharingSettings()).update(Seen(10_000), 0.0) == ""


def test_heat_pauses_whatever_the_latency():
    assert PauseRule(BOUND).update(Seen(10, "cpu at 99 °C"), 0.0) == "too hot: cpu at 99 °C"
    assert PauseRule(SharingSettings()).update(Seen(0, "cpu at 99 °C"), 0.0) == "too hot: cpu at 99 °C"
    assert PauseRule(SharingSettings(thermal=False)).update(Seen(0, "cpu at 99 °C"), 0.0) == ""


@pytest.mark.parametrize(
    ("kind", "limit", "degrees", "hot"),
    [
        ("passive", 95000, 96500, "soc at 96 °C (limit 95)"),
        ("passive", 95000, 94000, ""),
        ("active", 50000, 96500, ""),
        ("critical", 0, 40000, ""),
    ],
)
def test_the_board_is_hot_above_a_trip_point_that_slows_it_down(tmp_path: Path, kind, limit, degrees, hot):
    zone = tmp_path / "thermal_zone3"
    zone.mkdir()
    for name, value in (("type", "soc"), ("temp", degrees), ("trip_point_0_type", kind), ("trip_point_0_temp", limit)):
        (zone / name).write_text(f"{value}\n")
    assert too_hot(tmp_path) == hot
    (zone / "temp").unlink()
    assert too_hot(tmp_path) == ""
    assert too_hot(tmp_path / "none") == ""


def test_word_that_is_too_old_says_nothing(tmp_path: Path):
    assert told(tmp_path) == ""
    tell(tmp_path, "the masks are slow")
    assert told(tmp_path) == "the masks are slow"
    old = time.time() - STALE_S - 1
    os.utime(tmp_path / PAUSE_FILE, (old, old))
    assert told(tmp_path) == ""
    tell(tmp_path, "")
    tell(tmp_path, "")
    assert not (tmp_path / PAUSE_FILE).exists()


def test_a_disk_that_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tell(tmp_path, "hot")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreError, match=r"cannot delete .*pause"):
        tell(tmp_path, "")


def test_patience_waits_and_still_hears_that_it_should_stop(tmp_path: Path):
    stop, beats = threading.Event(), []
    patience = Patience(tmp_path, stop.is_set, lambda: beats.append(1))
    assert patience() is False
    tell(tmp_path, "wait")
    threading.Timer(0.5, stop.set).start()
    start = time.monotonic()
    assert patience() is True
    assert 0.4 < time.monotonic() - start < 5
    assert beats, "nobody may take a waiting worker for hung"
    stop.clear()
    threading.Timer(0.5, tell, (tmp_path, "")).start()
    assert patience() is False


def test_a_real_worker_waits_goes_on_and_ends_while_it_waits(tmp_path: Path):
    make_registry(tmp_path / "registry")
    fill_pool(tmp_path / "pool")
    rounds = tmp_path / "rounds"
    run_dir = rounds / "0001"
    write_round(run_dir, round_spec(tmp_path, training=TRAINING.model_copy(update={"iterations": 100_000})))

    def steps() -> int:
        return len(read_progress(run_dir / PROGRESS_FILE)) if (run_dir / PROGRESS_FILE).exists() else 0

    process = subprocess.Popen(worker_command(run_dir), env=environment())
    try:
        wait_until(lambda: steps() >= 2, "the first steps")
        stop = threading.Event()
        teller = threading.Thread(target=lambda: [tell(rounds, "slow") for _ in iter(lambda: stop.wait(0.2), True)])
        teller.start()
        time.sleep(2.0)  # the step at hand ends
        waiting = steps()
        time.sleep(1.5)
        assert steps() == waiting
        stop.set()
        teller.join()
        tell(rounds, "")
        wait_until(lambda: steps() > waiting, "it goes on")
        tell(rounds, "slow")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 3
    finally:
        process.kill()
        process.wait()
