"""``ssada export`` on models that are sealed: what it leaves is what the manifest lists, also where it fails."""

from __future__ import annotations

import shutil
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cli_fixtures import ssada_here
from engine_fixtures import write_model

from ssada_core.errors import ModelError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine, read_manifest
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.model_files import seal, verify

AUTO = EngineSettings(threads=1)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose manifest lists its weights; not to be changed by a test."""
    size = NetworkSettings(backbone="resnet18", input_height=64, input_width=64)
    folder = write_model(tmp_path_factory.mktemp("sealed") / "model", size)
    seal(folder, read_manifest(folder))
    return folder


@pytest.fixture
def model(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "model"))


def backend_of(model: Path) -> str:
    with closing(load_engine(model, AUTO)) as engine:
        return engine.backend


@pytest.mark.parametrize(("target", "hidden"), [("openvino-fp32", "openvino"), ("onnx-int8", "nncf")])
def test_one_that_fails_at_its_second_target_changes_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch, target: str, hidden: str
) -> None:
    monkeypatch.setitem(sys.modules, hidden, None)  # as where it is not installed
    before = (model / "manifest.json").read_bytes()
    done = ssada_here("export", model, "--target", "onnx-fp32", "--target", target, "--data", "sim:day:1:0-8:2")
    assert done.status == 1
    assert f"needs the package '{hidden}'" in done.err
    assert (model / "manifest.json").read_bytes() == before
    assert list((model / "deploy").iterdir()) == []
    verify(model)
    assert backend_of(model) == "torch"


def test_the_same_target_twice_is_built_once(model: Path) -> None:
    done = ssada_here("export", model, "--target", "onnx-fp32", "--target", "onnx-fp32")
    assert done.status == 0
    assert done.err.count("onnx-fp32:") == 1
    verify(model)
    assert backend_of(model) in {"openvino", "onnxruntime"}


def flip(path: Path) -> None:
    """Change one byte amid the file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def test_damage_to_a_form_that_is_not_rebuilt_is_not_sealed(model: Path) -> None:
    pytest.importorskip("openvino")
    assert ssada_here("export", model, "--target", "openvino-fp32").status == 0
    flip(model / "deploy/openvino-fp32/model.bin")
    done = ssada_here("export", model, "--target", "onnx-fp32")
    assert done.status == 1
    assert "openvino-fp32/model.bin differs from the manifest's SHA-256" in done.err
    with pytest.raises(ModelError, match=r"model\.bin differs"):
        verify(model)
    (model / "deploy/export.tmp").mkdir()
    (model / "deploy/export.tmp/plain.onnx").write_bytes(b"what a killed export left")
    # Either remedy: build it anew, or take it away.
    assert ssada_here("export", model, "--target", "openvino-fp32").status == 0
    verify(model)
    shutil.rmtree(model / "deploy/openvino-fp32")
    assert ssada_here("export", model, "--target", "onnx-fp32").status == 0
    verify(model)


def test_an_accepted_int8_that_stays_for_want_of_frames_is_checked(model: Path) -> None:
    pytest.importorskip("nncf")
    assert ssada_here("export", model, "--target", "onnx-int8", "--data", "sim:day:1:0-8:2").status == 0
    flip(model / "deploy/onnx-int8/model.onnx")
    done = ssada_here("export", model, "--target", "onnx-fp32", "--target", "onnx-int8")
    assert done.status == 1
    assert "onnx-int8/model.onnx differs" in done.err


@pytest.mark.parametrize("name", ["deploy/openvino-fp32/model.xml", "notes.txt"])
def test_files_that_nobody_listed_are_not_sealed(model: Path, name: str) -> None:
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_bytes(b"from elsewhere")
    done = ssada_here("export", model, "--target", "onnx-fp32")
    assert done.status == 1
    assert f"{name} is not in the manifest: delete it" in done.err
    assert name not in read_manifest(model).files
