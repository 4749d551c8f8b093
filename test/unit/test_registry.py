from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ssada_core.errors import ModelError, StoreError
from ssada_core.labels import CAMVID
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store import model_files
from ssada_core.store.files import sha256_file
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.registry import ModelRegistry, RegistrySettings

REPOSITORY = Path(__file__).resolve().parents[2]


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(8, 4, generator=generator)
    return {"a.weight": matrix, "a.view": matrix.t(), "n": torch.tensor(seed)}


def manifest(**changes: object) -> ModelManifest:
    plain = ModelManifest(version="", created="", network=NetworkSettings(), label_space=CAMVID.to_dict())
    return plain.model_copy(update=changes)


def deploy(folder: Path) -> None:
    assert (folder / "weights.safetensors").is_file()
    (folder / "deploy/torch-fp32").mkdir(parents=True)
    (folder / "deploy/torch-fp32/graph.bin").write_bytes(b"compiled")


def registry_of(root: Path, count: int = 0, keep: int = 10) -> ModelRegistry:
    registry = ModelRegistry(root, RegistrySettings(keep=keep))
    for seed in range(count):
        registry.add(weights(seed), manifest())
    return registry


def test_a_model_is_stored_complete_and_hashed(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    assert (registry.current(), registry.first(), registry.versions()) == (None, None, [])
    version = registry.add(weights(3), manifest(metrics={"miou": 51.2}), deploy)
    assert version == "v0001"
    found = registry.manifest(version)
    assert (found.version, found.metrics, found.created[-6:]) == (version, {"miou": 51.2}, "+00:00")
    assert set(found.files) == {"weights.safetensors", "deploy/torch-fp32/graph.bin"}
    digest = subprocess.run(
        ["sha256sum", str(tmp_path / version / "weights.safetensors")], check=True, capture_output=True, text=True
    ).stdout
    assert digest.startswith(found.files["weights.safetensors"])
    registry.verify(version)
    loaded = registry.load_weights(version)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights(3).items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "v0001"]


def test_a_failed_deployment_adds_nothing(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 1)

    def fail(folder: Path) -> None:
        raise ModelError("does not compile")

    with pytest.raises(ModelError, match="does not compile"):
        registry.add(weights(), manifest(), fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "v0001"]
    assert registry.add(weights(), manifest()) == "v0002"


