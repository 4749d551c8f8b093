"""Damage and trouble on the disk: what is refused, what mends itself, and what is said."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from adaptation_fixtures import DRIVE, ENGINE, NETWORK, fill_pool, make_registry, manifest, open_pool, round_spec

from ssada_core.adaptation.round_data import gather
from ssada_core.adaptation.scorer import PoolScorer
from ssada_core.errors import EngineError, ModelError, StoreError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine, read_model
from ssada_core.inference.tensorrt_cache import EngineCache, EngineKey
from ssada_core.labels import CAMVID
from ssada_core.networks.build import build_network
from ssada_core.store import files
from ssada_core.store.registry import ModelRegistry


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 120 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(mount)]
    if shutil.which("mount") is None:
        pytest.skip("no mount command")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def fill_up(ballast: Path) -> None:
    """Take every block that is left."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


# -- labels and frames ------------------------------------------------------------------------------


def test_a_damaged_label_is_never_learnt_from_and_asked_for_again(tmp_path: Path) -> None:
    fill_pool(tmp_path / "pool", frames=8, labelled=3, audit=2)
    with open_pool(tmp_path / "pool") as pool:
        broken, gone, *_ = pool.frames(states=["labelled"])
        flip_a_byte(pool.root / str(broken.label_file))
        (pool.root / str(gone.label_file)).unlink()
        with pytest.raises(StoreError, match="is not the label that was stored: restore it"):
            pool.label(broken)
        chosen = gather(pool, round_spec(tmp_path), tmp_path, CAMVID)
        assert (len(chosen.labelled), len(chosen.audit)) == (1, 2), "a round does without them"
    with open_pool(tmp_path / "pool") as pool:
        held = pool.frames(states=["held"])
        assert {record.id for record in held} == {broken.id, gone.id}
        assert {record.reason for record in held} == {"its label file is damaged: label it again"}
        for record in held:
            label = DRIVE.frame(record.id - 1, "night")[1]
            pool.accept_label(str(record.query_id), label, "again")
            np.testing.assert_array_equal(pool.label(record), label)
        assert len(pool.frames(states=["labelled"])) == 5


def test_a_damaged_image_costs_its_frame_only(tmp_path: Path) -> None:
    fill_pool(tmp_path / "pool", frames=10, labelled=3, audit=2)
    with open_pool(tmp_path / "pool") as pool:
        labelled, unlabelled = pool.frames(states=["labelled"])[0], pool.frames(states=["buffered"])[1]
        for record in (labelled, unlabelled):
            path = pool.root / record.image_file
            path.write_bytes(path.read_bytes()[:-500])
        data = gather(pool, round_spec(tmp_path), tmp_path, CAMVID)
        assert (len(data.labelled), len(data.audit), len(data.unlabelled)) == (2, 2, 5)
        for samples in (data.labelled, data.unlabelled):
            assert all(samples.image(index).shape == (64, 96, 3) for index in range(len(samples)))


def test_damaged_audit_frames_do_not_end_the_asking(tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "registry")
    fill_pool(tmp_path / "pool", frames=6, labelled=0, audit=3)
    said: list[str] = []
    with open_pool(tmp_path / "pool") as pool:
        scorer = PoolScorer(pool, registry, ENGINE, said.append)
        scorer.use("v0001")
        flip_a_byte(pool.root / str(pool.frames(states=["labelled"])[0].label_file))
        assert scorer.audit_iou() is not None
        scorer.close()
    assert any("is not judged by" in line for line in said)


