from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from engine_fixtures import write_model

from ssada_core.errors import BackendError, EngineError, MissingExtraError, ModelError
from ssada_core.inference import export, load
from ssada_core.inference.base_engine import fit
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import TARGETS, deploy
from ssada_core.inference.load import load_engine, read_manifest, read_model
from ssada_core.inference.onnx_engine import providers_for
from ssada_core.inference.targets import INT8_TARGETS, installed_targets
from ssada_core.inference.torch_engine import TorchEngine
from ssada_core.networks.settings import NetworkSettings

BACKENDS = ("torch", "onnxruntime", "openvino")
SIZE = (96, 128)
SETTINGS = NetworkSettings(input_height=SIZE[0], input_width=SIZE[1])


def require_backend(name: str) -> None:
    pytest.importorskip(load.BACKENDS[name].module)


def settings(backend: str = "auto", **values: object) -> EngineSettings:
    return EngineSettings.model_validate({"backend": backend, "threads": 1, "output_size": "network", **values})


@pytest.fixture(scope="module")
def shared_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployed model; not to be changed by a test."""
    folder = write_model(tmp_path_factory.mktemp("models") / "model", SETTINGS)
    deploy(folder)
    return folder


def lose_device(engine: Any) -> None:
    """Make the real backend fail at its work, as it does when its device is gone."""
    if engine.backend == "torch":
        engine._graph.to("meta")
    elif engine.backend == "onnxruntime":
        engine._buffer = engine._buffer[:, :1]
    else:
        engine._request.get_input_tensor().shape = [1, 1, SIZE[1], 3]


@pytest.fixture
def model(shared_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(shared_model, tmp_path / "model"))


@pytest.fixture
def frame() -> np.ndarray:
    smooth = np.random.default_rng(3).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(smooth, SIZE[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def test_deploy_reports_and_leaves_only_what_it_compared(shared_model: Path) -> None:
    report = deploy(shared_model, targets=("onnx-fp32",))
    assert [target.name for target in report.targets] == ["onnx-fp32"]
    assert report.targets[0].equal >= 0.999
    assert report.targets[0].folder == shared_model / "deploy" / "onnx-fp32"
    assert {path.name for path in report.targets[0].folder.iterdir()} == {"model.onnx", "graph.json"}
    installed = set(installed_targets()) - INT8_TARGETS.keys()  # which needs frames
    assert {path.name for path in (shared_model / "deploy").iterdir()} == installed


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_answer_as_torch(shared_model: Path, backend: str, frame: np.ndarray) -> None:
    require_backend(backend)
    frames = [frame, np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)]
    with closing(load_engine(shared_model, settings("torch"))) as reference:
        expected = reference.infer(frames, features=True)
    with closing(load_engine(shared_model, settings(backend))) as engine:
        assert (engine.backend, engine.precision, engine.input_size) == (backend, "fp32", SIZE)
        found = engine.infer(frames, features=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(np.unique(theirs.label)) > 2
        assert np.mean(ours.label == theirs.label) >= 0.999
        assert np.abs(ours.confidence.astype(int) - theirs.confidence).max() <= 1
        assert ours.uncertainty == pytest.approx(theirs.uncertainty, rel=1e-3)
        assert ours.features is not None
        assert ours.features.dtype == np.float32
        assert 0 < ours.engine_s < 10
        np.testing.assert_allclose(ours.features, theirs.features, atol=1e-3)


@pytest.mark.shared_data
def test_backends_answer_as_torch_on_a_real_frame(tmp_path: Path, camvid: Path) -> None:
    real = cv2.imread(str(camvid / "images" / "0001TP_006690.jpg"))
    folder = write_model(tmp_path / "m", NetworkSettings(backbone="resnet18", input_height=192, input_width=320))
    report = deploy(folder, frames=[real])
    assert {target.name for target in report.targets} == set(installed_targets()) - INT8_TARGETS.keys()
    assert all(target.equal >= 0.999 for target in report.targets)


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_free_numpy_reference_of_the_answer(shared_model: Path, backend: str, frame: np.ndarray) -> None:
    require_backend(backend)
    network, _ = read_model(shared_model)
    rgb = (frame[..., ::-1] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        z = network(torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32)))[0].double().numpy()
    p = np.exp(z - z.max(axis=0))
    p /= p.sum(axis=0)
    with closing(load_engine(shared_model, settings(backend))) as engine:
        (prediction,) = engine.infer([frame])
    assert np.mean(prediction.label == p.argmax(axis=0)) > 0.999
    assert np.abs(prediction.confidence - 255 * p.max(axis=0)).max() < 1.0
    assert prediction.uncertainty == pytest.approx(-(p * np.log(p)).sum(axis=0).mean() / np.log(11), rel=1e-3)
    assert prediction.features is None


def nearest_by_centre(count: int, there: int) -> list[np.ndarray]:
    """For each of ``count`` pixels those of ``there`` whose centre is nearest: two where both are equally near."""
    doubled = (2 * np.arange(count) + 1) * there
    places = doubled // (2 * count)
    return [places, np.where(doubled % (2 * count), places, np.maximum(places - 1, 0))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_come_at_the_frames_own_size(shared_model: Path, backend: str, frame: np.ndarray) -> None:
    require_backend(backend)
    sizes = [(96, 128), (360, 480), (50, 70), (480, 640), (97, 31)]
    frames = [np.asarray(cv2.resize(frame, size[::-1]), np.uint8) for size in sizes]
    with closing(load_engine(shared_model, settings(backend))) as engine:
        at_network = engine.infer(frames)
    with closing(load_engine(shared_model, settings(backend, output_size="frame"))) as engine:
        at_frame = engine.infer(frames)
    for size, small, large in zip(sizes, at_network, at_frame, strict=True):
        assert small.label.shape == small.confidence.shape == SIZE
        near = [nearest_by_centre(n, m) for n, m in zip(size, SIZE, strict=True)]
        for plane, source in ((large.label, small.label), (large.confidence, small.confidence)):
            assert np.logical_or.reduce([plane == source[np.ix_(*places)] for places in product(*near)]).all()
        assert large.uncertainty == pytest.approx(small.uncertainty)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_are_not_overwritten_by_the_next_frame(shared_model: Path, backend: str, frame: np.ndarray) -> None:
    require_backend(backend)
    with closing(load_engine(shared_model, settings(backend))) as engine:
        (first,) = engine.infer([frame], features=True)
        assert first.features is not None
        kept = [first.label.copy(), first.confidence.copy(), first.features.copy()]
        second, third = engine.infer([255 - frame, np.zeros_like(frame)], features=True)
        assert not np.array_equal(second.label, third.label)
        assert not np.array_equal(first.label, second.label)
    for now, then in zip([first.label, first.confidence, first.features], kept, strict=True):
        np.testing.assert_array_equal(now, then)
        assert now.flags.owndata
        assert now.flags.writeable


def test_strided_views_are_read_as_they_look(shared_model: Path, frame: np.ndarray) -> None:
    padded = np.zeros((SIZE[0], SIZE[1] + 5, 4), np.uint8)
    padded[:, : SIZE[1], :3] = frame
    larger = np.ascontiguousarray(np.kron(frame, np.ones((2, 2, 1), np.uint8)))
    with closing(load_engine(shared_model, settings("onnxruntime"))) as engine:
        plain, view = engine.infer([frame, padded[:, : SIZE[1], :3]])
        np.testing.assert_array_equal(plain.label, view.label)
        flipped, contiguous = engine.infer([larger[:, ::-1], np.ascontiguousarray(larger[:, ::-1])])
        np.testing.assert_array_equal(flipped.label, contiguous.label)


def test_shrinking_by_much_averages_all_pixels() -> None:
    checker = np.indices((96, 96)).sum(axis=0) % 2 * 255
    frame = np.repeat(checker[..., None], 3, axis=2).astype(np.uint8)
    buffer = np.zeros((32, 32, 3), np.uint8)
    fit(frame, buffer)
    assert buffer.min() > 100
    assert buffer.max() < 155
    fit(np.full((40, 40, 3), 9, np.uint8), buffer)
    assert (buffer == 9).all()


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_what_is_not_a_frame_is_refused_and_the_engine_lives_on(
    shared_model: Path, bad: np.ndarray, frame: np.ndarray
) -> None:
    with closing(load_engine(shared_model, settings("onnxruntime"))) as engine:
        with pytest.raises(EngineError, match="frame"):
            engine.infer([bad])
        assert len(engine.infer([frame])) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_that_fails_is_told_from_a_frame_that_is_none(shared_model: Path, backend: str) -> None:
    require_backend(backend)
    grey = np.zeros((10, 10), np.uint8)
    with closing(load_engine(shared_model, settings(backend))) as engine:
        with pytest.raises(EngineError) as refused:
            engine.infer([grey])
        assert not isinstance(refused.value, BackendError)
        lose_device(engine)
        with pytest.raises(BackendError, match=backend):
            engine.infer([np.zeros((*SIZE, 3), np.uint8)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_close_from_another_thread_waits_and_is_repeatable(shared_model: Path, backend: str, frame: np.ndarray) -> None:
    require_backend(backend)
    engine = load_engine(shared_model, settings(backend))
    results: list[int] = []
    errors: list[Exception] = []
    started = threading.Event()

    def infer_until_closed() -> None:
        try:
            while True:
                started.set()
                results.append(len(engine.infer([frame] * 3)))
        except EngineError as error:
            errors.append(error)

    threads = [threading.Thread(target=infer_until_closed) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.wait(10)
    time.sleep(0.1)
    closers = [threading.Thread(target=engine.close) for _ in range(3)]
    for thread in [*closers]:
        thread.start()
    for thread in [*closers, *threads]:
        thread.join(30)
        assert not thread.is_alive()
    assert all(count == 3 for count in results)
    assert len(errors) == 2
    assert all("closed" in str(error) for error in errors)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer([frame])


def test_auto_takes_the_fastest_that_is_deployed_and_says_why(model: Path) -> None:
    lines: list[str] = []
    require_backend("openvino")
    load_engine(model, settings(), log=lines.append).close()
    shutil.rmtree(model / "deploy" / "openvino-fp32")
    with closing(load_engine(model, settings(), log=lines.append)) as engine:
        assert engine.backend == "openvino"  # which reads ONNX as well
    shutil.rmtree(model / "deploy")
    with closing(load_engine(model, settings(), log=lines.append)) as engine:
        assert engine.backend == "torch"
    assert [line.split()[1] for line in lines] == ["openvino", "openvino", "torch"]
    assert "128x96" in lines[0]
    assert "test-1" in lines[0]
    assert "not deployed for onnxruntime" in lines[2]
    load_engine(model, settings("torch"), log=lines.append).close()
    assert "asked for by name" in lines[3]


def test_auto_passes_over_what_is_not_installed(
    shared_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide(monkeypatch, "openvino")
    lines: list[str] = []
    with closing(load_engine(shared_model, settings(), log=lines.append)) as engine:
        assert engine.backend == "onnxruntime"
    assert "pip install 'ssada_ros[openvino]'" in lines[0]
    with pytest.raises(MissingExtraError, match="openvino"):
        load_engine(shared_model, settings("openvino"))
    hide(monkeypatch, "onnxruntime")
    with pytest.raises(EngineError, match="not installed: pip install"):
        load_engine(shared_model, settings("onnxruntime"))


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Point a backend at a package that is truly not there."""
    from dataclasses import replace

    entries = {
        name: replace(entry, module="no_such_package_" + module) if entry.module == module else entry
        for name, entry in load.BACKENDS.items()
    }
    monkeypatch.setattr(load, "BACKENDS", entries)


