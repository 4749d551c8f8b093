"""ONNX Runtime on the CPU, or with CUDA or TensorRT on an NVIDIA GPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ssada_core.errors import BackendError, EngineError, MissingExtraError, require
from ssada_core.inference.base_engine import FrameEngine, RawOutput
from ssada_core.inference.engine import EngineSettings

INPUT_NAME = "frames"
_PRECISIONS = ("fp32", "int8")
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


class OnnxEngine(FrameEngine):
    """A session on ``deploy/onnx-fp32/model.onnx`` or its quantised form."""

    def __init__(self, path: Path, size: tuple[int, int], settings: EngineSettings) -> None:
        """Load and run once.

        Raises:
            MissingExtraError: if onnxruntime, or one with the provider asked for, is not installed.
            EngineError: if the file cannot be loaded, is not a deployed graph of this size, or precision or provider
                cannot be had.
        """
        if settings.precision not in _PRECISIONS:
            raise EngineError(
                f"onnxruntime runs fp32 and int8 only, not {settings.precision}: choose precision fp32, "
                "or another backend"
            )
        super().__init__("onnxruntime", size, settings)
        onnxruntime = require("onnxruntime", extra="onnxruntime", purpose="the inference backend onnxruntime")
        self._errors = error_types()
        providers = providers_for(settings, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        # Threads that wait in a busy loop would take the cores from the training process beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except self._errors as error:
            raise EngineError(f"onnxruntime cannot load {path} ({error}): export the model again") from error
        _check_provider(providers[0], self._session.get_providers()[0])
        self._check_input(self._session.get_inputs()[0].shape)
        self._warm_up()

    def _run(self, count: int) -> list[RawOutput]:
        try:
            outputs = self._session.run(None, {INPUT_NAME: self._buffer})
        except self._errors as error:
            raise BackendError(f"onnxruntime failed: {error}") from error
        if len(outputs) != len(RawOutput._fields):
            raise EngineError(f"the model has {len(outputs)} outputs, expected {RawOutput._fields}: export it again")
        return [RawOutput(*(output[index] for output in outputs)) for index in range(count)]

    def _release(self) -> None:
        self._session = None


def providers_for(settings: EngineSettings, available: list[str]) -> list[str]:
    """ONNX Runtime's names of the providers to use, best first; the CPU's takes what the others cannot.

    Args:
        settings: device and provider.
        available: what this onnxruntime was built with.

    Raises:
        EngineError: if device and provider contradict each other.
        MissingExtraError: if the provider is not among ``available``.
    """
    name = settings.onnx_provider
    if name == "auto":
        name = "cuda" if settings.device == "gpu" else "cpu"
    if (name == "cpu" and settings.device == "gpu") or (name != "cpu" and settings.device == "cpu"):
        raise EngineError(
            f"onnx_provider {name} does not compute on device {settings.device}: change one of them, or leave it auto"
        )
    if _PROVIDERS[name] not in available:
        raise MissingExtraError("onnxruntime-gpu", "cuda", f"onnx_provider {name}")
    wanted = {"cpu": ["cpu"], "cuda": ["cuda", "cpu"], "tensorrt": ["tensorrt", "cuda", "cpu"]}[name]
    return [_PROVIDERS[each] for each in wanted if _PROVIDERS[each] in available]


def _check_provider(wanted: str, found: str) -> None:
    # It falls back to the CPU with no more than a line in its log.
    if found != wanted:
        raise EngineError(
            f"onnxruntime could not start {wanted} and took {found}: install the CUDA and cuDNN (or TensorRT) "
            "libraries that this onnxruntime was built for, or choose onnx_provider cpu"
        )


def error_types() -> tuple[type[Exception], ...]:
    """Its exceptions, which have no common base but ``Exception``."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    found = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*found, RuntimeError, ValueError)
