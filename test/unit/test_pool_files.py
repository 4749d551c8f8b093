"""Opening a pool deletes what a killed process left, and nothing else: not what it never wrote, no label there is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssada_core.annotation.folder import FolderExchange
from ssada_core.errors import ConfigError, StoreError
from ssada_core.labels import CAMVID
from ssada_core.store.files import beside
from ssada_core.store.pool import Choice, FramePool, PoolSettings

SIZE = (48, 64)


def open_pool(root: Path) -> FramePool:
    return FramePool(root, PoolSettings(keep_free_share=0.0), label_space=CAMVID)


def fill(pool: FramePool, count: int, *, start: int = 0) -> None:
    for index in range(start, start + count):
        blocks = np.random.default_rng(index).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        scene = cv2.resize(blocks, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
        assert pool.add(scene, camera="front", stamp_ns=index * 10**9).reason == "stored"


def ask(pool: FramePool, frame_id: int) -> str:
    return str(pool.query([Choice(frame_id, 0.5, False, "unsure")])[0].query_id)


def answer(pool: FramePool, query_id: str, seed: int = 0) -> Path:
    label = np.random.default_rng(seed).integers(0, 11, SIZE, dtype=np.uint8)
    record = pool.accept_label(query_id, label, "Ada")
    return pool.root / str(record.label_file)


def copy_database(root: Path) -> Path:
    """A copy of a closed pool's database, which is whole: closing it wrote its log into it."""
    assert not (root / "pool.sqlite-wal").exists()
    return Path(shutil.copyfile(root / "pool.sqlite", root.with_name("copy.sqlite")))


def put_back(copy: Path, root: Path) -> None:
    for file in root.glob("pool.sqlite*"):
        file.unlink()
    shutil.copyfile(copy, root / "pool.sqlite")


def test_files_that_no_pool_wrote_are_left_where_they_are(tmp_path: Path) -> None:
    """``pool_dir`` named a folder of somebody's own pictures, and the first start deleted every one."""
    names = ["images/cam/a.png", "images/000/cat.jpg", "labels/abc123-000001.png", "labels/done/x.png", "predictions/a"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"somebody's own")
    for _ in range(2):
        with open_pool(tmp_path) as pool:
            if not pool.frames():
                fill(pool, 1)
            assert pool.verify() == [f"{name}: not entered in the pool" for name in sorted(names)]
    assert all((tmp_path / name).read_bytes() == b"somebody's own" for name in names)


@pytest.mark.parametrize("name", ["images/000/000001.jpg", "labels/abc123-000001.v1.png", "predictions/000007.png"])
def test_a_new_database_is_not_made_among_the_files_of_another(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"of a pool whose database has gone")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"has no pool\.sqlite, but holds 1 files of a pool .*put their own"):
            open_pool(tmp_path)
    assert (tmp_path / name).exists()


def test_labels_of_another_pool_are_not_taken_for_leftovers(tmp_path: Path) -> None:
    for name in ("pool", "other"):
        with open_pool(tmp_path / name) as pool:
            fill(pool, 2)
            label = answer(pool, ask(pool, 1))
    with open_pool(tmp_path / "pool") as pool:
        fill(pool, 1, start=5)
    put_back(copy_database(tmp_path / "pool"), tmp_path / "other")
    with pytest.raises(StoreError, match=r"labels holds 1 labels of pool [0-9a-f]{6}, .*put their own pool\.sqlite"):
        open_pool(tmp_path / "other")
    assert label.exists()


def test_a_label_newer_than_a_copy_of_the_database_stays(tmp_path: Path) -> None:
    root = tmp_path / "pool"
    with open_pool(root) as pool:
        fill(pool, 3)
        query_id = ask(pool, 1)
    copy = copy_database(root)
    with open_pool(root) as pool:
        label = answer(pool, query_id)
        data = label.read_bytes()
    put_back(copy, root)
    for _ in range(2):
        with open_pool(root) as pool:
            assert label.read_bytes() == data
            assert pool.by_query(query_id).state == "queried"
            assert pool.verify() == [f"labels/{label.name}: not entered in the pool"]
    with open_pool(root) as pool:
        answer(pool, query_id)
        assert pool.verify() == []


def test_frames_and_labels_newer_than_a_copy_stay_and_nothing_takes_their_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "pool"
    with open_pool(root) as pool:
        fill(pool, 2)
    copy = copy_database(root)
    with open_pool(root) as pool:
        fill(pool, 3, start=2)
        label = answer(pool, ask(pool, 4))
    kept = [*sorted((root / "images/000").iterdir()), label]
    before = {path: path.read_bytes() for path in kept}
    assert len(before) == 6
    put_back(copy, root)
    for start in (10, 20):
        with open_pool(root) as pool:
            fill(pool, 2, start=start)
            answer(pool, ask(pool, pool.frames()[-1].id), seed=start)
            assert {path: path.read_bytes() for path in before} == before
            assert len(pool.verify()) == 4, "three images and a label that it does not know"
    with open_pool(root) as pool:
        assert [record.id for record in pool.frames()] == [1, 2, 6, 7, 8, 9]
    assert "labels/" + label.name in caplog.text
    assert "newer than pool.sqlite" in caplog.text


