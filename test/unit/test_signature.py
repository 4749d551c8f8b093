"""Who let a model through: signatures that hold, and everything that must break them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from adaptation_fixtures import make_registry

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install '.[signature]'")

from ssada_core.errors import ConfigError, ModelError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import deploy
from ssada_core.inference.load import load_engine
from ssada_core.store.model_files import read_manifest, seal, write_manifest
from ssada_core.store.registry import ModelRegistry, RegistrySettings
from ssada_core.store.signature import create_keys, sign, verify_signature


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private = tmp_path / "maker.pem"
    return private, create_keys(private)


def test_a_signature_holds_until_anything_changes(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in public.read_bytes()
    folder = make_registry(tmp_path / "registry").path("v0001")
    with pytest.raises(ModelError, match="is not signed: run 'ssada models sign"):
        verify_signature(folder, public)
    sign(folder, private)
    verify_signature(folder, public)
    ModelRegistry(tmp_path / "registry").verify("v0001")  # the signature is no file of the model

    other = create_keys(tmp_path / "somebody.pem")
    with pytest.raises(ModelError, match=r"was not signed by .*somebody\.pem\.pub"):
        verify_signature(folder, other)
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"version": "v0001"', '"version": "v0002"'))
    with pytest.raises(ModelError, match="was not signed by"):
        verify_signature(folder, public)
    manifest.write_text(text)
    verify_signature(folder, public)
    (folder / "weights.safetensors").write_bytes(b"other weights")
    seal(folder, read_manifest(folder))  # hashes that fit again are not the hashes that were signed
    with pytest.raises(ModelError, match="was not signed by"):
        verify_signature(folder, public)
    (folder / "manifest.json.sig").write_bytes(b"no base64 \xff")
    with pytest.raises(ModelError):
        verify_signature(folder, public)


def test_keys_are_never_overwritten_and_never_mixed_up(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    folder = make_registry(tmp_path / "registry").path("v0001")
    with pytest.raises(ConfigError, match="a key is never overwritten"):
        create_keys(private)
    sign(folder, private)
    with pytest.raises(ConfigError, match="no key in PEM"):
        verify_signature(folder, private)
    with pytest.raises(ConfigError):
        sign(folder, public)
    with pytest.raises(ConfigError, match="cannot be read"):
        sign(folder, tmp_path / "nowhere.pem")


def test_a_registry_that_trusts_one_key_promotes_nothing_else(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    make_registry(tmp_path / "registry", versions=3)
    trusting = ModelRegistry(tmp_path / "registry", RegistrySettings(trusted_key=str(public)))
    with pytest.raises(ModelError, match="is not signed"):
        trusting.promote("v0002")
    assert trusting.current() == "v0001"
    sign(trusting.path("v0002"), private)
    trusting.promote("v0002")
    with pytest.raises(ModelError, match="is not signed"):
        trusting.rollback()  # v0001 was promoted before anybody asked for signatures
    assert trusting.current() == "v0002"
    signing = ModelRegistry(tmp_path / "registry", RegistrySettings(signing_key=str(private), trusted_key=str(public)))
    signing.promote("v0003")
    verify_signature(signing.path("v0003"), public)
    assert signing.rollback() == "v0002"


def test_going_back_signs_nothing(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    make_registry(tmp_path / "registry", versions=2)
    settings = RegistrySettings(signing_key=str(private), trusted_key=str(public))
    registry = ModelRegistry(tmp_path / "registry", settings)
    for version in ("v0001", "v0002"):
        registry.promote(version)
    folder = registry.path("v0001")
    weights = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(weights + b" ")
    seal(folder, read_manifest(folder))  # somebody with the disk, without the key
    with pytest.raises(ModelError, match="was not signed by"):
        registry.rollback()
    (registry.path("v0002") / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="differs"):
        registry.ensure_sound()
    with pytest.raises(ModelError, match="was not signed by"):
        verify_signature(folder, public)


def test_a_signature_holds_for_no_file_that_the_manifest_does_not_list(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    folder = make_registry(tmp_path / "registry").path("v0001")
    deploy(folder, targets=["onnx-fp32"])
    sign(folder, private)
    onnx = EngineSettings(backend="onnxruntime", threads=1)
    verify_signature(folder, public)
    with pytest.raises(ModelError, match=r"graph\.json is not in the manifest: delete it, or run 'ssada export"):
        load_engine(folder, onnx)  # put there after it was signed
    seal(folder, read_manifest(folder))
    load_engine(folder, onnx).close()
    (folder / "deploy/onnx-fp32/model.onnx.data").write_bytes(b"weights of another model")
    with pytest.raises(ModelError, match=r"model\.onnx\.data is not in the manifest"):
        load_engine(folder, onnx)
    write_manifest(folder, read_manifest(folder).model_copy(update={"files": {}}))
    sign(folder, private)
    with pytest.raises(ModelError, match="lists no file, so its signature holds for none"):
        verify_signature(folder, public)


def test_the_node_runs_no_model_without_the_signature(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")
    from adaptation_fixtures import ENGINE

    from ssada_ros.model_slot import open_model

    private, public = keys
    registry = make_registry(tmp_path / "registry", versions=2)
    sign(registry.path("v0001"), private)
    registry.promote("v0002")
    folder, model, trouble = open_model(str(registry.root), ENGINE, lambda _: None, str(public))
    model.engine.close()
    assert folder.name == "v0001"
    assert "v0002 is not signed" in trouble
    (folder / "manifest.json.sig").unlink()
    with pytest.raises(ModelError, match="is not signed"):
        open_model(str(registry.root), ENGINE, lambda _: None, str(public))
