from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from ssada_core.errors import ConfigError, ModelError
from ssada_core.labels import CAMVID
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store import models
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.models import resolve_model
from ssada_core.store.registry import ModelRegistry


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    registry = ModelRegistry(tmp_path / "registry")
    for seed in range(2):
        registry.add(
            {"w": torch.tensor(seed)},
            ModelManifest(version="", created="", network=NetworkSettings(), label_space=CAMVID.to_dict()),
        )
    return registry


@pytest.fixture
def shipped(tmp_path: Path, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An install space with one shipped model, found through AMENT_PREFIX_PATH as after colcon."""
    share = tmp_path / "prefix/share/ssada_ros"
    (share / "models").mkdir(parents=True)
    registry.path("v0001").rename(share / "models/tiny")
    files = ModelManifest.model_validate_json((share / "models/tiny/manifest.json").read_bytes()).files
    entry = {"path": "tiny", "sha256": files["weights.safetensors"], "command": "ssada train", "license": "MIT"}
    (share / "models/manifest.yaml").write_text(yaml.safe_dump({"tiny": entry}))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    monkeypatch.setattr(models, "SHIPPED_FILE", "models/manifest.yaml")
    monkeypatch.setattr("ssada_core.resources.__file__", str(tmp_path / "elsewhere/ssada_core/resources.py"))
    return share / "models"


def test_a_directory_a_registry_and_a_version(registry: ModelRegistry) -> None:
    root = registry.root
    assert resolve_model(str(root / "v0001")) == root / "v0001"
    assert resolve_model(f"{root}@v0002") == root / "v0002"
    with pytest.raises(ModelError, match="no current model: promote a version"):
        resolve_model(str(root))
    registry.promote("v0002")
    assert resolve_model(str(root)) == root / "v0002"
    with pytest.raises(ModelError, match="no model version 'v0009'"):
        resolve_model(f"{root}@v0009")


def test_a_shipped_model_by_name(shipped: Path) -> None:
    assert resolve_model("tiny") == shipped / "tiny"
    with pytest.raises(ModelError, match=r"no model 'tinny'.*did you mean 'tiny'"):
        resolve_model("tinny")
    with (shipped / "tiny/weights.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match="differs from the shipped 'tiny'"):
        resolve_model("tiny")


def test_what_is_not_there_says_what_is(shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there are: tiny"):
        resolve_model(str(tmp_path / "nowhere"))
    (shipped / "manifest.yaml").unlink()
    with pytest.raises(ModelError, match="none is installed"):
        resolve_model("tiny")


def test_a_malformed_list_is_named(shipped: Path) -> None:
    (shipped / "manifest.yaml").write_text(yaml.safe_dump({"tiny": {"path": "tiny", "sha": "1"}}))
    with pytest.raises(ConfigError, match=r"manifest\.yaml: tiny"):
        resolve_model("tiny")


def test_a_label_space_that_nobody_knows_is_the_models_fault():
    strange = {**CAMVID.to_dict(), "key_of_another_release": 3}
    manifest = ModelManifest(version="v0001", created="", network=NetworkSettings(), label_space=strange)
    with pytest.raises(ModelError, match="manifest of v0001: unknown key 'key_of_another_release'"):
        manifest.labels()
