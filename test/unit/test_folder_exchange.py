from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssada_core.annotation.folder import FolderExchange
from ssada_core.annotation.submit import submit
from ssada_core.errors import ConfigError, StoreError
from ssada_core.labels import CAMVID
from ssada_core.store.pool import Choice, FramePool, PoolSettings

SIZE = (48, 64)


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


def street() -> np.ndarray:
    label = np.full(SIZE, 3, np.uint8)
    label[:20] = 0
    label[30:, :10] = 11
    return label


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FramePool]:
    with FramePool(tmp_path / "pool", PoolSettings(keep_free_share=0.0), label_space=CAMVID) as opened:
        for index in range(3):
            opened.add(frame(index), camera="front", stamp_ns=index * 10**9)
        opened.query([Choice(record.id, 0.5, False, "") for record in opened.frames()])
        yield opened
        assert opened.verify() == []


@pytest.fixture
def queries(pool: FramePool) -> list[str]:
    return [str(record.query_id) for record in pool.frames(states=["queried"])]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels"


@pytest.fixture
def exchange(pool: FramePool, tmp_path: Path, labels: Path) -> FolderExchange:
    return FolderExchange(pool, tmp_path / "queries", labels, settle_seconds=0.0)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_questions_are_written_once_and_taken_away_when_answered(
    pool: FramePool, queries: list[str], exchange: FolderExchange, tmp_path: Path
) -> None:
    written = exchange.write_queries()
    assert [path.name for path in written] == [f"{query_id}.jpg" for query_id in queries]
    assert exchange.write_queries() == []
    record = pool.by_query(queries[1])
    assert written[1].read_bytes() == pool.image_bytes(record)
    facts = json.loads(written[1].with_suffix(".json").read_text())
    assert (facts["query_id"], facts["stamp_ns"], facts["camera"]) == (queries[1], 10**9, "front")
    assert facts["label_space"]["classes"][3] == "road"
    (tmp_path / "queries/notes.txt").write_text("mine")
    submit(pool, queries[1], street(), "me")
    exchange.write_queries()
    rest = [f"{query_id}.{kind}" for query_id in (queries[0], queries[2]) for kind in ("jpg", "json")]
    assert tree(tmp_path / "queries") == sorted([*rest, "notes.txt"])


