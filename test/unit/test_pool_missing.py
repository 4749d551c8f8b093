"""A disk that is away for a moment costs no frame: not a label, not a question, not an image."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cli_fixtures
import cv2
import numpy as np
import pytest

from ssada_core.errors import StoreError
from ssada_core.labels import CAMVID
from ssada_core.store.pool import Choice, FramePool, FrameRecord, PoolSettings

SIZE = (48, 64)
STATES = ["labelled", "held", "skipped", "queried", "buffered"]


def open_pool(root: Path, **opening: bool) -> FramePool:
    return FramePool(root, PoolSettings(keep_free_share=0.0), label_space=CAMVID, **opening)


def fill(root: Path) -> list[FrameRecord]:
    """One frame in each state, and what is known of them."""
    rng = np.random.default_rng(0)
    with open_pool(root) as pool:
        for index in range(len(STATES)):
            scene = cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), SIZE[::-1])
            assert pool.add(scene, camera="front", stamp_ns=index * 10**9).reason == "stored"
        ids = [record.id for record in pool.frames()]
        labelled, held, skipped, _ = pool.query([Choice(number, 0.5, False, "unsure") for number in ids[:4]])
        pool.accept_label(str(labelled.query_id), rng.integers(0, 11, SIZE, dtype=np.uint8), "Ada")
        pool.hold_label(str(held.query_id), rng.integers(0, 11, SIZE, dtype=np.uint8), "Ada", "looks odd")
        pool.hold_label(str(skipped.query_id), rng.integers(0, 11, SIZE, dtype=np.uint8), "Ada", "looks odd")
        pool.skip(str(skipped.query_id), "too hard")
        assert [record.state for record in pool.frames()] == STATES
        return pool.frames()


def known(root: Path) -> list[FrameRecord]:
    with open_pool(root, tidy=False) as pool:
        return pool.frames()


@pytest.mark.parametrize("command", ["stats", "verify", "export"])
def test_commands_that_look_change_nothing(tmp_path: Path, command: str) -> None:
    before = fill(tmp_path / "pool")
    (tmp_path / "pool/images").rename(tmp_path / "away")
    arguments = [tmp_path / "out"] if command == "export" else []
    done = cli_fixtures.ssada_here("pool", command, tmp_path / "pool", *arguments)
    assert done.status == (0 if command == "stats" else 1), done.err
    assert known(tmp_path / "pool") == before
    if command == "verify":
        assert done.err.count("missing, frame") == len(before)
    (tmp_path / "away").rename(tmp_path / "pool/images")
    with open_pool(tmp_path / "pool") as pool:
        assert pool.verify() == []
        assert pool.frames() == before


@pytest.mark.parametrize("away", ["gone", "not mounted", "no folder"])
def test_a_pool_whose_images_are_all_away_is_not_opened(tmp_path: Path, away: str) -> None:
    before = fill(tmp_path)
    images = tmp_path / "images"
    images.rename(tmp_path / "away")
    if away == "not mounted":
        (images / "lost+found").mkdir(parents=True)
        (images / "README").write_text("mount point")
    elif away == "no folder":
        images.write_text("")
    with pytest.raises(StoreError, match=r"none of the 5 images .*images: mount it.* ssada pool purge .* --all"):
        open_pool(tmp_path)
    if images.exists():
        shutil.rmtree(images) if images.is_dir() else images.unlink()
    (tmp_path / "away").rename(images)
    with open_pool(tmp_path) as pool:
        assert pool.frames() == before
        assert pool.verify() == []


@contextmanager
def nobody(folder: Path) -> Iterator[None]:
    """As a user who must heed permissions, which root need not."""
    if os.geteuid():
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_read_is_not_an_empty_one() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        root = Path(folder)
        before = fill(root)
        extra = root / "images/001"
        extra.mkdir()
        with nobody(root):
            extra.chmod(0)
            with pytest.raises(StoreError, match=r"cannot read .*images/001: no permission"):
                open_pool(root)
            extra.chmod(0o700)
        assert known(root) == before


def test_frames_whose_image_is_back_are_what_they_were(tmp_path: Path) -> None:
    before = fill(tmp_path)
    aside = tmp_path / "aside"
    aside.mkdir()
    survivor, *others = sorted(
        (tmp_path / "images/000").iterdir(), reverse=True
    )  # one is enough to tell it from no disk
    for image in others:
        image.rename(aside / image.name)
    for _ in range(2):  # however often it is opened meanwhile
        with open_pool(tmp_path) as pool:
            assert [record.state for record in pool.frames()] == ["rejected"] * 4 + ["buffered"]
            assert len(pool.verify()) == 4
            assert pool.stats().image_bytes == survivor.stat().st_size
    back = others.pop()
    (aside / back.name).rename(back)
    with open_pool(tmp_path, tidy=False) as pool:
        assert len(pool.verify()) == 3, "what waits for the next opening is no problem"
    for image in others:
        (aside / image.name).rename(image)
    with open_pool(tmp_path) as pool:
        assert pool.frames() == before
        assert pool.verify() == []
        for record in before:
            assert pool.image(record).shape == (*SIZE, 3)
        assert pool.label(before[0]) is not None


def test_a_missing_frame_that_was_purged_stays_away(tmp_path: Path) -> None:
    fill(tmp_path)
    image = tmp_path / "images/000/000001.jpg"
    data = image.read_bytes()
    image.unlink()
    with open_pool(tmp_path) as pool:
        assert pool.purge([1]) == 1
        assert pool.verify() == []
    image.write_bytes(data)
    with open_pool(tmp_path) as pool:
        assert [record.id for record in pool.frames()] == [2, 3, 4, 5]
        assert not image.exists(), "purged is purged"


def test_purge_is_the_way_out_when_every_image_is_lost(tmp_path: Path) -> None:
    fill(tmp_path / "pool")
    shutil.rmtree(tmp_path / "pool/images")
    assert cli_fixtures.ssada_here("pool", "purge", tmp_path / "pool", "--all", "--yes").status == 0
    with open_pool(tmp_path / "pool") as pool:
        assert pool.frames() == []
        assert pool.verify() == []


def test_a_label_that_is_restored_counts_again(tmp_path: Path) -> None:
    before = fill(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "away")
    with open_pool(tmp_path) as pool:
        assert pool.get(before[0].id).state == "held"
    shutil.rmtree(tmp_path / "labels", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "labels")
    with open_pool(tmp_path) as pool:
        assert pool.get(before[0].id).state == "labelled"
        assert pool.label(before[0]) is not None
        assert pool.verify() == []


def test_a_pool_of_the_second_format_is_taken_over(tmp_path: Path) -> None:
    before = fill(tmp_path)
    with sqlite3.connect(tmp_path / "pool.sqlite") as raw:
        raw.execute("DROP TABLE missing")
        raw.execute("PRAGMA user_version=2")
    (tmp_path / "images/000/000001.jpg").rename(tmp_path / "aside.jpg")
    with open_pool(tmp_path) as pool:
        assert pool.get(1).state == "rejected"
    (tmp_path / "aside.jpg").rename(tmp_path / "images/000/000001.jpg")
    assert known(tmp_path)[0].state == "rejected"
    with open_pool(tmp_path) as pool:
        assert pool.frames() == before