def test_a_link_in_a_deployment_is_refused(tmp_path: Path) -> None:
    def link(folder: Path) -> None:
        (folder / "deploy").mkdir()
        (folder / "deploy/secret").symlink_to("/etc/passwd")

    with pytest.raises(StoreError, match="link"):
        registry_of(tmp_path).add(weights(), manifest(), link)


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    version = registry.add(weights(), manifest(), deploy)
    graph = tmp_path / version / "deploy/torch-fp32/graph.bin"
    graph.write_bytes(b"Compiled")
    with pytest.raises(ModelError, match=r"graph\.bin differs"):
        registry.verify(version)
    with pytest.raises(ModelError, match=r"graph\.bin differs"):
        registry.promote(version)
    assert registry.current() is None
    registry.load_weights(version)  # which are as they were
    with (tmp_path / version / "weights.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(ModelError, match=r"weights\.safetensors differs"):
        registry.load_weights(version)
    (tmp_path / version / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors is missing"):
        registry.load_weights(version)


def test_a_manifest_cannot_reach_outside(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 1)
    path = tmp_path / "v0001/manifest.json"
    values = json.loads(path.read_text())
    values["files"]["../../etc/passwd"] = "0" * 64
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match="outside the model"):
        registry.verify("v0001")


def test_unknown_versions_name_the_nearest(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 2)
    for version in ("v002", "../v0002", "v0009"):
        with pytest.raises(ModelError, match=r"no model version .* \((did you mean 'v000\d'|there are: v0001, v0002)"):
            registry.path(version)
    with pytest.raises(ModelError, match="no model version"):
        registry.promote("v0003")
    with pytest.raises(ModelError, match="no current model"):
        registry.current_or_fail()


def test_promotions_are_undone_one_by_one(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 3)
    registry.promote("v0001")
    with pytest.raises(StoreError, match="nothing to roll back to"):
        registry.rollback()
    registry.promote("v0002", {"verdict": "promote", "gain": 2.5})
    registry.promote("v0003")
    registry.promote("v0003")  # again changes nothing of the way back
    state = json.loads((tmp_path / "current").read_text())
    assert (state["version"], state["previous"]) == ("v0003", "v0002")
    assert registry.rollback("alarm") == registry.current() == "v0002"
    assert registry.rollback() == registry.current() == "v0001"
    with pytest.raises(StoreError, match="nothing to roll back to"):
        registry.rollback()
    registry.promote("v0003")
    assert registry.rollback() == "v0001"
    entries = registry.history()
    assert [(entry["action"], entry["version"]) for entry in entries] == [
        ("promote", "v0001"),
        ("promote", "v0002"),
        ("promote", "v0003"),
        ("promote", "v0003"),
        ("rollback", "v0002"),
        ("rollback", "v0001"),
        ("promote", "v0003"),
        ("rollback", "v0001"),
    ]
    assert entries[1]["decision"] == {"verdict": "promote", "gain": 2.5}
    assert entries[4]["decision"] == {"reason": "alarm"}


def test_a_decision_is_kept_beside_an_unchanged_manifest(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 1)
    before = (tmp_path / "v0001/manifest.json").read_bytes()
    registry.promote("v0001", {"verdict": "promote"})
    assert (tmp_path / "v0001/manifest.json").read_bytes() == before
    assert registry.manifest("v0001").decision == {"verdict": "promote"}
    registry.verify("v0001")


@pytest.mark.parametrize("sealed_by", ["now", "an earlier release"])
def test_a_decision_after_an_export_damages_nothing(tmp_path: Path, sealed_by: str) -> None:
    registry = registry_of(tmp_path, 2)
    registry.promote("v0001")
    registry.record("v0002", {"verdict": "wait_for_human"})
    folder = registry.path("v0002")
    found = model_files.read_manifest(folder)
    model_files.seal(folder, found)  # as `ssada export` does
    if sealed_by == "an earlier release":
        digest = sha256_file(folder / "decision.json")
        model_files.write_manifest(folder, found.model_copy(update={"files": {**found.files, "decision.json": digest}}))
    registry.promote("v0002", {"verdict": "promote"})
    assert registry.ensure_sound() == ("v0002", "")
    other = registry_of(tmp_path / "other")
    other.verify(other.adopt(folder))


def test_a_torn_history_is_still_read_and_continued(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 2)
    registry.promote("v0001")
    with (tmp_path / "decisions.jsonl").open("a") as file:
        file.write('{"action": "prom')
    registry.promote("v0002")
    assert [entry["version"] for entry in registry.history()] == ["v0001", "v0002"]


def test_pruning_keeps_the_last_and_those_that_matter(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 3, keep=2)
    assert registry.versions() == ["v0001", "v0002", "v0003"]  # two newest and the first
    registry.promote("v0002")
    registry.promote("v0003")
    for _ in range(4):
        registry.add(weights(), manifest())
    assert registry.versions() == ["v0001", "v0002", "v0003", "v0006", "v0007"]
    assert registry.rollback() == "v0002"


def test_a_model_directory_is_adopted(tmp_path: Path) -> None:
    other = registry_of(tmp_path / "a")
    other.add(weights(5), manifest(), deploy)
    registry = registry_of(tmp_path / "b", 1)
    assert registry.adopt(tmp_path / "a/v0001") == "v0002"
    assert registry.manifest("v0002").parent == "v0001"
    registry.verify("v0002")
    assert torch.equal(registry.load_weights("v0002")["n"], torch.tensor(5))
    assert (tmp_path / "b/v0002/deploy/torch-fp32/graph.bin").read_bytes() == b"compiled"
    (tmp_path / "a/v0001/weights.safetensors").write_bytes(b"evil")
    with pytest.raises(ModelError, match="differs"):
        registry.adopt(tmp_path / "a/v0001")
    with pytest.raises(ModelError, match="no model directory"):
        registry.adopt(tmp_path)


def _add_some(root: str, count: int) -> None:
    registry = ModelRegistry(root, RegistrySettings(keep=100))
    for seed in range(count):
        registry.promote(registry.add(weights(seed), manifest()))


def test_two_processes_never_get_the_same_version(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_some, args=(str(tmp_path), 8)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    registry = registry_of(tmp_path, keep=100)
    assert registry.versions() == [f"v{number:04d}" for number in range(1, 17)]
    for version in registry.versions():
        registry.verify(version)
    assert len(registry.history()) == 16
    assert registry.current() == registry.history()[-1]["version"]


def test_a_build_that_was_killed_leaves_nothing_and_blocks_nobody(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        f"sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / 'test/unit')!r}]\n"
        "from test_registry import manifest, weights\n"
        "from ssada_core.store.registry import ModelRegistry\n"
        "def stall(folder):\n"
        "    print('building', flush=True)\n"
        "    time.sleep(60)\n"
        "ModelRegistry(sys.argv[1]).add(weights(), manifest(), stall)\n"
    )
    registry = registry_of(tmp_path, 1)
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "building\n"
        started = time.monotonic()
        registry.promote("v0001")  # not blocked by the build
        assert registry.add(weights(), manifest()) == "v0003"  # v0002 is being built
        assert time.monotonic() - started < 5
        assert (tmp_path / ".v0002.tmp").is_dir()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert registry.versions() == ["v0001", "v0003"]
    registry.add(weights(), manifest())
    assert not (tmp_path / ".v0002.tmp").exists()


def test_damaged_current_is_named(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 1)
    (tmp_path / "current").write_text("[]")
    with pytest.raises(StoreError, match="current is damaged"):
        registry.current()