def test_a_frame_that_has_gone_costs_its_question_only(
    pool: FramePool, queries: list[str], exchange: FolderExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = pool.root / str(pool.frames(states=["queried"])[0].image_file)
    image = path.read_bytes()
    path.unlink()
    for expected in (queries[1:], []):
        assert [written.stem for written in exchange.write_queries()] == expected
    assert caplog.text.count(f"query {queries[0]} is not asked") == 1
    path.write_bytes(image)
    assert [written.stem for written in exchange.write_queries()] == queries[:1]
    assert tree(tmp_path / "queries") == sorted(f"{query}.{ext}" for query in queries for ext in ("jpg", "json"))


def test_a_label_goes_in_and_its_file_to_done(
    pool: FramePool, queries: list[str], exchange: FolderExchange, labels: Path
) -> None:
    cv2.imwrite(str(labels / f"{queries[0]}.png"), street())
    (labels / "readme.txt").write_text("ignored")
    (result,) = exchange.poll()
    assert (result.query_id, result.status, result.why) == (queries[0], "accepted", "")
    record = pool.by_query(queries[0])
    assert (record.state, record.annotator) == ("labelled", "folder")
    assert np.array_equal(pool.label(record), np.where(street() == 11, 255, street()))
    assert tree(labels) == [f"done/{queries[0]}.png", "readme.txt"]
    assert exchange.poll() == []
    cv2.imwrite(str(labels / f"{queries[0]}.png"), np.flipud(street()))  # a correction
    assert exchange.poll()[0].status == "accepted"
    assert f"done/{queries[0]}.2.png" in tree(labels)
    assert len(pool.label_history(queries[0])) == 2


def test_suspicious_labels_are_held_and_can_be_confirmed(
    pool: FramePool, queries: list[str], exchange: FolderExchange, labels: Path
) -> None:
    flat = np.full(SIZE, 3, np.uint8)
    cv2.imwrite(str(labels / f"{queries[0]}.png"), flat)
    assert exchange.poll()[0].status == "held"
    assert "road" in (labels / f"held/{queries[0]}.png.txt").read_text()
    assert pool.by_query(queries[0]).state == "held"
    assert submit(pool, queries[0], flat, "me", confirmed=True).status == "accepted"


def test_a_stored_prediction_speaks(pool: FramePool, queries: list[str]) -> None:
    record = pool.by_query(queries[0])
    pool.set_prediction(record.id, (street() + 4) % 11, np.full(SIZE, 255, np.uint8))
    result = submit(pool, queries[0], street(), "me")
    assert (result.status, pool.by_query(queries[0]).reason) == ("held", result.why)
    assert "contradicts 100%" in result.why


def test_what_is_no_label_is_refused_with_a_reason(queries: list[str], exchange: FolderExchange, labels: Path) -> None:
    cv2.imwrite(str(labels / f"{queries[0]}.jpg"), street())
    cv2.imwrite(str(labels / f"{queries[1]}.png"), street()[:-1])
    cv2.imwrite(str(labels / "abcdef-000009.png"), street())
    cv2.imwrite(str(labels / "holiday.png"), street())
    whole = cv2.imencode(".png", street())[1].tobytes()
    (labels / f"{queries[2]}.png").write_bytes(whole[:40] + b"x" + whole[41:])
    results = {result.query_id: result for result in exchange.poll()}
    assert {result.status for result in results.values()} == {"refused"}
    words = {
        queries[0]: "JPEG",
        queries[1]: "64x47",
        queries[2]: "corrupt",
        "abcdef-000009": "no query",
        "holiday": "no query",
    }
    for query_id, word in words.items():
        assert word in results[query_id].why
        (reason,) = (labels / "refused").glob(f"{query_id}.*.txt")
        assert word in reason.read_text()


def test_a_file_that_is_still_being_written_waits(
    pool: FramePool, queries: list[str], tmp_path: Path, labels: Path
) -> None:
    exchange = FolderExchange(pool, tmp_path / "queries", labels, settle_seconds=600)
    whole = cv2.imencode(".png", street())[1].tobytes()
    path = labels / f"{queries[0]}.png"
    for end in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert exchange.poll() == []
    path.write_bytes(whole)
    assert exchange.poll()[0].status == "accepted"


def test_a_file_that_stopped_growing_is_refused(exchange: FolderExchange, queries: list[str], labels: Path) -> None:
    whole = cv2.imencode(".png", street())[1].tobytes()
    (labels / f"{queries[0]}.png").write_bytes(whole[:60])
    results = exchange.poll() + exchange.poll()
    assert [result.status for result in results] == ["refused"]


def test_a_folder_that_vanishes_is_one_line_and_filled_again_when_it_is_back(
    exchange: FolderExchange, queries: list[str], tmp_path: Path
) -> None:
    assert len(exchange.write_queries()) == 3
    (tmp_path / "queries").rename(tmp_path / "pulled")
    with pytest.raises(StoreError, match=r"cannot write .*queries: the folder does not exist"):
        exchange.write_queries()
    (tmp_path / "queries").mkdir()
    assert len(exchange.write_queries()) == 3
    assert exchange.write_queries() == []


def test_what_cannot_be_taken_away_is_one_line(pool: FramePool, exchange: FolderExchange, tmp_path: Path) -> None:
    stuck = tmp_path / "queries" / f"{pool.pool_id}-999999.jpg"
    stuck.mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*999999\.jpg"):
        exchange.write_queries()


def test_a_label_that_vanishes_while_it_is_read_ends_nothing(
    pool: FramePool, queries: list[str], tmp_path: Path, labels: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Pulled(FolderExchange):
        def _read(self, name: str) -> bytes | None:
            data = super()._read(name)
            (labels / name).unlink()
            return data

    exchange = Pulled(pool, tmp_path / "queries", labels)
    (labels / f"{queries[0]}.png").write_bytes(b"half a label")
    assert exchange.poll() == []
    assert "there is no such file" in caplog.text


def test_what_was_judged_is_not_judged_again_while_its_file_cannot_be_moved(
    pool: FramePool,
    queries: list[str],
    exchange: FolderExchange,
    labels: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stuck, moved = f"{queries[0]}.png", f"{queries[1]}.png"
    cv2.imwrite(str(labels / stuck), np.full(SIZE, 3, np.uint8))
    cv2.imwrite(str(labels / moved), street())
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.parent == labels:
            raise OSError(errno.EROFS, "Read-only file system")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        assert [result.status for result in exchange.poll()] == ["held", "accepted"]
        correction = np.flipud(street())
        assert submit(pool, queries[1], correction, "me").status == "accepted"
        for _ in range(3):
            assert exchange.poll() == []
    assert [len(pool.label_history(query)) for query in queries[:2]] == [1, 2]
    assert np.array_equal(pool.label(pool.by_query(queries[1])), np.where(correction == 11, 255, correction))
    assert caplog.text.count(f"{stuck} stays where it is") == 1
    assert exchange.poll() == []
    assert f"held/{stuck}" in tree(labels)
    assert f"done/{moved}" in tree(labels)
    cv2.imwrite(str(labels / stuck), np.fliplr(street()))  # the next file of this name is another label
    assert [result.status for result in exchange.poll()] == ["accepted"]


def test_a_folder_that_was_cleared_away_is_made_again(
    exchange: FolderExchange, queries: list[str], labels: Path
) -> None:
    (labels / "held").rmdir()
    cv2.imwrite(str(labels / f"{queries[0]}.png"), np.full(SIZE, 3, np.uint8))
    assert [result.status for result in exchange.poll()] == ["held"]
    assert f"held/{queries[0]}.png" in tree(labels)


def test_links_are_never_followed(
    pool: FramePool, queries: list[str], exchange: FolderExchange, labels: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    cv2.imwrite(str(secret), street())
    (labels / f"{queries[0]}.png").symlink_to(secret)
    (labels / f"{queries[1]}.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(labels / f"{queries[2]}.png")
    assert [result.status for result in exchange.poll()] == ["refused"] * 3
    assert secret.is_file()
    assert {record.state for record in pool.frames()} == {"queried"}


def test_folders_are_checked(pool: FramePool, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder of its own"):
        FolderExchange(pool, tmp_path / "x", tmp_path / "x")
    (tmp_path / "y").mkdir()
    (tmp_path / "y/done").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is a link"):
        FolderExchange(pool, tmp_path / "x", tmp_path / "y")


def test_answers_to_what_was_never_asked_or_rejected_are_refused(pool: FramePool, queries: list[str]) -> None:
    assert submit(pool, "../../etc/passwd", street(), "me").status == "refused"
    pool.reject(queries[0], "a face")
    result = submit(pool, queries[0], street(), "me")
    assert (result.status, "a face" in result.why) == ("refused", True)
