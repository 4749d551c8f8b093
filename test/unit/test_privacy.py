"""Nothing that a detector finds is ever on the disk, and nothing at all where it fails."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from adaptation_fixtures import POOL

from ssada_core.annotation.desk import Desk, Who
from ssada_core.annotation.folder import FolderExchange
from ssada_core.data.encodings import decode_compressed, encode_jpeg
from ssada_core.data.privacy import Hider, PrivacySettings
from ssada_core.errors import ConfigError, PrivacyError, StoreError
from ssada_core.labels import CAMVID
from ssada_core.store.files import DiskFullError
from ssada_core.store.pool import Choice, FramePool

FACE = (slice(20, 36), slice(40, 60))


def frame(seed: int = 0) -> np.ndarray:
    """A dark frame with something bright and detailed where a face would be."""
    image = np.full((64, 96, 3), 30, np.uint8)
    # Grey, because JPEG keeps that: colours it would blur by itself.
    image[FACE] = np.random.default_rng(seed).integers(120, 255, (16, 20, 1), dtype=np.uint8)
    image[:4, : 8 * (1 + seed % 9)] = 200  # so that the pool takes each for a new one
    return image


def change(image: np.ndarray, seed: int) -> float:
    """Mean difference in grey levels from what was to be hidden."""
    return float(np.abs(image[FACE].astype(int) - frame(seed)[FACE]).mean())


def bright(image: np.ndarray) -> list[list[int]]:
    """Finds what is bright below the frame's upper edge."""
    rows, columns = np.nonzero(image[8:].max(axis=2) > 100)
    if not len(rows):
        return []
    left, top = columns.min(), rows.min() + 8
    return [[left, top, columns.max() + 1 - left, rows.max() + 9 - top]]


def broken(image: np.ndarray) -> list[list[int]]:
    raise RuntimeError("the detector's GPU\nhas gone")


def nonsense(image: np.ndarray) -> list[list[float]]:
    return [[0.0, 0.0, float("nan"), 3.0]]


def nothing(image: np.ndarray) -> list[list[int]]:
    return []


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectors", sys.modules[__name__])


def settings(*detectors: str, **more: object) -> PrivacySettings:
    return PrivacySettings.model_validate({"detectors": list(detectors), **more})


def pool_with(root: Path, *detectors: str) -> FramePool:
    return FramePool(root, POOL.model_copy(update={"privacy": settings(*detectors)}), label_space=CAMVID)


@pytest.mark.parametrize("method", ["pixelate", "blur", "fill"])
def test_what_is_found_is_gone_and_the_rest_is_untouched(method: str) -> None:
    image = frame()
    before = image.copy()
    hidden, count = Hider(settings("detectors:bright", method=method, grow=0.0)).hide(image)
    assert count == 1
    np.testing.assert_array_equal(image, before)
    rest = np.ones(image.shape[:2], bool)
    rest[FACE] = False
    np.testing.assert_array_equal(hidden[rest], image[rest])
    # Pixels next to each other no longer differ as a picture's do, and correlate little with what was there.
    details = np.corrcoef(
        (cv2.Laplacian(image[FACE].astype(np.float32), cv2.CV_32F)).ravel(),
        (cv2.Laplacian(hidden[FACE].astype(np.float32), cv2.CV_32F) + 1e-9 * np.arange(960).reshape(16, 20, 3)).ravel(),
    )[0, 1]
    assert abs(details) < 0.35
    assert len(np.unique(hidden[FACE].reshape(-1, 3), axis=0)) <= (1 if method == "fill" else 320)


def test_boxes_are_enlarged_and_end_at_the_frame() -> None:
    image = frame()
    hidden, _ = Hider(settings("detectors:bright", method="fill", grow=0.5)).hide(image)
    ys, xs = np.nonzero((hidden == 0).all(axis=2))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (12, 43, 30, 69)
    hidden, _ = Hider(settings("detectors:bright", method="fill", grow=2.0)).hide(image)
    assert (hidden == 0).all(axis=2)[:64, :96].sum() == 64 * 96  # clipped, not wrapped round


def test_the_pool_never_has_the_original_not_even_the_cameras_jpeg(tmp_path: Path) -> None:
    image = frame()
    jpeg = encode_jpeg(image, 95)
    with pool_with(tmp_path, "detectors:bright") as pool:
        for index, (pixels, data) in enumerate(((image, None), (None, encode_jpeg(frame(1), 95)), (frame(2), jpeg))):
            record = pool.add(pixels, jpeg=data, camera="front", stamp_ns=index * 10**9).record
            assert record is not None
            kept = pool.image(record)
            assert change(kept, index) > 20
            assert pool.image_bytes(record) != data
    plain = np.full((64, 96, 3), 30, np.uint8)
    with pool_with(tmp_path / "plain", "detectors:bright") as pool:
        data = encode_jpeg(plain, 95)
        record = pool.add(None, jpeg=data, camera="front", stamp_ns=0).record
        assert record is not None
        assert pool.image_bytes(record) == data, "where nothing is found, the camera's own bytes"


