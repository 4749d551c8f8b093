"""From a model directory to a running engine. Nothing here imports torch unless torch is what runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ssada_core.errors import ConfigError, EngineError, MissingExtraError, ModelError, StoreError
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.hardware import torch_sees_gpu
from ssada_core.store.files import read_json, sha256_file
from ssada_core.store.manifest import MANIFEST_FILE, WEIGHTS_FILE, ModelManifest
from ssada_core.store.model_files import verify_listed

if TYPE_CHECKING:
    from ssada_core.networks.base import SegmentationNetwork

GRAPH_FILE = "graph.json"
"""Beside each deployed model: what it was exported from."""
ONNX_FILE = "deploy/onnx-fp32/model.onnx"
ONNX_INT8_FILE = "deploy/onnx-int8/model.onnx"
OPENVINO_FILE = "deploy/openvino-fp32/model.xml"
OPENVINO_INT8_FILE = "deploy/openvino-int8/model.xml"
TENSORRT_FILE = "deploy/tensorrt-fp32/model.onnx"
TENSORRT_FP16_FILE = "deploy/tensorrt-fp16/model.onnx"
TENSORRT_INT8_FILE = "deploy/tensorrt-int8/model.onnx"
_AUTO_PRECISIONS = ("int8", "fp32")
"""What precision ``auto`` tries, in this order."""


@dataclass(frozen=True)
class Backend:
    """How a backend is found and opened.

    Attributes:
        module: the package it needs.
        extra: the extra of this package that installs it; empty where it comes with the package itself.
        files: by precision, the deployed files it can run, best first; empty if it runs the weights.
        open: makes the engine from the model directory, the file and the manifest.
    """

    module: str
    extra: str
    files: Mapping[str, tuple[str, ...]]
    open: Callable[[Path, Path, ModelManifest, EngineSettings], Engine]


def read_manifest(model_dir: Path) -> ModelManifest:
    """Read and validate ``manifest.json``.

    Raises:
        ModelError: if it is missing or malformed, or its label space is.
    """
    path = model_dir / MANIFEST_FILE
    if not path.is_file():
        raise ModelError(f"no model at {model_dir}: there is no {MANIFEST_FILE}; name a model directory")
    try:
        manifest = ModelManifest.model_validate(read_json(path))
        manifest.labels()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelError(f"manifest {path}: '{key}': {first['msg'].lower()}: mend or restore the manifest") from error
    except (ConfigError, StoreError) as error:
        raise ModelError(f"manifest {path}: {error}") from error
    return manifest


def read_model(model_dir: Path) -> tuple[SegmentationNetwork, ModelManifest]:
    """Build the network of a model directory with its weights, in evaluation mode.

    Raises:
        ModelError: if the manifest or the weights are missing, malformed, changed or do not fit each other.
    """
    from ssada_core.networks.build import build_network
    from ssada_core.networks.weights import load_weights

    manifest = read_manifest(model_dir)
    network = build_network(manifest.network, manifest.labels().num_classes, pretrained=False)
    verify_listed(model_dir, manifest, below=WEIGHTS_FILE)
    load_weights(network, model_dir / WEIGHTS_FILE)
    network.eval()
    return network, manifest


def load_engine(model_dir: Path, settings: EngineSettings, *, log: Callable[[str], None] | None = None) -> Engine:
    """Load a model for inference; the first frame is already as fast as the others.

    Args:
        model_dir: a model directory (see :class:`ModelManifest`).
        settings: backend ``auto`` takes the fastest that is installed and deployed; precision
            ``auto`` takes int8 where it was deployed, which is only where it was accurate enough, else fp32.
        log: gets one line that says what runs and why not something faster.

    Raises:
        ModelError: if the directory holds no valid model, or a file of it is not the one that the manifest names.
        MissingExtraError: if the backend that was asked for is not installed.
        EngineError: if it is not deployed, was exported from other weights, or cannot run.
    """
    manifest = read_manifest(model_dir)
    name, precision, passed_over = _choose(model_dir, settings)
    backend = BACKENDS[name]
    file = _deployed_file(model_dir, backend, precision)
    if backend.files[precision]:
        check_deployed(model_dir, file, manifest)
        verify_listed(model_dir, manifest, below=str(file.parent.relative_to(model_dir)))
    engine = backend.open(model_dir, file, manifest, settings.model_copy(update={"precision": precision}))
    if log is not None:
        height, width = engine.input_size
        why = _reason(settings, passed_over)
        log(f"inference: {name} {engine.precision} at {width}x{height}, model {manifest.version} ({why})")
    return engine


def check_deployed(model_dir: Path, file: Path, manifest: ModelManifest) -> None:
    """Refuse a deployed file that was exported from another network or from other weights.

    Raises:
        EngineError: naming what differs.
    """
    try:
        graph: dict[str, Any] = read_json(file.parent / GRAPH_FILE)
    except StoreError as error:
        raise EngineError(f"{file} was not written by this package ({error}): {_remedy(model_dir)}") from error
    expected = describe(model_dir, manifest)
    for key, value in expected.items():
        if graph.get(key) != value:
            raise EngineError(f"{file}: {key} is {graph.get(key)!r} but the model's is {value!r}: {_remedy(model_dir)}")


def describe(model_dir: Path, manifest: ModelManifest) -> dict[str, Any]:
    """What a deployed file must agree with; the content of :data:`GRAPH_FILE`."""
    description: dict[str, Any] = {
        "num_classes": manifest.labels().num_classes,
        "network": manifest.network.model_dump(mode="json"),
    }
    weights = model_dir / WEIGHTS_FILE
    return description | ({"weights_sha256": sha256_file(weights)} if weights.is_file() else {})


def _choose(model_dir: Path, settings: EngineSettings) -> tuple[str, str, list[str]]:
    """Names of backend and precision, and why each combination before them was passed over."""
    names = _order(settings.device) if settings.backend == "auto" else (settings.backend,)
    passed_over: list[EngineError | MissingExtraError] = []
    for name in names:
        for precision in _precisions(BACKENDS[name], settings):
            obstacle = _obstacle(name, precision, model_dir)
            if obstacle is None:
                return name, precision, [str(error) for error in passed_over]
            passed_over.append(obstacle)
    if settings.backend != "auto":
        raise passed_over[-1]
    raise EngineError(f"no backend can run {model_dir}: {'; '.join(map(str, passed_over))}")


def _order(device: str) -> tuple[str, ...]:
    """What ``auto`` tries, fastest first: whatever runs on an NVIDIA GPU is ahead of everything on the CPU."""
    return ON_CPU if device == "cpu" or not torch_sees_gpu() else ON_GPU


def _precisions(backend: Backend, settings: EngineSettings) -> tuple[str, ...]:
    if settings.precision != "auto":
        return (settings.precision,)
    return tuple(precision for precision in _AUTO_PRECISIONS if precision in backend.files)


def _obstacle(name: str, precision: str, model_dir: Path) -> EngineError | MissingExtraError | None:
    """Why a backend cannot run this model, with the remedy, or None."""
    backend = BACKENDS[name]
    if importlib.util.find_spec(backend.module) is None:
        if backend.extra:
            return MissingExtraError(backend.module, backend.extra, f"the inference backend {name}")
        return EngineError(f"the inference backend {name} is not installed: pip install {backend.module}")
    if precision not in backend.files:
        return EngineError(f"{name} has no {precision}: choose precision {' or '.join(backend.files)}")
    if not _deployed_file(model_dir, backend, precision).is_file():
        return EngineError(_not_deployed(name, precision, model_dir))
    return None


def _not_deployed(name: str, precision: str, model_dir: Path) -> str:
    backend = BACKENDS[name]
    if name == "torch" and (model_dir / ONNX_FILE).is_file():
        return "torch has no weights to run, the model is an ONNX graph: choose onnxruntime or openvino"
    if precision == "int8":
        target = _deployed_file(model_dir, backend, precision).parent.name
        return (
            f"the model has no int8 for {name} (not exported with frames to calibrate on, or refused as "
            f"inaccurate): run 'ssada export {model_dir} --target {target} --data FRAMES'"
        )
    return f"the model is not deployed for {name}: {_remedy(model_dir)}"


def _deployed_file(model_dir: Path, backend: Backend, precision: str) -> Path:
    candidates = [model_dir / file for file in backend.files[precision] or (WEIGHTS_FILE,)]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _reason(settings: EngineSettings, passed_over: list[str]) -> str:
    gpu = " and an NVIDIA GPU was found" if settings.backend == "auto" and _order(settings.device) is ON_GPU else ""
    auto = f"auto: first that is installed and deployed{gpu}"
    chosen = "asked for by name" if settings.backend != "auto" else auto
    return "; ".join([chosen, *passed_over])


def _remedy(model_dir: Path) -> str:
    return f"run 'ssada export {model_dir}'"


def _size(manifest: ModelManifest) -> tuple[int, int]:
    return manifest.network.input_height, manifest.network.input_width


def _open_openvino(_: Path, file: Path, manifest: ModelManifest, settings: EngineSettings) -> Engine:
    from ssada_core.inference.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(file, _size(manifest), settings)


def _open_onnxruntime(_: Path, file: Path, manifest: ModelManifest, settings: EngineSettings) -> Engine:
    from ssada_core.inference.onnx_engine import OnnxEngine

    return OnnxEngine(file, _size(manifest), settings)


def _open_torch(model_dir: Path, _: Path, manifest: ModelManifest, settings: EngineSettings) -> Engine:
    from ssada_core.inference.torch_engine import TorchEngine

    return TorchEngine(read_model(model_dir)[0], _size(manifest), settings)


def _open_tensorrt(_: Path, file: Path, manifest: ModelManifest, settings: EngineSettings) -> Engine:
    from ssada_core.inference.tensorrt_engine import TensorRtEngine

    return TensorRtEngine(file, _size(manifest), settings)


_FP32_FILES = (OPENVINO_FILE, ONNX_FILE)
_OPENVINO_FILES = {"fp32": _FP32_FILES, "fp16": _FP32_FILES, "bf16": _FP32_FILES, "int8": (OPENVINO_INT8_FILE,)}
BACKENDS: Mapping[str, Backend] = {
    "openvino": Backend("openvino", "openvino", _OPENVINO_FILES, _open_openvino),
    "onnxruntime": Backend("onnxruntime", "", {"fp32": (ONNX_FILE,), "int8": (ONNX_INT8_FILE,)}, _open_onnxruntime),
    "torch": Backend("torch", "", {"fp32": (), "fp16": (), "bf16": ()}, _open_torch),
    "tensorrt": Backend(
        "tensorrt",
        "tensorrt",
        {"fp32": (TENSORRT_FILE,), "fp16": (TENSORRT_FP16_FILE,), "int8": (TENSORRT_INT8_FILE,)},
        _open_tensorrt,
    ),
}
"""Every backend by name."""
ON_CPU = ("openvino", "onnxruntime", "torch")
"""The order in which ``auto`` tries them on a CPU."""
ON_GPU = ("tensorrt", "torch", "openvino", "onnxruntime")
"""The same where torch sees an NVIDIA GPU; onnxruntime without a provider by name is on the CPU."""
