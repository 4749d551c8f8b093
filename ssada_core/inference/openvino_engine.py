"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssada_core.errors import EngineError, require
from ssada_core.inference.base_engine import FrameEngine, RawOutput
from ssada_core.inference.engine import EngineSettings


class OpenVinoEngine(FrameEngine):
    """A compiled model with one infer request, which reads the engine's buffer in place."""

    def __init__(self, path: Path, size: tuple[int, int], settings: EngineSettings) -> None:
        """Load, compile and run once.

        Args:
            path: ``model.xml``, or a ``model.onnx``, which OpenVINO reads as well.
            size: height and width of the manifest's network.
            settings: precision bf16 computes in bfloat16 from the same fp32 file; int8 needs a quantised file and
                computes what is not quantised in bfloat16 where the CPU has it.

        Raises:
            MissingExtraError: if openvino is not installed.
            EngineError: if the file cannot be compiled, is not a deployed graph of this size, or the CPU has no bf16.
        """
        super().__init__("openvino", size, settings)
        openvino = require("openvino", extra="openvino", purpose="the inference backend openvino")
        core = openvino.Core()
        hint = _precision_hint(core, settings.precision)
        try:
            compiled = core.compile_model(str(path), "CPU", _options(settings, hint))
            self._check_input(compiled.input(0).shape)
            self._request: Any = compiled.create_infer_request()
            self._request.set_input_tensor(openvino.Tensor(self._buffer, shared_memory=True))
        except RuntimeError as error:
            raise EngineError(f"openvino cannot load {path} ({_last_line(error)}): export the model again") from error
        self._outputs = range(len(compiled.outputs))
        if len(self._outputs) != len(RawOutput._fields):
            raise EngineError(f"{path} has {len(self._outputs)} outputs, expected {RawOutput._fields}: export it again")
        self._warm_up()

    def _run(self) -> RawOutput:
        try:
            self._request.infer()
        except RuntimeError as error:
            raise EngineError(f"openvino failed: {_last_line(error)}") from error
        # Views of the request's own memory: what leaves the engine is copied by the base class.
        return RawOutput(*(self._request.get_output_tensor(index).data[0] for index in self._outputs))

    def _release(self) -> None:
        self._request = None


def _options(settings: EngineSettings, hint: str) -> dict[str, Any]:
    """One frame at a time, as soon as possible; precision explicit, as CPUs with AMX default to bf16."""
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # other processes' pinned threads would meet on the same cores
    }
    return options | ({"INFERENCE_NUM_THREADS": settings.threads} if settings.threads else {})


def _precision_hint(core: Any, precision: str) -> str:  # noqa: ANN401  (openvino.Core)
    """OpenVINO's name for the arithmetic of what is not quantised."""
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not has_bf16:
        raise EngineError("precision bf16: this CPU has no bfloat16 arithmetic: choose precision fp32")
    return "bf16" if precision in {"bf16", "int8"} and has_bf16 else "f32"


def _last_line(error: Exception) -> str:
    """OpenVINO's messages begin with its source files and end with the reason."""
    return str(error).strip().rpartition("\n")[2]