def test_what_is_not_deployed_says_how_to_deploy(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "bare", SETTINGS)
    with pytest.raises(EngineError, match="ssada export"):
        load_engine(folder, settings("onnxruntime"))


def test_precisions(shared_model: Path, frame: np.ndarray) -> None:
    with pytest.raises(EngineError, match="choose precision fp32 or int8"):
        load_engine(shared_model, settings("onnxruntime", precision="bf16"))
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="on a GPU only: choose bf16 or fp32"):
            load_engine(shared_model, settings("torch", precision="fp16"))
    with closing(load_engine(shared_model, settings("torch"))) as engine:
        (exact,) = engine.infer([frame])
    with closing(load_engine(shared_model, settings("torch", precision="bf16"))) as engine:
        (rough,) = engine.infer([frame])
        assert engine.precision == "bf16"
    assert not np.array_equal(rough.confidence, exact.confidence)
    assert np.mean(rough.label == exact.label) > 0.9


def test_a_batch_answers_as_its_frames_do(shared_model: Path, frame: np.ndarray) -> None:
    network, _ = read_model(shared_model)
    sizes = [SIZE, (50, 70), (200, 160), SIZE, (97, 31)]
    frames = [np.asarray(cv2.resize(frame[:, ::step], size[::-1]), np.uint8) for step, size in enumerate(sizes, 1)]
    with closing(TorchEngine(network, SIZE, settings("torch"))) as engine:
        expected = engine.infer(frames, features=True)
    with closing(TorchEngine(network, SIZE, settings("torch", batch=3))) as engine:
        found = engine.infer(frames, features=True)
        assert engine.infer([]) == []
        with pytest.raises(EngineError, match="uint8 array"):
            engine.infer([frames[0], frames[0].astype(np.float32)])
    assert len(found) == len(frames)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.mean(ours.label == theirs.label) >= 0.999
        assert ours.uncertainty == pytest.approx(theirs.uncertainty, rel=1e-3)
        np.testing.assert_allclose(ours.features, theirs.features, atol=1e-3)
    assert not np.array_equal(found[0].label, found[1].label)


