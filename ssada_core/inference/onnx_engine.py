"""ONNX Runtime on the CPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ssada_core.errors import EngineError, require
from ssada_core.inference.base_engine import FrameEngine, RawOutput
from ssada_core.inference.engine import EngineSettings

INPUT_NAME = "frames"


class OnnxEngine(FrameEngine):
    """A session on ``deploy/onnx-fp32/model.onnx``."""

    def __init__(self, path: Path, size: tuple[int, int], settings: EngineSettings) -> None:
        """Load and run once.

        Raises:
            MissingExtraError: if onnxruntime is not installed.
            EngineError: if the file cannot be loaded, is not a deployed graph of this size, or bf16 is asked for.
        """
        if settings.precision != "fp32":
            raise EngineError(
                f"onnxruntime runs fp32 only, not {settings.precision}: choose precision fp32, or the backend openvino"
            )
        super().__init__("onnxruntime", size, settings)
        onnxruntime = require("onnxruntime", extra="onnxruntime", purpose="the inference backend onnxruntime")
        self._errors = _error_types()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        # Threads that wait in a busy loop would take the cores from the training process beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise EngineError(f"onnxruntime cannot load {path} ({error}): export the model again") from error
        self._check_input(self._session.get_inputs()[0].shape)
        self._warm_up()

    def _run(self) -> RawOutput:
        try:
            outputs = self._session.run(None, {INPUT_NAME: self._buffer})
        except self._errors as error:
            raise EngineError(f"onnxruntime failed: {error}") from error
        if len(outputs) != len(RawOutput._fields):
            raise EngineError(f"the model has {len(outputs)} outputs, expected {RawOutput._fields}: export it again")
        return RawOutput(*(output[0] for output in outputs))

    def _release(self) -> None:
        self._session = None


def _error_types() -> tuple[type[Exception], ...]:
    """Its exceptions, which have no common base but ``Exception``."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    found = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*found, RuntimeError, ValueError)
