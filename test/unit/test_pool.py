from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssada_core.errors import DataError, EncodingError, LabelError, StoreError
from ssada_core.labels import CAMVID
from ssada_core.store.files import write_atomic
from ssada_core.store.pool import Added, Choice, FramePool, FrameScores, PoolSettings
from ssada_core.store.pool_filters import RateLimiter, ThumbnailIndex, thumbnail
from ssada_core.store.pool_samples import audit_samples, training_samples

SECOND = 10**9
FREE = PoolSettings(keep_free_share=0.0)
SIZE = (48, 64)


def scene(seed: int) -> np.ndarray:
    """A frame that resembles no other: coarse random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(blocks, SIZE[::-1], interpolation=cv2.INTER_NEAREST)


def label_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 11, SIZE, dtype=np.uint8)


def open_pool(root: Path, **changes: object) -> FramePool:
    return FramePool(root, FREE.model_copy(update=changes), label_space=CAMVID)


def fill(pool: FramePool, count: int, *, start: int = 0, camera: str = "front") -> list[Added]:
    return [pool.add(scene(index), camera=camera, stamp_ns=index * SECOND) for index in range(start, start + count)]


def ask(pool: FramePool, *, audit: bool = False) -> str:
    frame = pool.frames(states=["buffered"])[0]
    (record,) = pool.query([Choice(frame.id, 0.5, audit, "because")])
    assert record.query_id is not None
    return record.query_id


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FramePool]:
    with open_pool(tmp_path / "pool") as opened:
        yield opened
        assert opened.verify() == []


def test_labels_are_not_deleted_for_a_database_that_never_knew_a_frame(tmp_path: Path) -> None:
    """pool.sqlite was damaged and moved aside: the new one knew nothing, and every label was taken for an orphan."""
    root = tmp_path / "pool"
    with open_pool(root) as pool:
        fill(pool, 2)
        pool.accept_label(ask(pool), label_of(1), "ann")
    for file in root.glob("pool.sqlite*"):
        file.rename(tmp_path / file.name)
    with pytest.raises(StoreError, match=r"has no pool\.sqlite, but holds 3 files of a pool .*: put their own"):
        open_pool(root)
    for file in root.glob("pool.sqlite*"):
        file.unlink()
    for file in tmp_path.glob("pool.sqlite*"):
        file.rename(root / file.name)
    with open_pool(root) as pool:
        assert pool.count(states=["labelled"]) == 1
        assert pool.verify() == []


# What is stored


def test_a_frame_is_stored_with_what_is_known_of_it(tmp_path: Path) -> None:
    with open_pool(tmp_path, vehicle="bus 7") as pool:
        added = pool.add(scene(1), camera="front", stamp_ns=123)
        record = added.record
        assert record is not None
        assert added.reason == "stored"
        assert (record.camera, record.stamp_ns, record.vehicle, record.size, record.state) == (
            "front",
            123,
            "bus 7",
            SIZE,
            "buffered",
        )
        assert np.abs(pool.image(record).astype(int) - scene(1)).mean() < 8  # JPEG of hard blocks
        assert (record.query_id, record.audit, record.batch, record.label_file) == (None, False, None, None)


def test_the_cameras_own_jpeg_bytes_are_kept(pool: FramePool) -> None:
    jpeg = cv2.imencode(".jpg", scene(1), [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes()
    record = pool.add(None, jpeg=jpeg, camera="front", stamp_ns=0).record
    assert record is not None
    assert pool.image_bytes(record) == jpeg
    assert record.size == SIZE


def test_what_is_no_frame_is_an_error(pool: FramePool) -> None:
    with pytest.raises(DataError, match="pass one"):
        pool.add(None, camera="a", stamp_ns=0)
    with pytest.raises(DataError, match="uint8 HxWx3"):
        pool.add(np.zeros((4, 4), np.uint8), camera="b", stamp_ns=0)
    with pytest.raises(EncodingError, match="not JPEG"):
        pool.add(None, jpeg=b"\x89PNG....", camera="c", stamp_ns=0)
    assert pool.frames() == []


def test_rate_holds_on_average_and_per_camera(pool: FramePool) -> None:
    reasons = Counter()
    for index in range(50):  # 5 Hz for 10 s
        for camera in ("left", "right"):
            reasons[camera, pool.add(scene(index), camera=camera, stamp_ns=index * SECOND // 5).reason] += 1
    assert reasons["left", "stored"] == reasons["right", "stored"] == 10


def test_rate_survives_jitter_and_any_clock() -> None:
    jitter = np.random.default_rng(0).integers(-30_000_000, 30_000_000, 100)
    limiter = RateLimiter(1.0)
    assert sum(limiter.admit(int(index * SECOND + jitter[index])) for index in range(100)) == 100
    limiter = RateLimiter(1.0)  # 7 Hz never gives exact seconds
    assert sum(limiter.admit(index * SECOND // 7) for index in range(700)) == pytest.approx(100, abs=1)
    limiter = RateLimiter(1.0)
    assert limiter.admit(1_000_000 * SECOND)
    assert limiter.admit(5 * SECOND)  # the clock was set back
    assert not limiter.admit(5 * SECOND + 1)
    assert limiter.admit(6 * SECOND)
    assert limiter.admit(2_000_000 * SECOND)  # and forward
    assert not limiter.admit(2_000_000 * SECOND + 1)


def test_standstill_and_copies_are_not_stored(pool: FramePool) -> None:
    noise = np.random.default_rng(0).normal(0, 5, scene(0).shape)
    again = np.clip(scene(1) + noise, 0, 255).astype(np.uint8)
    reasons = [
        pool.add(image, camera="front", stamp_ns=index * SECOND).reason
        for index, image in enumerate([scene(0), scene(1), again, scene(0), scene(2)])
    ]
    assert reasons == ["stored", "stored", "standstill", "duplicate", "stored"]
    assert pool.add(scene(0), camera="rear", stamp_ns=0).reason == "stored"


def test_copies_are_known_after_reopening_and_across_processes(tmp_path: Path) -> None:
    with open_pool(tmp_path) as first, open_pool(tmp_path) as second:
        fill(first, 3)
        assert second.add(scene(1), camera="front", stamp_ns=50 * SECOND).reason == "duplicate"
        second.add(scene(9), camera="front", stamp_ns=51 * SECOND)
        assert first.add(scene(9), camera="front", stamp_ns=52 * SECOND).reason == "standstill"
        first.purge([record.id for record in first.frames()])
        assert second.add(scene(1), camera="front", stamp_ns=53 * SECOND).reason == "stored"
    with open_pool(tmp_path) as third:
        assert third.add(scene(1), camera="front", stamp_ns=0).reason == "standstill"


def test_the_index_is_fast_and_right_at_10000_frames() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 255, (10_000, 192), dtype=np.uint8)
    index = ThumbnailIndex()
    for number, row in enumerate(rows, start=1):
        index.append(number, row)
    wanted = np.clip(rows[4321].astype(int) + 1, 0, 255).astype(np.uint8)
    best = min(_timed(lambda: index.closest(wanted)) for _ in range(10))
    assert best < 0.005
    found = index.closest(wanted)
    difference = np.abs(rows.astype(int) - wanted).mean(1)
    assert found == (int(difference.argmin()) + 1, pytest.approx(difference.min()))
    index.remove(range(4000, 9000))
    found = index.closest(wanted)
    difference[3999:8999] = np.inf
    assert found == (int(difference.argmin()) + 1, pytest.approx(difference.min()))
    index.remove(range(1, 10_001))
    assert index.closest(wanted) is None


def _timed(call: object) -> float:
    start = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - start


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "stored"), [("dusk_pool", 62), ("tune_pool", 51)])
def test_a_real_drive_passes_once(tmp_path: Path, camvid: Path, name: str, stored: int) -> None:
    frames = [camvid / line.split()[0] for line in (camvid / f"{name}.txt").read_text().splitlines()]
    reasons: list[Counter[str]] = [Counter(), Counter()]
    with open_pool(tmp_path) as pool:
        for lap in range(2):
            for index, path in enumerate(frames):
                stamp = (lap * 1000 + index) * SECOND
                reasons[lap][pool.add(None, jpeg=path.read_bytes(), camera="front", stamp_ns=stamp).reason] += 1
    assert reasons[0] == {"stored": stored}
    assert reasons[1]["stored"] == 0
    assert reasons[1].total() == stored


# Bounds


def test_eviction_takes_the_oldest_buffered_frames_only(tmp_path: Path) -> None:
    with open_pool(tmp_path, max_frames=4) as pool:
        fill(pool, 3)
        query_id = ask(pool)
        fill(pool, 5, start=3)
        assert [record.id for record in pool.frames()] == [1, 6, 7, 8]
        assert pool.by_query(query_id).state == "queried"
        assert pool.verify() == []
        assert pool.add(scene(2), camera="front", stamp_ns=99 * SECOND).reason == "stored"  # evicted, so new again


def test_bytes_are_bounded(tmp_path: Path) -> None:
    size = len(cv2.imencode(".jpg", scene(0), [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
    with open_pool(tmp_path, max_bytes=4 * size) as pool:
        assert {added.reason for added in fill(pool, 12)} == {"stored"}
        on_disk = sum(path.stat().st_size for path in (tmp_path / "images").rglob("*.jpg"))
        assert on_disk == pool.stats().image_bytes <= 4 * size
        assert len(pool.frames()) >= 3


def test_a_pool_full_of_queries_says_so_and_keeps_them(tmp_path: Path) -> None:
    with open_pool(tmp_path, max_frames=2) as pool:
        fill(pool, 2)
        pool.query([Choice(record.id, 0.0, False, "") for record in pool.frames()])
        assert pool.add(scene(5), camera="front", stamp_ns=50 * SECOND) == Added(None, "full")
        assert len(pool.frames(states=["queried"])) == 2


def test_old_frames_go_but_not_because_the_clock_was_unset(tmp_path: Path) -> None:
    with open_pool(tmp_path, max_age_days=30) as pool:
        fill(pool, 4)
        query_id = ask(pool)
        with sqlite3.connect(tmp_path / "pool.sqlite") as raw:
            old = time.time_ns() - 31 * 86_400 * SECOND
            raw.execute("UPDATE frames SET stored_at=? WHERE id IN (1, 2)", (old,))
            raw.execute("UPDATE frames SET stored_at=? WHERE id=3", (5 * SECOND,))  # 1970
        fill(pool, 1, start=4)
        assert [record.id for record in pool.frames()] == [1, 3, 4, 5]
        assert pool.by_query(query_id).state == "queried"


def test_when_others_fill_the_disk_nothing_is_stored_and_nothing_lost(tmp_path: Path) -> None:
    with open_pool(tmp_path) as pool:
        fill(pool, 2)
    with open_pool(tmp_path, keep_free_share=0.999999) as pool:
        assert pool.add(scene(5), camera="front", stamp_ns=50 * SECOND) == Added(None, "disk")
        assert len(pool.frames()) == 2


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A real file system of 1 MB, or of the size that is asked for."""
    size = getattr(request, "param", "1m")
    mount = tmp_path / "disk"
    mount.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no mount command")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def noisy(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (120, 160, 3), dtype=np.uint8) // 4 + cv2.resize(
        scene(seed) // 2, (160, 120), interpolation=cv2.INTER_NEAREST
    )