@pytest.mark.parametrize(
    ("detector", "words"),
    [
        ("detectors:broken", "failed (RuntimeError: the detector's GPU has gone): the frame is not kept"),
        ("detectors:nonsense", "boxes that are not finite"),
        ("detectors:missing", "cannot be imported"),
        ("no_such_module:find", "cannot be imported"),
        ("detectors:FACE", "is no function"),
        ("bright", "give module:function, FILE.xml or FILE.onnx"),
        ("/nowhere/faces.xml", "does not exist"),
        ("/nowhere/faces.onnx", "does not exist"),
    ],
)
def test_where_a_detector_fails_nothing_is_stored(
    tmp_path: Path, detector: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PrivacyError) as caught:
        Hider(settings(detector)).hide(frame())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    with pool_with(tmp_path, "detectors:nothing", detector) as pool, caplog.at_level(logging.WARNING):
        for index in range(3):
            added = pool.add(frame(index), camera="front", stamp_ns=index * 10**9)
            assert (added.record, added.reason) == (None, "privacy")
        assert words in pool.trouble
        assert pool.frames() == []
        assert not list(tmp_path.rglob("*.jpg"))
    assert len([record for record in caplog.records if words in record.getMessage()]) == 1, "said once"


def test_a_detector_that_recovers_lets_frames_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pool_with(tmp_path, "later:find") as pool:
        assert pool.add(frame(), camera="front", stamp_ns=0).reason == "privacy"
        monkeypatch.setitem(sys.modules, "later", type(sys)("later"))
        sys.modules["later"].find = nothing  # type: ignore[attr-defined]
        assert pool.add(frame(), camera="front", stamp_ns=10**9).reason == "stored"
        assert pool.trouble == ""


def test_damaged_files_are_no_detectors(tmp_path: Path) -> None:
    for name in ("faces.xml", "faces.onnx"):
        (tmp_path / name).write_bytes(b"<nothing>")
        with pytest.raises(PrivacyError):
            Hider(settings(str(tmp_path / name))).hide(frame())


CASCADE = """<?xml version="1.0"?>
<opencv_storage><cascade><stageType>BOOST</stageType><featureType>HAAR</featureType>
<height>12</height><width>12</width>
<stageParams><maxWeakCount>1</maxWeakCount></stageParams><featureParams><maxCatCount>0</maxCatCount></featureParams>
<stageNum>1</stageNum>
<stages><_><maxWeakCount>1</maxWeakCount><stageThreshold>0.5</stageThreshold><weakClassifiers>
<_><internalNodes>0 -1 0 0.5</internalNodes><leafValues>-1. 1.</leafValues></_></weakClassifiers></_></stages>
<features><_><rects><_>0 0 12 12 -1.</_><_>3 3 6 6 4.</_></rects></_></features></cascade></opencv_storage>
"""
"""One Haar feature: the middle is brighter than the whole."""


def test_a_haar_cascade_finds_what_it_was_made_for(tmp_path: Path) -> None:
    path = tmp_path / "bright.xml"
    path.write_text(CASCADE)
    hider = Hider(settings(str(path), method="fill"))
    hidden, count = hider.hide(frame())
    assert count >= 1
    assert change(hidden, 0) > 40
    plain = np.full((64, 96, 3), 30, np.uint8)
    assert hider.hide(plain) == (plain, 0)


