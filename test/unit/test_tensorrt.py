"""What TensorRT is given can be checked without it; what it makes of that needs an NVIDIA GPU (``make test-cuda``)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from engine_fixtures import lively_network, write_model
from onnx import TensorProto, numpy_helper

from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.errors import EngineError, MissingExtraError
from ssada_core.inference.convert import export_onnx
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import deploy
from ssada_core.inference.load import load_engine
from ssada_core.inference.onnx_engine import OnnxEngine
from ssada_core.inference.quantise import as_input, quantise_tensorrt
from ssada_core.inference.targets import installed_targets, targets_for
from ssada_core.inference.tensorrt_cache import KEPT, EngineCache, EngineKey, engine_key
from ssada_core.networks.settings import NetworkSettings

SIZE = (64, 96)
SETTINGS = NetworkSettings(backbone="resnet18", input_height=SIZE[0], input_width=SIZE[1])
DRIVE = SimulatedDrive(seed=1, size=SIZE)
FRAMES = [DRIVE.frame(index * 7, "day")[0] for index in range(8)]
ENGINE = EngineSettings(threads=1, output_size="network")

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("tensorrt") is None, reason="no NVIDIA GPU, or no tensorrt"
)


def graph(folder: Path, form: str, seed: int = 0) -> Path:
    path = folder / f"{form}-{seed}.onnx"
    export_onnx(lively_network(SETTINGS, seed), SETTINGS, path, form)  # type: ignore[arg-type]
    return path


def labels(path: Path, precision: str = "fp32") -> np.ndarray:
    settings = ENGINE.model_copy(update={"precision": precision})
    with closing(OnnxEngine(path, SIZE, settings)) as engine:
        return np.stack([prediction.label for prediction in engine.infer(FRAMES[:2])])


def types_inside(path: Path) -> dict[str, int]:
    """Element type of every tensor between the nodes."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    return {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}


@pytest.mark.parametrize("form", ["tensorrt", "tensorrt-half"])
def test_no_byte_is_computed_with_and_the_answer_is_the_same(tmp_path: Path, form: str) -> None:
    path = graph(tmp_path, form)
    assert TensorProto.UINT8 not in types_inside(path).values()
    used = [node.op_type for node in onnx.load(str(path)).graph.node if "frames" in node.input]
    assert used == ["Cast"]
    plain = labels(graph(tmp_path, "plain"))
    assert len(np.unique(plain)) > 3
    assert np.mean(labels(path) == plain) >= (0.999 if form == "tensorrt" else 0.99)


def test_half_is_in_the_graph_and_only_in_the_network(tmp_path: Path) -> None:
    model = onnx.load(str(graph(tmp_path, "tensorrt-half")))
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] > 3]
    assert len(weights) > 20
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    kinds = types_inside(graph(tmp_path, "tensorrt-half"))
    logits = [kind for name, kind in kinds.items() if name.startswith("/MatMul")]
    assert logits
    assert set(logits) == {TensorProto.FLOAT}


def test_int8_is_signed_and_symmetric_throughout(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    source, path = graph(tmp_path, "tensorrt"), tmp_path / "int8.onnx"
    quantise_tensorrt(source, path, [as_input(frame, SIZE) for frame in FRAMES[:6]], "resnet18")
    model = onnx.load(str(path))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(nodes) > 20
    for node in nodes:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert np.mean(labels(path, "int8") == labels(source)) > 0.8


def test_an_engine_is_found_by_content_and_one_to_refit_by_structure(tmp_path: Path) -> None:
    first, second = (graph(tmp_path, "tensorrt", seed).read_bytes() for seed in (0, 1))
    other = NetworkSettings(backbone="resnet18", input_height=96, input_width=96)
    export_onnx(lively_network(other), other, tmp_path / "other.onnx", "tensorrt")
    keys = [
        engine_key(model, "NVIDIA Orin (x)", (8, 7), "10.3.0")
        for model in (first, second, (tmp_path / "other.onnx").read_bytes())
    ]
    assert keys[0].structure == keys[1].structure != keys[2].structure
    assert len({key.content for key in keys}) == 3
    assert keys[0].machine == "NVIDIA_Orin_x_8.7_trt10.3.0"
    cache = EngineCache(tmp_path / "cache")
    assert cache.exact(keys[0]) is None
    cache.store(keys[0], b"built")
    assert cache.exact(keys[0]) == b"built"
    assert cache.alike(keys[0]) is None
    assert cache.alike(keys[1]) == b"built"
    assert cache.alike(keys[2]) is None
    assert cache.alike(engine_key(second, "NVIDIA Orin (x)", (8, 7), "11.0.0")) is None
    cache.forget(keys[0])
    assert cache.alike(keys[1]) is None


KEY = EngineKey("structure", "content", "gpu_8.0_trt10.3")


def test_a_cache_that_cannot_be_written_costs_no_engine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    cache = EngineCache(tmp_path / "file" / "cache")
    cache.store(KEY, b"built")  # what was built for minutes goes on to run
    assert "the TensorRT engine is not kept" in caplog.text
    assert cache.exact(KEY) is None
    cache.forget(KEY)


def test_a_folder_that_may_not_be_searched_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, pattern: str) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))  # as Path.glob before Python 3.13

    monkeypatch.setattr(Path, "glob", forbidden)
    assert EngineCache(tmp_path).alike(KEY) is None


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def nobody_knows() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody_knows)
    cache = EngineCache()
    cache.store(KEY, b"built")
    assert "set XDG_CACHE_HOME" in caplog.text
    assert cache.exact(KEY) is None


