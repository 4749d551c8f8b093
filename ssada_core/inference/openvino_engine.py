"""OpenVINO on the CPU, or on an Intel GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssada_core.errors import BackendError, EngineError, require
from ssada_core.inference.base_engine import FrameEngine, RawOutput
from ssada_core.inference.engine import EngineSettings


class OpenVinoEngine(FrameEngine):
    """A compiled model with one infer request, which reads the engine's buffer in place."""

    def __init__(self, path: Path, size: tuple[int, int], settings: EngineSettings) -> None:
        """Load, compile and run once.

        Args:
            path: ``model.xml``, or a ``model.onnx``, which OpenVINO reads as well.
            size: height and width of the manifest's network.
            settings: bf16 (CPU) and fp16 (GPU) compute from the same fp32 file; int8 needs a quantised file and
                computes what is not quantised in bfloat16 or float16 where the device has it.

        Raises:
            MissingExtraError: if openvino is not installed.
            EngineError: if the file cannot be compiled, is not a deployed graph of this size, or the device is missing
                or has no such arithmetic.
        """
        super().__init__("openvino", size, settings)
        openvino = require("openvino", extra="openvino", purpose="the inference backend openvino")
        core = openvino.Core()
        device = _device(core, settings.device)
        options = _options(settings, device, _precision_hint(core, device, settings.precision))
        try:
            compiled = core.compile_model(str(path), device, options)
            self._check_input(compiled.input(0).shape)
            self._request: Any = compiled.create_infer_request()
            self._request.set_input_tensor(openvino.Tensor(self._buffer, shared_memory=True))
        except RuntimeError as error:
            raise EngineError(f"openvino cannot load {path} ({_last_line(error)}): export the model again") from error
        self._outputs = range(len(compiled.outputs))
        if len(self._outputs) != len(RawOutput._fields):
            raise EngineError(f"{path} has {len(self._outputs)} outputs, expected {RawOutput._fields}: export it again")
        self._warm_up()

    def _run(self, count: int) -> list[RawOutput]:
        try:
            self._request.infer()
        except RuntimeError as error:
            raise BackendError(f"openvino failed: {_last_line(error)}") from error
        # Views of the request's own memory: what leaves the engine is copied by the base class.
        parts = [self._request.get_output_tensor(index).data for index in self._outputs]
        return [RawOutput(*(part[index] for part in parts)) for index in range(count)]

    def _release(self) -> None:
        self._request = None


def _device(core: Any, wanted: str) -> str:  # noqa: ANN401  (openvino.Core)
    """OpenVINO's name of the device; what it calls GPU is Intel's, so ``auto`` is always the CPU."""
    if wanted != "gpu":
        return "CPU"
    found = [str(name) for name in core.available_devices]
    if not any(name.startswith("GPU") for name in found):
        raise EngineError(
            f"device gpu: openvino finds {', '.join(found)} and no Intel GPU: install Intel's compute runtime "
            "(intel-opencl-icd), or choose device cpu"
        )
    return "GPU"


def _options(settings: EngineSettings, device: str, hint: str) -> dict[str, Any]:
    """One frame at a time, as soon as possible; precision explicit, as CPUs with AMX default to bf16."""
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if device == "CPU":
        options["ENABLE_CPU_PINNING"] = False  # other processes' pinned threads would meet on the same cores
        if settings.threads:
            options["INFERENCE_NUM_THREADS"] = settings.threads
    return options


def _precision_hint(core: Any, device: str, precision: str) -> str:  # noqa: ANN401  (openvino.Core)
    """OpenVINO's name for the arithmetic of what is not quantised."""
    half = {"CPU": "bf16", "GPU": "fp16"}[device]
    has_half = half.upper() in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if precision in {"fp16", "bf16"} and precision != half:
        raise EngineError(f"precision {precision}: openvino computes {half} on this device: choose {half} or fp32")
    if precision == half and not has_half:
        name = {"bf16": "bfloat16", "fp16": "float16"}[half]
        raise EngineError(f"precision {half}: this {device} has no {name} arithmetic: choose precision fp32")
    return {"bf16": "bf16", "fp16": "f16"}[half] if precision in {half, "int8"} and has_half else "f32"


def _last_line(error: Exception) -> str:
    """OpenVINO's messages begin with its source files and end with the reason."""
    return str(error).strip().rpartition("\n")[2]