def test_a_network_in_onnx_finds_boxes(tmp_path: Path) -> None:
    """The brightest pixel's column and row as a box of 10×10, with a score: a detector of four operators."""
    from onnx import TensorProto, helper, save

    size = (64, 96)
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float"], ["level"], axes=[2], keepdims=0),
        helper.make_node("ReduceMax", ["level"], ["by_column"], axes=[0], keepdims=0),
        helper.make_node("ReduceMax", ["level"], ["by_row"], axes=[1], keepdims=0),
        helper.make_node("ArgMax", ["by_column"], ["x"], axis=0, keepdims=1),
        helper.make_node("ArgMax", ["by_row"], ["y"], axis=0, keepdims=1),
        helper.make_node("Concat", ["x", "y", "ten", "ten"], ["row"], axis=0),
        helper.make_node("Reshape", ["row", "shape"], ["boxes_int"]),
        helper.make_node("Cast", ["boxes_int"], ["boxes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["by_row"], ["top"], axes=[0], keepdims=1),
        helper.make_node("Div", ["top", "white"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [*size, 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor("ten", TensorProto.INT64, [1], [10]),
            helper.make_tensor("shape", TensorProto.INT64, [2], [1, 4]),
            helper.make_tensor("white", TensorProto.FLOAT, [1], [255.0]),
        ],
    )
    path = tmp_path / "detector.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    image = np.zeros((*size, 3), np.uint8)
    image[30, 50] = 255
    hidden, count = Hider(settings(str(path), method="fill", grow=0.0)).hide(image)
    assert (count, hidden.max()) == (1, 0)
    image[30, 50] = 60  # a score of 0.24
    assert Hider(settings(str(path), method="fill")).hide(image)[1] == 0


def test_frames_stored_earlier_are_hidden_in_place(tmp_path: Path) -> None:
    with FramePool(tmp_path, POOL, label_space=CAMVID) as pool:
        records = [pool.add(frame(index), camera="front", stamp_ns=index * 10**9).record for index in range(3)]
        (query,) = pool.query([Choice(records[1].id, 0.0, False, "")])  # type: ignore[union-attr]
        pool.accept_label(str(query.query_id), np.zeros((64, 96), np.uint8), "me")
    hider = Hider(settings("detectors:bright"))
    with FramePool(tmp_path, POOL, label_space=CAMVID) as pool:
        assert [pool.hide(record.id, hider) for record in pool.frames()] == [1, 1, 1]
        for index, record in enumerate(pool.frames()):
            assert change(pool.image(record), index) > 20
        assert len(list((tmp_path / "images").rglob("*.jpg"))) == 3, "the originals are deleted"
        assert pool.verify() == []
        assert pool.label(pool.by_query(str(query.query_id))) is not None
        broken_one = Hider(settings("detectors:broken"))
        with pytest.raises(PrivacyError):
            pool.hide(records[0].id, broken_one)  # type: ignore[union-attr]
        assert pool.verify() == []


# -- what must not stay -----------------------------------------------------------------------------


def age(root: Path, days: float, ids: tuple[int, ...]) -> None:
    with closing(sqlite3.connect(root / "pool.sqlite")) as raw, raw:
        then = time.time_ns() - int(days * 86_400 * 10**9)
        raw.executemany("UPDATE frames SET stored_at=? WHERE id=?", [(then, number) for number in ids])


def filled(root: Path) -> list[str]:
    """Four frames, of which the first two are labelled; returns their queries."""
    with FramePool(root, POOL, label_space=CAMVID) as pool:
        records = [pool.add(frame(index), camera="front", stamp_ns=index * 10**9).record for index in range(4)]
        asked = pool.query([Choice(record.id, 0.0, False, "") for record in records[:2]])  # type: ignore[union-attr]
        for record in asked:
            pool.accept_label(str(record.query_id), np.zeros((64, 96), np.uint8), "me")
        return [str(record.query_id) for record in asked]


def test_retention_takes_labels_too(tmp_path: Path) -> None:
    filled(tmp_path)
    age(tmp_path, 40, (1, 3))
    limited = POOL.model_copy(update={"retention_days": 30.0})
    with FramePool(tmp_path, POOL, label_space=CAMVID) as pool:
        assert len(pool.frames()) == 4, "without a limit everything that was asked for stays"
    with FramePool(tmp_path, limited, label_space=CAMVID) as pool:
        assert [record.id for record in pool.frames()] == [2, 4]
        assert pool.verify() == []
        assert len(list((tmp_path / "labels").iterdir())) == 1


def run_pool(*arguments: object) -> int:
    from ssada_core.cli import app

    return int(app(["pool", *map(str, arguments)], standalone_mode=False) or 0)


def test_purge_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = filled(tmp_path)
    with closing(Desk(tmp_path, 45.0)) as desk:
        desk.save(first, Who("tab", "person", "Ada"), b"a draft")
    with pytest.raises(ConfigError, match="nothing chosen"):
        run_pool("purge", tmp_path, "--yes")
    with pytest.raises(ConfigError, match="there are buffered, queried"):
        run_pool("purge", tmp_path, "--state", "labeled", "--yes")
    assert run_pool("purge", tmp_path, "--query", first, "--yes") == 0
    with closing(Desk(tmp_path, 45.0)) as desk:
        assert desk.drafts("person") == {}
    age(tmp_path, 10, (3,))
    assert run_pool("purge", tmp_path, "--older-than", "5", "--state", "buffered", "--yes") == 0
    with FramePool(tmp_path, POOL, label_space=CAMVID) as pool:
        assert [record.id for record in pool.frames()] == [2, 4]
        assert pool.verify() == []
    assert run_pool("purge", tmp_path, "--all", "--yes") == 0
    assert not list(tmp_path.rglob("*.jpg"))
    assert not list(tmp_path.rglob("*.png"))
    figures = capsys.readouterr().out
    assert '"purged": 1' in figures
    assert '"labelled": 1' in figures


def test_hide_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)
    assert run_pool("hide", tmp_path, "--detector", "detectors:bright") == 0
    assert '"changed": 4' in capsys.readouterr().out
    with FramePool(tmp_path, POOL, label_space=CAMVID) as pool:
        assert pool.verify() == []
    with pytest.raises(PrivacyError):
        run_pool("hide", tmp_path, "--detector", "detectors:broken")


def test_what_is_exported_is_hidden_first(tmp_path: Path) -> None:
    filled(tmp_path / "pool")
    hide = ("--hide", "detectors:bright")
    assert run_pool("export", tmp_path / "pool", tmp_path / "out", "--content", "labelled", *hide) == 0
    written = sorted((tmp_path / "out").rglob("*.jpg"))
    assert len(written) == 2
    for index, path in enumerate(written):
        assert change(decode_compressed(path.read_bytes()), index) > 20
    with FramePool(tmp_path / "pool", POOL, label_space=CAMVID) as pool:
        first = pool.frames()[0]
        assert change(pool.image(first), 0) < 5, "the pool keeps its own"
    with pytest.raises(PrivacyError):
        run_pool("export", tmp_path / "pool", tmp_path / "no", "--content", "labelled", "--hide", "detectors:broken")
    assert not list((tmp_path / "no").rglob("*.jpg"))


def test_what_was_purged_is_not_left_in_the_database(tmp_path: Path) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "pool.sqlite")) as raw:
        thumbnails = [row[0] for row in raw.execute("SELECT thumbnail FROM frames")]
    run_pool("purge", tmp_path, "--all", "--yes")
    left = b"".join(path.read_bytes() for path in tmp_path.glob("pool.sqlite"))
    assert not any(thumbnail in left for thumbnail in thumbnails)