def test_frames_whose_rows_a_power_cut_took_are_deleted(tmp_path: Path) -> None:
    """Their rows are not synced; a label's is, with all before it, so that a label tells an old copy from this."""
    root = tmp_path / "pool"
    with open_pool(root) as pool:
        fill(pool, 2)
    copy = copy_database(root)
    with open_pool(root) as pool:
        fill(pool, 3, start=2)
        pool.set_prediction(4, np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8))
    put_back(copy, root)
    with open_pool(root) as pool:
        assert pool.verify() == []
        assert len(list((root / "images/000").iterdir())) == 2


KILLED = """
import os, signal, sys
import numpy as np
from ssada_core.labels import CAMVID
from ssada_core.store import pool_intake, pool_keeping
from ssada_core.store.pool import FramePool, PoolSettings
from ssada_core.store.pool_labels import LabelStore

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

root, moment, query_id = sys.argv[1:]
pool = FramePool(root, PoolSettings(keep_free_share=0.0), label_space=CAMVID)
if moment == "image":
    pool_intake.pool_queries.get = die
    pool.add(np.zeros((48, 64, 3), np.uint8), camera="rear", stamp_ns=0)
elif moment == "label":
    LabelStore._set_label = die
    pool.accept_label(query_id, np.zeros((48, 64), np.uint8), "Ada")
elif moment == "purge":
    pool_keeping.PoolKeeper._delete = die
    pool.purge([pool.by_query(query_id).id])
else:
    pool_keeping.PoolKeeper._delete = die
    pool.reject(query_id, "a face")
"""


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("image", ["images/000/000003.jpg"]),
        ("label", ["labels/{}.v2.png", "labels/.{}.v2.png.entering"]),
        ("purge", ["images/000/000001.jpg", "labels/{}.v1.png", "predictions/000001.png"]),
        ("reject", ["images/000/000001.jpg", "labels/{}.v1.png", "predictions/000001.png"]),
    ],
)
def test_what_a_process_left_that_was_killed_between_file_and_row_is_deleted(
    tmp_path: Path, moment: str, left: list[str]
) -> None:
    with open_pool(tmp_path) as pool:
        fill(pool, 2)
        query_id = ask(pool, 1)
        pool.set_prediction(1, np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8))
        pool.hold_label(query_id, np.ones(SIZE, np.uint8), "Ada", "odd")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment, query_id], check=False)
    assert done.returncode == -9
    files = [tmp_path / name.format(query_id) for name in left]
    assert all(file.exists() for file in files), "nothing was killed in between"
    with open_pool(tmp_path) as pool:
        assert not any(file.exists() for file in files)
        assert pool.verify() == []


def test_unfinished_files_are_deleted_and_a_half_hidden_frame_is_whole(tmp_path: Path) -> None:
    with open_pool(tmp_path) as pool:
        fill(pool, 2)
        answer(pool, ask(pool, 1))
        pool.set_prediction(1, np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8))
    written = [path for path in tmp_path.glob("*/**/*") if path.is_file()]
    assert len(written) == 4
    for path in written:
        beside(path).write_bytes(b"half")
    (tmp_path / "images/000/000002-1.jpg").write_bytes(b"never entered")
    with open_pool(tmp_path) as pool:
        assert sorted(path for path in tmp_path.glob("*/**/*") if path.is_file()) == sorted(written)
        assert pool.verify() == []


def test_a_disk_that_refuses_in_between_leaves_a_label_that_can_be_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_pool(tmp_path) as pool:
        fill(pool, 1)
        query_id = ask(pool, 1)
        with monkeypatch.context() as patch:
            patch.setattr(pool._database, "execute", lambda *_: (_ for _ in ()).throw(StoreError("the disk is full")))
            with pytest.raises(StoreError):
                answer(pool, query_id)
        assert list((tmp_path / "labels").iterdir()) == [], "nothing was promised"
        label = answer(pool, query_id)
        assert [path.name for path in (tmp_path / "labels").iterdir()] == [label.name]
        assert pool.verify() == []


@pytest.mark.parametrize("which", ["queries", "labels"])
def test_no_exchange_folder_lies_among_the_pools_own(tmp_path: Path, which: str) -> None:
    with open_pool(tmp_path / "pool") as pool:
        folders = {"queries_dir": tmp_path / "queries", "labels_dir": tmp_path / "labels"}
        folders[f"{which}_dir"] = tmp_path / "pool" / "labels"
        with pytest.raises(ConfigError, match=r"inside the pool's own folder .*: give another"):
            FolderExchange(pool, **folders)
        assert not (tmp_path / "pool/labels").exists()