@pytest.mark.parametrize(
    ("values", "providers"),
    [
        ({}, ["CPU"]),
        ({"device": "cpu"}, ["CPU"]),
        ({"device": "gpu"}, ["CUDA", "CPU"]),
        ({"onnx_provider": "cuda"}, ["CUDA", "CPU"]),
        ({"onnx_provider": "tensorrt", "device": "gpu"}, ["Tensorrt", "CUDA", "CPU"]),
    ],
)
def test_providers_of_onnxruntime(values: dict[str, object], providers: list[str]) -> None:
    named = [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU")]
    found = providers_for(settings("onnxruntime", **values), named)
    assert found == [f"{name}ExecutionProvider" for name in providers]


def test_devices_that_are_not_there_are_said_with_what_to_install(shared_model: Path) -> None:
    with pytest.raises(EngineError, match="onnx_provider cuda does not compute on device cpu"):
        load_engine(shared_model, settings("onnxruntime", onnx_provider="cuda", device="cpu"))
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(MissingExtraError, match=r"onnx_provider cuda .*onnxruntime-gpu.*ssada_ros\[cuda\]"):
            load_engine(shared_model, settings("onnxruntime", device="gpu"))
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="torch sees no NVIDIA GPU"):
            load_engine(shared_model, settings("torch", device="gpu"))
    openvino = pytest.importorskip("openvino")
    if not any(name.startswith("GPU") for name in openvino.Core().available_devices):
        with pytest.raises(EngineError, match="openvino finds CPU and no Intel GPU"):
            load_engine(shared_model, settings("openvino", device="gpu"))
    with pytest.raises(EngineError, match="openvino computes bf16 on this device"):
        load_engine(shared_model, settings("openvino", precision="fp16"))