def test_what_was_purged_beside_a_running_node_is_not_left_in_its_log(tmp_path: Path) -> None:
    filled(tmp_path)
    with FramePool(tmp_path, POOL, label_space=CAMVID) as node:
        thumbnails = [bytes(row[0]) for row in node._database.rows("SELECT thumbnail FROM frames")]
        node.set_many_scores({})  # a writer, whose log stays as long as it is open
        run_pool("purge", tmp_path, "--all", "--yes")
        left = b"".join(path.read_bytes() for path in tmp_path.glob("pool.sqlite*"))
        assert not any(thumbnail in left for thumbnail in thumbnails)


def no_room(*_: object) -> None:
    raise DiskFullError("the stick is full for a moment")


def test_the_folder_of_the_queries_shows_no_frame_that_was_purged_rejected_or_hidden_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "pool")
    with FramePool(tmp_path / "pool", POOL, label_space=CAMVID) as pool:
        buffered = pool.frames(states=["buffered"])
        first, second = (str(record.query_id) for record in pool.query([Choice(r.id, 0, False, "") for r in buffered]))
        folder = FolderExchange(pool, tmp_path / "queries", tmp_path / "labels")
        folder.write_queries()
        before = (tmp_path / "queries" / f"{second}.jpg").read_bytes()
        pool.reject(first, "a face")
        pool.hide(pool.by_query(second).id, Hider(settings("detectors:bright")))
        with monkeypatch.context() as patch:
            patch.setattr("ssada_core.annotation.folder.write_atomic", no_room)
            with pytest.raises(DiskFullError):
                folder.write_queries()
        assert [path.name for path in folder.write_queries()] == [f"{second}.jpg"]
        assert {path.stem for path in (tmp_path / "queries").iterdir()} == {second}
        shown = (tmp_path / "queries" / f"{second}.jpg").read_bytes()
        assert shown == pool.image_bytes(pool.by_query(second)) != before
        assert folder.write_queries() == []
        again = FolderExchange(pool, tmp_path / "queries", tmp_path / "labels")
        assert again.write_queries() == [], "after a restart nothing is written anew"
        pool.purge([pool.by_query(second).id])
        folder.write_queries()
        assert list((tmp_path / "queries").iterdir()) == []