def test_a_damaged_database_is_refused_in_one_line(tmp_path: Path) -> None:
    fill_pool(tmp_path / "pool")
    database = tmp_path / "pool/pool.sqlite"
    data = bytearray(database.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    database.write_bytes(data)
    with pytest.raises(StoreError, match=r"pool\.sqlite is damaged .*: put a copy in its place") as caught:
        open_pool(tmp_path / "pool")
    assert "\n" not in str(caught.value)


# -- models -----------------------------------------------------------------------------------------


def test_every_file_of_a_model_is_checked_when_it_is_loaded(tmp_path: Path) -> None:
    from ssada_core.inference.export import deploy

    registry = ModelRegistry(tmp_path)
    network = build_network(NETWORK, CAMVID.num_classes, pretrained=False)
    registry.add(network.state_dict(), manifest(), lambda folder: deploy(folder, targets=["onnx-fp32"]) and None)
    folder = registry.path("v0001")
    onnx = EngineSettings(backend="onnxruntime", threads=1)
    load_engine(folder, onnx).close()
    flip_a_byte(folder / "deploy/onnx-fp32/model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx differs from the manifest's SHA-256: restore it"):
        load_engine(folder, onnx)
    load_engine(folder, ENGINE).close()  # torch runs the weights, which are sound
    flip_a_byte(folder / "weights.safetensors")
    with pytest.raises((ModelError, EngineError)):
        load_engine(folder, onnx)
    with pytest.raises(ModelError, match=r"weights\.safetensors differs"):
        read_model(folder)


def test_a_damaged_current_is_read_from_the_history(tmp_path: Path) -> None:
    registry = make_registry(tmp_path, versions=3)
    registry.promote("v0002")
    registry.promote("v0003")
    registry.rollback("alarm")
    registry.promote("v0003")
    before = registry._current()
    for damage in (b"", b"{half", b"[]", b'{"version": 3}', bytes(64)):
        (tmp_path / "current").write_bytes(damage)
        again = ModelRegistry(tmp_path)
        assert again._current() == before, damage
    assert again.rollback() == "v0002"
    assert again.current() == ModelRegistry(tmp_path).current() == "v0002", "the next switch mends the file"


def test_a_damaged_current_model_gives_way_to_one_that_was_promoted_before(tmp_path: Path) -> None:
    registry = make_registry(tmp_path, versions=4)
    registry.promote("v0002")
    registry.promote("v0003")  # v0004 was never let through
    assert registry.ensure_sound() == ("v0003", "")
    flip_a_byte(tmp_path / "v0003/weights.safetensors")
    assert registry.fallbacks() == ["v0002", "v0001"]
    version, why = registry.ensure_sound()
    assert version == registry.current() == "v0002"
    assert "v0003/weights.safetensors differs" in why
    assert registry.history()[-1]["decision"] == {"reason": why}
    flip_a_byte(tmp_path / "v0002/weights.safetensors")
    (tmp_path / "v0001/weights.safetensors").unlink()
    with pytest.raises(ModelError, match="v0002/weights"):
        registry.ensure_sound()
    assert registry.current() == "v0002"


def test_a_copy_that_arrives_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_registry(tmp_path / "a")
    copy = shutil.copyfile

    def unsound(source: Path, target: Path) -> None:
        copy(source, target)
        if target.name == "weights.safetensors":
            flip_a_byte(target)

    monkeypatch.setattr(shutil, "copyfile", unsound)
    registry = ModelRegistry(tmp_path / "b")
    with pytest.raises(ModelError, match="differs from the manifest"):
        registry.adopt(tmp_path / "a/v0001")
    assert registry.versions() == []


def test_a_full_disk_adds_no_half_of_a_model(small_disk: Path) -> None:
    registry = make_registry(small_disk / "registry")
    fill_up(small_disk / "ballast")
    network = build_network(NETWORK, CAMVID.num_classes, pretrained=False)
    with pytest.raises(StoreError, match="the disk is full: free some space"):
        registry.add(network.state_dict(), manifest())
    assert registry.versions() == ["v0001"]
    load_engine(registry.path("v0001"), ENGINE).close()
    (small_disk / "ballast").unlink()
    assert registry.add(network.state_dict(), manifest()) == "v0002"
    assert not list(small_disk.rglob("*.tmp"))


def test_a_full_disk_leaves_the_current_model_in_use(small_disk: Path) -> None:
    registry = make_registry(small_disk / "registry", versions=2)
    fill_up(small_disk / "ballast")
    with pytest.raises(StoreError, match="the disk is full"):
        registry.promote("v0002", {"words": "x" * 5000})
    assert ModelRegistry(small_disk / "registry").current() == "v0001"
    registry.verify("v0001")
    (small_disk / "ballast").unlink()
    registry.promote("v0002")
    assert registry.current() == "v0002"


def test_a_read_only_disk_still_gives_its_model(small_disk: Path) -> None:
    registry = make_registry(small_disk / "registry", versions=2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    again = ModelRegistry(small_disk / "registry")
    load_engine(again.path(again.current_or_fail()), ENGINE).close()
    for act in (lambda: registry.promote("v0002"), lambda: registry.adopt(again.path("v0002"))):
        with pytest.raises(StoreError, match="read-only: remount it"):
            act()
    assert again.current() == "v0001"
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    registry.promote("v0002")
    assert again.current() == "v0002"


def test_a_read_only_disk_still_gives_its_built_engines(small_disk: Path) -> None:
    cache, key = EngineCache(small_disk), EngineKey("structure", "content", "gpu")
    cache.store(key, b"built")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert cache.exact(key) == b"built"
    assert cache.alike(EngineKey("structure", "other", "gpu")) == b"built"
    cache.forget(key)
    cache.store(key, b"built again")
    assert cache.exact(key) == b"built"


def test_a_missing_gpu_is_named_and_auto_does_without(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    registry = make_registry(tmp_path)
    with pytest.raises(EngineError) as caught:
        load_engine(registry.path("v0001"), EngineSettings(backend="torch", device="gpu", threads=1))
    assert "\n" not in str(caught.value)
    load_engine(registry.path("v0001"), EngineSettings(backend="torch", device="auto", threads=1)).close()


# -- the clock --------------------------------------------------------------------------------------


def test_a_clock_that_jumps_loses_no_question_and_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_pool(tmp_path / "pool", frames=8, labelled=3, audit=1)
    now = time.time_ns()
    years = 365 * 86_400 * 10**9
    for index, jump in enumerate((-40 * years, 0, 12 * years, 0)):
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: now + jump)
        with open_pool(tmp_path / "pool") as pool:
            added = pool.add(DRIVE.frame(20 + index, "night")[0], camera="front", stamp_ns=now + jump + index * 10**10)
            assert added.reason == "stored"
            assert len(pool.frames(states=["labelled"])) == 4
            assert pool.verify() == []


def test_every_new_level_of_a_folder_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "fsync_directory", synced.append)
    files.make_directory(tmp_path / "a/b/c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a/b"]


def test_a_database_cut_off_in_its_log_opens_with_what_was_synced(tmp_path: Path) -> None:
    """A power cut may leave the write-ahead log at any length; SQLite takes its whole transactions."""
    source = tmp_path / "pool"
    fill_pool(source, frames=6, labelled=3, audit=1)
    with open_pool(source) as pool:  # keeps the log from being folded into the database
        query = pool.frames(states=["labelled"])[0]
        sizes = []
        for seed in range(4):
            pool.accept_label(str(query.query_id), np.full((64, 96), seed % 11, np.uint8), "me")
            sizes.append((source / "pool.sqlite-wal").stat().st_size)
        for kept, size in [(index, size + extra) for index, size in enumerate(sizes) for extra in (0, 1, 1777)]:
            copy = tmp_path / f"copy-{size}"
            shutil.copytree(source, copy)
            (copy / "pool.sqlite-shm").unlink()
            os.truncate(copy / "pool.sqlite-wal", min(size, sizes[-1]))
            with open_pool(copy) as again:
                label = again.label(again.by_query(str(query.query_id)))
                assert label is not None
                assert int(label[0, 0]) == kept, "every acknowledged label, and no half of the next"
            with sqlite3.connect(copy / "pool.sqlite") as raw:
                assert raw.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            raw.close()