def test_auto_prefers_torch_only_where_it_sees_a_gpu(shared_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "torch_sees_gpu", lambda: True)
    lines: list[str] = []
    with closing(load_engine(shared_model, settings(), log=lines.append)) as engine:
        assert engine.backend == "torch"
    assert "an NVIDIA GPU was found" in lines[0]
    with closing(load_engine(shared_model, settings(device="cpu"), log=lines.append)) as engine:
        assert engine.backend != "torch"
    assert "NVIDIA" not in lines[1]


def test_openvino_bf16_or_a_clear_refusal(shared_model: Path, frame: np.ndarray) -> None:
    openvino = pytest.importorskip("openvino")
    wanted = settings("openvino", precision="bf16")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(EngineError, match="no bfloat16"):
            load_engine(shared_model, wanted)
        return
    with (
        closing(load_engine(shared_model, wanted)) as rough,
        closing(load_engine(shared_model, settings("openvino"))) as exact,
    ):
        assert np.mean(rough.infer([frame])[0].label == exact.infer([frame])[0].label) > 0.9


def test_exports_of_other_weights_or_settings_are_refused(model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", SETTINGS, seed=1)
    shutil.copy(other / "weights.safetensors", model / "weights.safetensors")
    with pytest.raises(EngineError, match=r"weights_sha256.*ssada export"):
        load_engine(model, settings("onnxruntime"))
    deploy(model, targets=("onnx-fp32",))
    load_engine(model, settings("onnxruntime")).close()
    edit(model, lambda manifest: manifest["label_space"]["classes"].pop() and manifest["label_space"]["colors"].pop())
    with pytest.raises(EngineError, match="num_classes is 11 but the model's is 10"):
        load_engine(model, settings("onnxruntime"))
    with pytest.raises(ModelError, match=r"expected \(10,.*found \(11,"):
        load_engine(model, settings("torch"))


def edit(model: Path, change: object) -> None:
    path = model / "manifest.json"
    manifest = json.loads(path.read_text())
    assert callable(change)
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_damaged_and_foreign_files_are_engine_errors(model: Path, backend: str, tmp_path: Path) -> None:
    require_backend(backend)
    shutil.rmtree(model / "deploy" / "openvino-fp32", ignore_errors=True)
    path = model / "deploy" / "onnx-fp32" / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EngineError, match="cannot load"):
        load_engine(model, settings(backend))
    small = write_model(tmp_path / "small", NetworkSettings(input_height=64, input_width=64))
    deploy(small, targets=("onnx-fp32",))
    shutil.copy(small / "deploy" / "onnx-fp32" / "model.onnx", path)
    with pytest.raises(EngineError, match=r"takes \[1, 64, 64, 3\].*export it again"):
        load_engine(model, settings(backend))
    (path.parent / "graph.json").unlink()
    with pytest.raises(EngineError, match="ssada export"):
        load_engine(model, settings(backend))