def test_a_rejected_query_leaves_no_label_and_an_expired_one_no_draft(tmp_path: Path) -> None:
    first, second = filled(tmp_path)
    with closing(Desk(tmp_path, 45.0)) as desk:
        for query_id in (first, second):
            desk.save(query_id, Who("tab", "person", "Ada"), b"a draft")
    age(tmp_path, 10, (1,))
    with FramePool(tmp_path, POOL.model_copy(update={"retention_days": 5.0}), label_space=CAMVID) as pool:
        with closing(Desk(tmp_path, 45.0)) as desk:
            assert desk.drafts("person") == {second: True}
        (record,) = pool.query([Choice(pool.frames(states=["buffered"])[0].id, 0, False, "")])
        held = str(record.query_id)
        pool.hold_label(held, np.zeros(record.size, np.uint8), "test", "odd")
        files = set((tmp_path / "labels").iterdir())
        pool.reject(held, "a face")
        assert len(files - set((tmp_path / "labels").iterdir())) == 1
        assert pool.label_history(held) == []
        assert pool.verify() == []


def drafted(root: Path, *query_ids: str) -> None:
    with closing(Desk(root, 45.0)) as desk:
        for query_id in query_ids:
            desk.save(query_id, Who("tab", "person", "Ada"), f"a draft of {query_id}".encode())


def drafts(root: Path) -> set[str]:
    with closing(Desk(root, 45.0)) as desk:
        return set(desk.drafts("person"))


PURGED_AND_KILLED = """
import os, signal, sys
from ssada_core.labels import CAMVID
from ssada_core.store.pool import FramePool, PoolSettings
from ssada_core.store.pool_keeping import PoolKeeper

PoolKeeper._delete = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
pool = FramePool(sys.argv[1], PoolSettings(keep_free_share=0.0), label_space=CAMVID)
pool.purge([1]) if sys.argv[2] == "purge" else pool.reject(sys.argv[3], "a face")
"""


@pytest.mark.parametrize("way", ["purge", "reject"])
def test_a_process_that_was_killed_in_a_purge_leaves_no_draft_behind(tmp_path: Path, way: str) -> None:
    with FramePool(tmp_path, POOL, label_space=CAMVID) as pool:
        frames = [pool.add(frame(index), camera="front", stamp_ns=index * 10**9).record for index in range(3)]
        asked = pool.query([Choice(record.id, 0.0, False, "") for record in frames if record is not None])
        first, second, third = (str(record.query_id) for record in asked)
    drafted(tmp_path, first, second, third, "abc123-000001")
    done = subprocess.run([sys.executable, "-c", PURGED_AND_KILLED, str(tmp_path), way, first], check=False)
    assert done.returncode == -9
    (tmp_path / "images/000/000003.jpg").rename(tmp_path / "away.jpg")
    assert first in drafts(tmp_path)
    with FramePool(tmp_path, POOL, label_space=CAMVID) as pool:
        assert pool.by_query(third).state == "rejected", "until its image is back"
    assert drafts(tmp_path) == {second, third, "abc123-000001"}, "of no other pool, and none that may be wanted"
    left = b"".join(path.read_bytes() for path in tmp_path.glob("annotate.sqlite*"))
    assert f"a draft of {second}".encode() in left
    assert f"a draft of {first}".encode() not in left


def test_a_file_that_cannot_be_deleted_keeps_nothing_else(tmp_path: Path) -> None:
    first, second = filled(tmp_path)
    drafted(tmp_path, first, second)
    image = tmp_path / "images/000/000001.jpg"
    image.unlink()
    with FramePool(tmp_path, POOL, label_space=CAMVID, tidy=False) as pool:
        image.mkdir()
        thumbnails = [bytes(row[0]) for row in pool._database.rows("SELECT thumbnail FROM frames")]
        with pytest.raises(StoreError, match=r"cannot delete .*000001\.jpg"):
            pool.purge([1, 2])
        assert list((tmp_path / "labels").iterdir()) == []
        assert not (tmp_path / "images/000/000002.jpg").exists()
        assert drafts(tmp_path) == set()
        left = b"".join(path.read_bytes() for path in tmp_path.glob("pool.sqlite*"))
        assert not any(thumbnail in left for thumbnail in thumbnails[:2])


def test_drafts_that_cannot_be_read_keep_no_pool_from_opening(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path)
    (tmp_path / "annotate.sqlite").write_bytes(b"no database at all" * 100)
    with FramePool(tmp_path, POOL, label_space=CAMVID) as pool:
        assert len(pool.frames()) == 4
    assert "annotate.sqlite: file is not a database" in caplog.text