def answer_everything(pool: FramePool) -> None:
    label = np.random.default_rng(0).integers(0, 11, (120, 160), dtype=np.uint8)
    for record in pool.query([Choice(record.id, 0.0, False, "") for record in pool.frames()]):
        pool.accept_label(str(record.query_id), label, "me")


def test_a_really_full_disk(small_disk: Path) -> None:
    with open_pool(small_disk / "pool") as pool:
        reasons = [pool.add(noisy(index), camera="front", stamp_ns=index * SECOND).reason for index in range(150)]
        assert reasons[0] == "stored"
        (small_disk / "ballast").write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - 4096)))
        with pytest.raises(StoreError, match="disk is full") as caught:
            answer_everything(pool)
        assert "\n" not in str(caught.value)
        assert set(reasons) <= {"stored", "disk"}
        (small_disk / "ballast").unlink()
        assert not list(small_disk.rglob("*.tmp"))
        assert not list(small_disk.rglob("*.entering"))
    with open_pool(small_disk / "pool") as pool:
        assert pool.verify() == []


def test_a_full_disk_does_not_end_the_hourly_look_for_what_is_too_old(small_disk: Path) -> None:
    with open_pool(small_disk / "pool", retention_days=30.0) as pool:
        fill(pool, 2)
        with (small_disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        for _ in range(50):  # each adds to the log, for which there is no room
            assert pool.expire() == 0
        (small_disk / "ballast").unlink()
        assert pool.expire() == 0


@pytest.mark.parametrize("small_disk", ["16m"], indirect=True)
def test_frames_make_room_on_a_small_disk(small_disk: Path) -> None:
    """60 frames of 0.15 MB and SQLite's journal (4 MB at most) do not fit into 40 % of 16 MB."""
    with open_pool(small_disk / "pool", keep_free_share=0.6) as pool:
        for index in range(60):
            frame = cv2.resize(noisy(index), (480, 360), interpolation=cv2.INTER_NEAREST)
            assert pool.add(frame, camera="front", stamp_ns=index * SECOND).reason == "stored"
        usage = shutil.disk_usage(small_disk)
        assert usage.free >= 0.55 * usage.total
        kept = [record.id for record in pool.frames()]
        assert kept == list(range(61 - len(kept), 61))
        assert 5 < len(kept) < 60
        assert pool.verify() == []


# Questions and answers


def test_a_batch_gets_ids_and_is_all_or_nothing(pool: FramePool) -> None:
    fill(pool, 4)
    records = pool.query([Choice(3, 0.9, False, "entropy"), Choice(1, 0.1, True, "random")])
    assert [record.query_id for record in records] == [f"{pool.pool_id}-000003", f"{pool.pool_id}-000001"]
    assert [(r.batch, r.score, r.audit, r.reason) for r in records] == [
        (1, 0.9, False, "entropy"),
        (1, 0.1, True, "random"),
    ]
    for wrong, words in ((3, "is queried"), (77, "not there")):
        with pytest.raises(StoreError, match=words):
            pool.query([Choice(2, 0.0, False, ""), Choice(wrong, 0.0, False, "")])
    with pytest.raises(StoreError, match="already in this batch"):
        pool.query([Choice(2, 0.0, False, ""), Choice(2, 0.0, False, "")])
    assert pool.get(2).state == "buffered"
    assert pool.query([Choice(2, 0.0, False, "")])[0].batch == 2
    assert [record.id for record in pool.frames(audit=True)] == [1]


def test_a_label_comes_back_and_a_correction_keeps_the_old_one(pool: FramePool) -> None:
    fill(pool, 1)
    query_id = ask(pool)
    record = pool.accept_label(query_id, label_of(1), "ann")
    assert (record.state, record.annotator) == ("labelled", "ann")
    assert np.array_equal(pool.label(record), label_of(1))
    pool.accept_label(query_id, label_of(1), "ann")  # the same again
    assert len(pool.label_history(query_id)) == 1
    pool.accept_label(query_id, label_of(2), "bob")
    assert np.array_equal(pool.label(record), label_of(2))  # also by the older record
    first, second = pool.label_history(query_id)
    assert (first.version, first.annotator, second.version, second.annotator) == (1, "ann", 2, "bob")
    assert np.array_equal(pool.read_label(first), label_of(1))
    assert (pool.root / f"labels/{query_id}.v1.png").is_file()


def test_held_labels_wait_and_never_displace_an_accepted_one(pool: FramePool) -> None:
    fill(pool, 2)
    query_id = ask(pool)
    record = pool.hold_label(query_id, label_of(1), "ann", "odd")
    assert (record.state, record.reason, pool.label(record)) == ("held", "odd", None)
    assert np.array_equal(pool.label(pool.accept_held(query_id, "chief")), label_of(1))
    assert pool.hold_label(query_id, label_of(2), "bob", "odd too").state == "labelled"
    assert np.array_equal(pool.label(record), label_of(1))
    with pytest.raises(StoreError, match="no held label"):
        pool.accept_held(ask(pool), "chief")


def test_wrong_answers_are_errors(pool: FramePool) -> None:
    fill(pool, 1)
    query_id = ask(pool)
    with pytest.raises(StoreError, match="no query 'abc-000001'"):
        pool.accept_label("abc-000001", label_of(1), "me")
    with pytest.raises(LabelError, match="48x64"):
        pool.accept_label(query_id, label_of(1)[:-1], "me")
    assert pool.by_query(query_id).state == "queried"


def test_skip_keeps_and_reject_deletes(pool: FramePool) -> None:
    fill(pool, 2)
    first, second = ask(pool), ask(pool)
    assert pool.skip(first, "too dark").state == "skipped"
    rejected = pool.reject(second, "a face")
    assert (rejected.state, rejected.reason) == ("rejected", "a face")
    assert not (pool.root / rejected.image_file).exists()
    with pytest.raises(StoreError, match="rejected"):
        pool.accept_label(second, label_of(1), "me")
    assert pool.add(scene(1), camera="front", stamp_ns=90 * SECOND).reason == "standstill"  # not asked again
    assert pool.accept_label(first, label_of(1), "me").state == "labelled"  # a change of mind
    with pytest.raises(StoreError, match="is labelled"):
        pool.skip(first, "no")


def test_purge_removes_everything_of_a_frame(pool: FramePool) -> None:
    fill(pool, 2)
    query_id = ask(pool)
    pool.set_prediction(1, label_of(3), label_of(4))
    record = pool.accept_label(query_id, label_of(1), "me")
    assert pool.purge([record.id, 999]) == 1
    assert [path.name for path in pool.root.rglob("*.*") if path.suffix in {".jpg", ".png"}] == ["000002.jpg"]
    assert pool.stats().label_versions == 0


def test_scores_and_predictions_come_back(pool: FramePool) -> None:
    fill(pool, 3)
    features = np.arange(4, dtype=np.float32)
    pool.set_scores(1, FrameScores("v0001", 0.25, 0.5, [1, 2, 3], features))
    pool.set_scores(2, FrameScores("v0001", 0.5, 0.5, [0, 0, 6]))
    pool.set_scores(2, FrameScores("v0002", 0.75, 0.5, [0, 0, 6]))
    pool.set_scores(99, FrameScores("v0002", 0.75, 0.5, [6]))  # evicted meanwhile
    found = pool.scores([3, 2, 1, 99])
    assert set(found) == {1, 2}
    assert (found[1].uncertainty, found[1].histogram) == (0.25, [1, 2, 3])
    assert found[1].features is not None
    assert np.array_equal(found[1].features, features)
    assert (found[2].model_version, found[2].features) == ("v0002", None)
    assert list(pool.scores(states=["buffered"])) == [1, 2]
    assert pool.get(2).model_version == "v0002"
    with pytest.raises(StoreError, match="not finite"):
        pool.set_scores(1, FrameScores("v0003", float("nan"), 0.5, []))
    pool.set_prediction(1, label_of(3), label_of(4))
    prediction = pool.prediction(pool.get(1))
    assert prediction is not None
    assert np.array_equal(prediction[0], label_of(3))
    assert np.array_equal(prediction[1], label_of(4))
    assert pool.prediction(pool.get(2)) is None


def test_frames_are_found_by_every_condition(pool: FramePool) -> None:
    fill(pool, 2, start=10)
    fill(pool, 2, start=5, camera="rear")
    assert [record.stamp_ns // SECOND for record in pool.frames()] == [5, 6, 10, 11]
    assert [record.id for record in pool.frames(camera="rear")] == [3, 4]
    assert [record.id for record in pool.frames(after_id=2)] == [3, 4]
    with pytest.raises(StoreError, match="did you mean 'queried'"):
        pool.frames(states=["querried"])  # type: ignore[list-item]


def test_audit_frames_are_never_trained_on(pool: FramePool) -> None:
    fill(pool, 5)
    audited, trained = ask(pool, audit=True), ask(pool)
    ask(pool, audit=True)
    pool.accept_label(audited, label_of(1), "me")
    pool.accept_label(trained, label_of(2), "me")
    labelled, unlabelled = training_samples(pool)
    assert [labelled.name(index) for index in range(len(labelled))] == [trained]
    assert np.array_equal(labelled.label(0), label_of(2))
    assert labelled.image(0).shape == (*SIZE, 3)
    assert [unlabelled.name(index) for index in range(len(unlabelled))] == ["frame-000004", "frame-000005"]
    assert unlabelled.label(0) is None
    assert [record.query_id for record in audit_samples(pool).records] == [audited]
    stats = pool.stats()
    assert (stats.audit_labelled, stats.audit_open, stats.counts["labelled"], stats.batches) == (1, 1, 2, 3)


# Opening


def test_opening_cleans_up_what_a_killed_process_left(tmp_path: Path) -> None:
    with open_pool(tmp_path) as pool:
        fill(pool, 3)
        query_id = ask(pool)
        pool.accept_label(query_id, label_of(1), "me")
    folder = tmp_path / "images/000"
    (folder / ".000004.jpg.0123abcd.tmp").write_bytes(b"half")
    (folder / "000004.jpg").write_bytes(b"never entered")
    (tmp_path / f"labels/{query_id}.v2.png").write_bytes(b"never entered")
    (tmp_path / f"labels/.{query_id}.v2.png.entering").touch()
    (folder / "000002.jpg").unlink()
    with open_pool(tmp_path) as pool:
        assert sorted(path.name for path in folder.iterdir()) == ["000001.jpg", "000003.jpg"]
        assert [path.name for path in (tmp_path / "labels").iterdir()] == [f"{query_id}.v1.png"]
        lost = pool.get(2)
        assert (lost.state, lost.reason) == ("rejected", "its image file was missing")
        assert pool.verify() == ["images/000/000002.jpg: missing, frame 2 is rejected until it is back or purged"]
        assert pool.purge([2]) == 1
        assert pool.verify() == []


def test_verify_finds_what_changed(tmp_path: Path) -> None:
    with open_pool(tmp_path) as pool:
        fill(pool, 2)
        record = pool.accept_label(ask(pool), label_of(1), "me")
        (tmp_path / str(record.label_file)).write_bytes(b"tampered")
        with (tmp_path / "images/000/000002.jpg").open("ab") as file:
            file.write(b"x")
        problems = pool.verify()
        assert len(problems) == 2
        assert any("its content has changed" in problem for problem in problems)
        assert any("000002.jpg" in problem for problem in problems)


def test_opening_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    with open_pool(tmp_path) as pool:
        pool_id = pool.pool_id
    with open_pool(tmp_path) as pool:
        assert pool.pool_id == pool_id
    other = replace(CAMVID, name="other", classes=CAMVID.classes[:5], colors=CAMVID.colors[:5], safety=())
    with pytest.raises(StoreError, match=r"label space 'camvid' \(11 classes\)"):
        FramePool(tmp_path, FREE, label_space=other)
    with sqlite3.connect(tmp_path / "pool.sqlite") as raw:
        raw.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="format 99"):
        open_pool(tmp_path)
    raw.close()
    for file in tmp_path.glob("pool.sqlite*"):
        file.unlink()
    (tmp_path / "pool.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="damaged"):
        open_pool(tmp_path)


def test_a_closed_pool_says_so(tmp_path: Path) -> None:
    pool = open_pool(tmp_path)
    pool.close()
    pool.close()
    with pytest.raises(StoreError, match="closed"):
        pool.frames()


def test_threads_share_a_pool(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(camera: str) -> None:
        try:
            for index in range(15):
                pool.add(scene(index), camera=camera, stamp_ns=index * SECOND)
                pool.stats()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    with open_pool(tmp_path) as pool, open_pool(tmp_path) as other:
        threads = [threading.Thread(target=work, args=(f"camera{index}",)) for index in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            other.frames()
        assert errors == []
        assert other.stats().cameras == {f"camera{index}": 15 for index in range(4)}
        assert pool.verify() == []


def test_thumbnails_do_not_depend_on_the_frames_size() -> None:
    large = cv2.resize(scene(3), (1280, 960), interpolation=cv2.INTER_NEAREST)
    assert np.abs(thumbnail(large).astype(int) - thumbnail(scene(3))).mean() < 3
    assert thumbnail(large).shape == (192,)


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    with open_pool(small_disk / "pool") as pool:
        fill(pool, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for root in ("pool", "another"):
        with pytest.raises(StoreError, match=r"read-only|write access") as caught:
            open_pool(small_disk / root)
        assert str(small_disk / root) in str(caught.value)
    with pytest.raises(StoreError, match=r"x\.bin: the disk is mounted read-only: remount it"):
        write_atomic(small_disk / "pool/x.bin", b"x")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    with open_pool(small_disk / "pool") as pool:
        assert len(pool.frames()) == 1


def test_an_accepted_label_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    """Seen from outside: file, folder and SQLite's log reach the disk after the label is written."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    program = (
        "import os, sys\n"
        "import numpy as np\n"
        "from ssada_core.labels import CAMVID\n"
        "from ssada_core.store.pool import Choice, FramePool, PoolSettings\n"
        "pool = FramePool(sys.argv[1], PoolSettings(keep_free_share=0.0), label_space=CAMVID)\n"
        "pool.add(np.zeros((48, 64, 3), np.uint8), camera='front', stamp_ns=0)\n"
        "(record,) = pool.query([Choice(1, 0.0, False, '')])\n"
        "os.write(1, b'before')\n"
        "pool.accept_label(record.query_id, np.zeros((48, 64), np.uint8), 'me')\n"
        "os.write(1, b'after')\n"
    )
    command = [
        "strace",
        "--seccomp-bpf",
        "-y",
        "-f",
        "-e",
        "trace=fsync,fdatasync,write",
        sys.executable,
        "-c",
        program,
    ]
    root = tmp_path / "pool"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([*command, str(root)], capture_output=True, text=True, check=False, env=environment)
    if "attach" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr[-500:]
    within = done.stderr.partition('"before"')[2].partition('"after"')[0]
    synced = [line for line in within.splitlines() if "sync(" in line]
    for wanted in (".v1.png", f"{root}/labels>", "pool.sqlite-wal>"):
        assert any(wanted in line for line in synced), (wanted, synced)


def test_the_count_of_accepted_labels_never_falls(tmp_path: Path) -> None:
    with open_pool(tmp_path) as pool:
        fill(pool, 3)
        assert pool.labels_accepted() == 0
        first, second, third = (ask(pool) for _ in range(3))
        for query_id in (first, second):
            pool.accept_label(query_id, label_of(1), "test")
        pool.accept_label(first, label_of(2), "test")
        assert pool.labels_accepted() == 2, "a correction is no further label"
        pool.hold_label(third, label_of(3), "test", "odd")
        assert pool.labels_accepted() == 2
        pool.purge([pool.by_query(query_id).id for query_id in (first, second)])
        pool.accept_held(third, "test")
        assert (pool.count(states=["labelled"]), pool.labels_accepted()) == (1, 3)
    with open_pool(tmp_path) as pool:
        assert pool.labels_accepted() == 3
        with pool._database.transaction(durable=False):
            pool._database.execute("DELETE FROM meta WHERE key='labels_accepted'")
        assert pool.labels_accepted() == 1, "a pool of an earlier release"