def test_the_least_recently_used_engines_make_room(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    base = engine_key(graph(tmp_path, "tensorrt").read_bytes(), "gpu", (8, 0), "10.0")
    keys = [type(base)(base.structure, f"{number:02d}", base.machine) for number in range(KEPT + 2)]
    for number, key in enumerate(keys):
        cache.store(key, b"x")
        os.utime(tmp_path / key.name, (number, number))
    cache.store(keys[-1], b"x")
    kept = {path.name for path in tmp_path.glob("*.engine")}
    assert kept == {key.name for key in keys[2:]}


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_asked_for_by_name_it_says_what_to_install(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", SETTINGS)
    with pytest.raises(MissingExtraError, match=r"ssada_ros\[tensorrt\]"):
        load_engine(folder, EngineSettings(backend="tensorrt"))
    assert not any("tensorrt" in name for name in installed_targets())
    assert not any("tensorrt" in name for name in targets_for(EngineSettings(precision="auto")))
    with pytest.raises(MissingExtraError):
        deploy(folder, targets=["tensorrt-fp32"])


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return EngineCache()


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999), ("fp16", 0.99), ("int8", 0.8)])
def test_tensorrt_answers_as_torch(tmp_path: Path, cached: EngineCache, precision: str, least: float) -> None:
    folder = write_model(tmp_path / "model", SETTINGS)
    report = deploy(folder, targets=[f"tensorrt-{precision}"], frames=FRAMES)
    assert report.refused == ()
    chosen = ENGINE.model_copy(update={"backend": "tensorrt", "precision": precision})
    reference = ENGINE.model_copy(update={"backend": "torch", "device": "cpu"})
    with closing(load_engine(folder, chosen)) as ours, closing(load_engine(folder, reference)) as theirs:
        pairs = list(zip(ours.infer(FRAMES), theirs.infer(FRAMES), strict=True))
    assert np.mean([np.mean(a.label == b.label) for a, b in pairs]) >= least
    assert max(abs(a.uncertainty - b.uncertainty) for a, b in pairs) < 0.05


@pytest.mark.cuda
@needs_gpu
def test_other_weights_are_refitted_into_a_copy_or_built(
    tmp_path: Path, cached: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssada_core.inference import tensorrt_engine as module

    first, second = graph(tmp_path, "tensorrt", 0), graph(tmp_path, "tensorrt", 1)
    with closing(module.TensorRtEngine(first, SIZE, ENGINE)) as engine:
        before = engine.infer(FRAMES[:2])
        assert len(list(cached.folder.glob("*.engine"))) == 1
        with closing(module.TensorRtEngine(second, SIZE, ENGINE)) as other:
            swapped = np.stack([prediction.label for prediction in other.infer(FRAMES[:2])])
        assert np.mean(swapped == labels(second)) > 0.99
        after = engine.infer(FRAMES[:2])  # the first one kept its own weights
    assert all(np.array_equal(a.label, b.label) for a, b in zip(before, after, strict=True))
    shutil.rmtree(cached.folder)
    with closing(module.TensorRtEngine(first, SIZE, ENGINE)):
        pass
    monkeypatch.setattr(module, "answers_alike", lambda *_: False)
    with closing(module.TensorRtEngine(second, SIZE, ENGINE)) as rebuilt:
        found = np.stack([prediction.label for prediction in rebuilt.infer(FRAMES[:2])])
    assert len(list(cached.folder.glob("*.engine"))) == 2
    assert np.mean(found == labels(second)) > 0.99


@pytest.mark.cuda
@needs_gpu
def test_a_damaged_engine_is_built_again(tmp_path: Path, cached: EngineCache) -> None:
    from ssada_core.inference.tensorrt_engine import TensorRtEngine

    path = graph(tmp_path, "tensorrt")
    TensorRtEngine(path, SIZE, ENGINE).close()
    (file,) = cached.folder.glob("*.engine")
    file.write_bytes(b"no engine")
    TensorRtEngine(path, SIZE, ENGINE).close()
    assert file.stat().st_size > 1000


@pytest.mark.cuda
@needs_gpu
def test_another_size_is_named(tmp_path: Path, cached: EngineCache) -> None:
    from ssada_core.inference.tensorrt_engine import TensorRtEngine

    with pytest.raises(EngineError, match="the manifest's size needs"):
        TensorRtEngine(graph(tmp_path, "tensorrt"), (32, 32), ENGINE)