def test_an_export_that_answers_otherwise_is_not_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real defect: the exported file's first large weight is negated behind deploy's back."""
    from dataclasses import replace

    def defective(source: Path, path: Path) -> None:
        graph = onnx.load(source)
        weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        weight.raw_data = (-np.frombuffer(weight.raw_data, np.float32)).tobytes()
        onnx.save(graph, path)

    before = (model / "deploy" / "onnx-fp32" / "model.onnx").read_bytes()
    broken = {"onnx-fp32": replace(TARGETS["onnx-fp32"], write=defective)}
    monkeypatch.setattr(export, "TARGETS", broken)
    with pytest.raises(EngineError, match=r"% of the labels are torch's"):
        deploy(model, targets=("onnx-fp32",))
    assert (model / "deploy" / "onnx-fp32" / "model.onnx").read_bytes() == before
    assert not list((model / "deploy").glob("*.tmp"))


def test_unknown_targets_are_named(shared_model: Path) -> None:
    with pytest.raises(EngineError, match=r"'tensorrt-int4'.*onnx-fp32"):
        deploy(shared_model, targets=("tensorrt-int4",))


def test_model_directories_that_are_none(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
    edit(model, lambda manifest: manifest.pop("version"))
    with pytest.raises(ModelError, match="'version'"):
        load_engine(model, settings())
    (model / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match="manifest"):
        read_model(model)


def test_missing_weights_are_a_model_error(model: Path) -> None:
    (model / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        read_model(model)
    load_engine(model, settings("onnxruntime")).close()  # a vehicle may carry the deployed model alone


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_perception_does_not_import_torch(shared_model: Path, backend: str) -> None:
    require_backend(backend)
    program = (
        "import sys, pathlib\n"
        "from ssada_core.inference.load import load_engine\n"
        "from ssada_core.inference.engine import EngineSettings\n"
        f"load_engine(pathlib.Path({str(shared_model)!r}), EngineSettings(backend={backend!r}, threads=1)).close()\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_torch_on_the_gpu_answers_as_onnxruntime(shared_model: Path, frame: np.ndarray) -> None:
    with (
        closing(load_engine(shared_model, settings("torch"))) as gpu,
        closing(load_engine(shared_model, settings("onnxruntime"))) as cpu,
    ):
        assert np.mean(gpu.infer([frame])[0].label == cpu.infer([frame])[0].label) > 0.99


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_torch_in_half_precision_on_the_gpu(shared_model: Path, frame: np.ndarray, precision: str) -> None:
    with (
        closing(load_engine(shared_model, settings("torch", precision=precision, device="gpu"))) as half,
        closing(load_engine(shared_model, settings("onnxruntime"))) as cpu,
    ):
        answers, expected = half.infer([frame] * 5), cpu.infer([frame])[0]
    assert all(np.mean(answer.label == expected.label) > 0.95 for answer in answers)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_onnxruntime_on_the_gpu(shared_model: Path, frame: np.ndarray, provider: str) -> None:
    import onnxruntime

    names = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
    if names[provider] not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {names[provider]}: pip install 'ssada_ros[cuda]'")
    with (
        closing(load_engine(shared_model, settings("onnxruntime", onnx_provider=provider))) as gpu,
        closing(load_engine(shared_model, settings("onnxruntime"))) as cpu,
    ):
        assert np.mean(gpu.infer([frame])[0].label == cpu.infer([frame])[0].label) > 0.99
