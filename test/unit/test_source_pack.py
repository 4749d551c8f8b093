from __future__ import annotations

import itertools
import json
import os
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssada_core.data.encodings import decode_compressed, encode_jpeg
from ssada_core.data.lists import ListSamples
from ssada_core.data.samples import ArraySamples
from ssada_core.data.source_pack import PackSamples, choose_balanced, create_pack
from ssada_core.errors import DataError, SsadaError
from ssada_core.labels import CAMVID

RNG = np.random.default_rng(11)


def drive(count: int = 30) -> ArraySamples:
    """Mostly road (3); every tenth frame has a bicyclist (10), every seventh has no label."""
    images = [np.full((20, 30, 3), (index, 90, 255 - index), np.uint8) for index in range(count)]
    labels: list[np.ndarray | None] = []
    for index in range(count):
        label = np.full((20, 30), 3, np.uint8)
        label[0] = 255
        if index % 10 == 4:
            label[5:8, 5:8] = 10
        labels.append(None if index % 7 == 6 else label)
    return ArraySamples(images, labels)


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "source.zip"
    create_pack(drive(), CAMVID, path, frames=5, seed=1)
    return path


def test_pack_round_trip(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "new/source.zip"
    samples = drive()
    summary = create_pack(samples, CAMVID, path, frames=5, seed=1, quality=90, progress=lambda *a: told.append(a))
    assert told[-1] == (30, 30)
    assert summary["frames"] == 5
    assert summary["bytes"] == path.stat().st_size
    assert summary["source"] == {"available": 26, "seed": 1, "quality": 90}
    assert list(path.parent.iterdir()) == [path]
    back = PackSamples(path)
    assert len(back) == 5
    assert back.label_space == CAMVID
    names = [back.name(index) for index in range(5)]
    assert names == sorted(names)  # the drive's order
    assert {"000004", "000014", "000024"} <= set(names)  # every frame with the rare class
    pixels = np.zeros(11, int)
    for index, name in enumerate(names):
        image, label = samples.image(int(name)), samples.label(int(name))
        np.testing.assert_array_equal(back.label(index), label)
        np.testing.assert_array_equal(back.image(index), decode_compressed(encode_jpeg(image, 90)))
        pixels += np.bincount(label[label != 255], minlength=11)
    assert summary["pixels"] == dict(zip(CAMVID.classes, pixels.tolist(), strict=True))


def test_same_input_same_bytes(tmp_path: Path, pack: Path) -> None:
    create_pack(drive(), CAMVID, tmp_path / "again.zip", frames=5, seed=1)
    assert (tmp_path / "again.zip").read_bytes() == pack.read_bytes()
    create_pack(drive(), CAMVID, tmp_path / "other.zip", frames=5, seed=2)
    assert (tmp_path / "other.zip").read_bytes() != pack.read_bytes()


def test_any_tool_can_read_it(pack: Path) -> None:
    with zipfile.ZipFile(pack) as file:
        assert file.testzip() is None
        index = json.loads(file.read("pack.json"))
    assert index["format"] == "ssada-source-pack"
    assert len(index["frames"]) == 5


def test_greedy_against_exhaustive_search() -> None:
    histograms = RNG.integers(0, 50, (9, 4)) * RNG.integers(0, 2, (9, 4)) + np.array([1, 0, 0, 0])

    def value(rows) -> float:
        shares = histograms / histograms.sum(axis=1, keepdims=True)
        return float(np.log((1e-3 + shares[list(rows)].sum(axis=0)) / 1e-3).sum())

    best = max(value(rows) for rows in itertools.combinations(range(9), 3))
    chosen = choose_balanced(histograms, 3, seed=0)
    assert value(chosen) >= (1 - 1 / np.e) * best
    first = choose_balanced(histograms, 1, seed=0)
    assert value(first) == pytest.approx(max(value([row]) for row in range(9)))


def test_rare_classes_come_first_and_all_frames_at_last() -> None:
    histograms = np.array([[100, 0, 0]] * 6 + [[90, 10, 0], [95, 0, 5]], np.int64)
    assert choose_balanced(histograms, 2, seed=3) == [6, 7]
    assert choose_balanced(histograms, 99, seed=3) == list(range(8))
    ties = {tuple(choose_balanced(histograms[:6], 1, seed=seed)) for seed in range(20)}
    assert len(ties) > 1  # the seed decides between equals


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    images = [np.zeros((4, 4, 3), np.uint8)]
    with pytest.raises(DataError, match="needs labelled frames"):
        create_pack(ArraySamples(images), CAMVID, tmp_path / "a.zip", frames=1, seed=0)
    unlabelled = ArraySamples(images, [np.full((4, 4), 255, np.uint8)])
    with pytest.raises(DataError, match="needs labelled frames"):
        create_pack(unlabelled, CAMVID, tmp_path / "a.zip", frames=1, seed=0)
    with pytest.raises(DataError, match="at least 1"):
        create_pack(drive(), CAMVID, tmp_path / "a.zip", frames=0, seed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        create_pack(drive(), CAMVID, tmp_path / "file/a.zip", frames=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_pack(tmp_path: Path) -> None:
    class Failing(ArraySamples):
        def image(self, index: int):
            raise DataError("gone")

    path = tmp_path / "a.zip"
    path.write_bytes(b"old")
    with pytest.raises(DataError, match="gone"):
        create_pack(Failing([np.zeros((4, 4, 3), np.uint8)], [np.zeros((4, 4), np.uint8)]), CAMVID, path, frames=1)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_mapped_label_space_is_not_applied_twice(tmp_path: Path) -> None:
    space = replace(CAMVID, name="mapped", id_map={7: 3, 3: 10}, ignored_ids=frozenset({255}))
    create_pack(drive(1), space, tmp_path / "a.zip", frames=1, seed=0)
    back = PackSamples(tmp_path / "a.zip")
    assert back.label_space == space
    np.testing.assert_array_equal(back.label(0), drive(1).label(0))


def rewrite(source: Path, out: Path, *, change=lambda index: index, leave_out: str = "", deflate: bool = False) -> Path:
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w", method) as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "pack.json":
                data = json.dumps(change(json.loads(data))).encode()
            if name != leave_out:
                new.writestr(name, data)
    return out


def test_packs_that_are_refused(tmp_path: Path, pack: Path) -> None:
    out = tmp_path / "bad.zip"
    cases = [
        (rewrite(pack, tmp_path / "1.zip", leave_out="pack.json"), "lacks pack.json"),
        (rewrite(pack, tmp_path / "2.zip", leave_out="labels/000003.png"), "lacks labels/000003.png"),
        (rewrite(pack, tmp_path / "3.zip", deflate=True), "compressed by another tool"),
        (rewrite(pack, tmp_path / "4.zip", change=lambda i: {**i, "version": 2}), "'version' input should be 1"),
        (rewrite(pack, tmp_path / "5.zip", change=lambda i: {**i, "frames": []}), "'frames' list should have"),
        (rewrite(pack, tmp_path / "6.zip", change=lambda i: {**i, "label_space": {}}), "a label space needs 'classes'"),
        (rewrite(pack, tmp_path / "7.zip", change=lambda i: [1]), "pack.json"),
        (tmp_path / "none.zip", "is not there"),
        (tmp_path, "cannot be read"),
        (out, "cannot be read"),
    ]
    out.write_bytes(pack.read_bytes()[:-40])
    for path, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            PackSamples(path)
        assert "\n" not in str(caught.value)


def test_damage_in_a_picture_is_found(tmp_path: Path, pack: Path) -> None:
    raw = bytearray(pack.read_bytes())
    raw[raw.index(b"\xff\xd8\xff") + 100] ^= 1
    (tmp_path / "a.zip").write_bytes(raw)
    samples = PackSamples(tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"images/000000.jpg is damaged"):
        samples.image(0)
    assert samples.label(0) is not None
    (tmp_path / "a.zip").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        samples.label(0)


def test_an_encrypted_index_is_refused(tmp_path: Path, pack: Path) -> None:
    raw = bytearray(pack.read_bytes())
    directory = raw.index(b"PK\x01\x02")
    raw[directory + 8] |= 1  # the bit that says so
    raw[directory + 10] = 12  # and a method that needs bz2
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(DataError, match="compressed by another tool"):
        PackSamples(tmp_path / "a.zip")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_only_raises_our_errors(tmp_path: Path, pack: Path, data) -> None:
    raw = bytearray(pack.read_bytes())
    size = len(raw)
    spots = st.integers(0, size - 1) | st.integers(size - 700, size - 1) | st.integers(0, 2500)
    for position, value in data.draw(st.lists(st.tuples(spots, st.integers(0, 255)), min_size=1, max_size=5)):
        raw[position] = value
    path = tmp_path / "a.zip"
    path.write_bytes(raw)
    try:
        samples = PackSamples(path)
        for index in range(len(samples)):
            samples.image(index), samples.label(index)
    except SsadaError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_threads_and_forks_share_one(pack: Path) -> None:
    samples = PackSamples(pack)
    expected = [samples.jpeg(index) for index in range(5)]
    wrong: list[int] = []

    def read() -> None:
        wrong.extend(k for k in range(60) if samples.jpeg(k % 5) != expected[k % 5])

    child = os.fork()
    if child == 0:
        read()
        os._exit(1 if wrong else 0)
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert wrong == []


@pytest.mark.shared_data
def test_real_frames_keep_their_bytes_and_rare_classes(camvid: Path, tmp_path: Path) -> None:
    samples = ListSamples(camvid / "dusk_pool.txt", CAMVID)
    create_pack(samples, CAMVID, tmp_path / "a.zip", frames=12, seed=0)
    back = PackSamples(tmp_path / "a.zip")
    assert back.jpeg(0) == (camvid / back.name(0)).read_bytes()

    def share(labels, name: str) -> float:
        counts = sum(np.bincount(label[label != 255], minlength=11) for label in labels)
        return counts[CAMVID.index(name)] / counts.sum()

    packed = [back.label(index) for index in range(12)]
    everything = [samples.label(index) for index in range(62)]
    for rare in ("pedestrian", "bicyclist"):
        assert share(packed, rare) > share(everything, rare)
