"""TensorRT 10 and 11 on an NVIDIA GPU: strongly typed networks from the deployed ONNX file.

Precision is in the graph (float16 tensors, or signed symmetric Q/DQ nodes), not in builder flags, which release 11
no longer has. A built engine is cached; a model that differs from a cached one by its weights alone gets a copy of
that engine with its own weights (seconds instead of minutes), which is used only if it answers as it should.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssada_core.errors import BackendError, EngineError, require
from ssada_core.inference.base_engine import FrameEngine, RawOutput
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.graph import INPUT_NAME, OUTPUT_NAMES
from ssada_core.inference.onnx_engine import OnnxEngine
from ssada_core.inference.tensorrt_cache import EngineCache, EngineKey, engine_key

Array = NDArray[np.uint8]
RELEASES = ("10", "11")
WORKSPACE_BYTES = 1 << 30
HIGH_PRIORITY = -1
"""Of the stream: training beside it runs on the default one, whose priority is the lowest there is."""
PARITY = 0.99
"""Share of pixels on which an engine with exchanged weights must answer as ONNX Runtime does on the CPU."""
PROBES = 2


class TensorRtEngine(FrameEngine):
    """One execution context with buffers of its own on the GPU."""

    def __init__(
        self, path: Path, size: tuple[int, int], settings: EngineSettings, *, cache: EngineCache | None = None
    ) -> None:
        """Take the engine from the cache, exchange the weights of one like it, or build it (minutes); run once.

        Args:
            path: the deployed ``model.onnx``.
            size: height and width of the manifest's network.
            settings: precision is what the file was exported in.
            cache: of built engines.

        Raises:
            MissingExtraError: if tensorrt is not installed.
            EngineError: if there is no NVIDIA GPU, the release is not supported, or the model cannot be built.
        """
        super().__init__("tensorrt", size, settings)
        trt = require("tensorrt", extra="tensorrt", purpose="the inference backend tensorrt")
        _check_machine(trt)
        self._program: Program | None = Program(trt, _engine(trt, path, size, cache or EngineCache()), size)
        self._warm_up()

    def _run(self, count: int) -> Sequence[RawOutput]:
        if self._program is None:
            raise EngineError("the tensorrt engine is closed: load the model again")
        outputs = self._program.run(self._buffer)
        return [RawOutput(*(output[index] for output in outputs)) for index in range(count)]

    def _release(self) -> None:
        self._program = None


class Program:
    """A deserialised engine, ready to run one frame."""

    def __init__(self, trt: Any, engine: Any, size: tuple[int, int]) -> None:  # noqa: ANN401
        """Make its context and its buffers.

        Raises:
            EngineError: if inputs and outputs are not a deployed graph's.
        """
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        if set(names) != {INPUT_NAME, *OUTPUT_NAMES}:
            raise EngineError(f"the model has {names}, expected {[INPUT_NAME, *OUTPUT_NAMES]}: export it again")
        if (found := tuple(engine.get_tensor_shape(INPUT_NAME))) != (expected := (1, *size, 3)):
            raise EngineError(
                f"the tensorrt model takes {found}, the manifest's size needs {expected}: export it again"
            )
        self._engine = engine
        self._context = engine.create_execution_context()
        self._stream: Any = torch.cuda.Stream(priority=HIGH_PRIORITY)  # type: ignore[no-untyped-call]
        types = {trt.uint8: torch.uint8, trt.float32: torch.float32}
        self._tensors = {
            name: torch.empty(
                tuple(engine.get_tensor_shape(name)), dtype=types[engine.get_tensor_dtype(name)], device="cuda"
            )
            for name in names
        }
        for name, tensor in self._tensors.items():
            self._context.set_tensor_address(name, tensor.data_ptr())

    def run(self, frames: Array) -> list[NDArray[Any]]:
        """Outputs in the order of :data:`OUTPUT_NAMES` for uint8 ``[1,H,W,3]``.

        Raises:
            BackendError: if TensorRT fails.
        """
        try:
            with torch.cuda.stream(self._stream):
                self._tensors[INPUT_NAME].copy_(torch.from_numpy(frames))
                done = self._context.execute_async_v3(self._stream.cuda_stream)
                answers = [self._tensors[name].cpu().numpy() for name in OUTPUT_NAMES]  # waits for the stream
        except RuntimeError as error:
            raise BackendError(f"tensorrt failed: {error}") from error
        if not done:
            raise BackendError("tensorrt could not run the model: see its messages above")
        return answers


def _check_machine(trt: Any) -> None:  # noqa: ANN401
    release = str(trt.__version__)
    if release.partition(".")[0] not in RELEASES:
        raise EngineError(f"tensorrt {release} is not supported: install release {' or '.join(RELEASES)}")
    if not torch.cuda.is_available():
        raise EngineError("tensorrt: torch sees no NVIDIA GPU: install a torch for CUDA, or choose another backend")


def _engine(trt: Any, path: Path, size: tuple[int, int], cache: EngineCache) -> Any:  # noqa: ANN401
    """From the cache, from a copy with this model's weights, or built; the last is kept."""
    model = path.read_bytes()
    device = torch.cuda.current_device()
    gpu, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    key = engine_key(model, gpu, capability, str(trt.__version__))
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    if (kept := cache.exact(key)) is not None:
        if (engine := runtime.deserialize_cuda_engine(kept)) is not None:
            return engine
        cache.forget(key)
    if (alike := cache.alike(key)) is not None:
        engine = runtime.deserialize_cuda_engine(alike)
        if engine is not None and refit(trt, engine, path, logger) and answers_alike(trt, engine, path, size):
            return engine
    return _built(trt, runtime, path, logger, cache, key)


def refit(trt: Any, engine: Any, path: Path, logger: Any) -> bool:  # noqa: ANN401
    """Give a deserialised engine the weights of an ONNX file of the same structure; whether all were taken."""
    refitter = trt.Refitter(engine, logger)
    taken = trt.OnnxParserRefitter(refitter, logger).refit_from_file(str(path))
    return bool(taken and not refitter.get_missing_weights() and refitter.refit_cuda_engine())


def answers_alike(trt: Any, engine: Any, path: Path, size: tuple[int, int]) -> bool:  # noqa: ANN401
    """Whether an engine's labels are those of the same file in ONNX Runtime on the CPU.

    Weights that were fused with others while building may not have been exchanged, and nothing else says so.
    """
    generator = np.random.default_rng(0)
    probes = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(PROBES)]
    reference = OnnxEngine(path, size, EngineSettings(output_size="network"))
    try:
        expected = [prediction.label for prediction in reference.infer(probes)]
    finally:
        reference.close()
    program = Program(trt, engine, size)
    found = [program.run(probe[None])[0][0] for probe in probes]
    return float(np.mean([np.mean(a == b) for a, b in zip(found, expected, strict=True)])) >= PARITY


def _built(
    trt: Any,  # noqa: ANN401
    runtime: Any,  # noqa: ANN401
    path: Path,
    logger: Any,  # noqa: ANN401
    cache: EngineCache,
    key: EngineKey,
) -> Any:  # noqa: ANN401
    builder = trt.Builder(logger)
    # Needed in release 10; release 11 knows no other networks and takes the flag without effect.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise EngineError(f"tensorrt cannot read {path} ({parser.get_error(0)}): choose another backend")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.set_flag(trt.BuilderFlag.REFIT)
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32, as on every other backend
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise EngineError(f"tensorrt cannot build {path}: see its messages above, or choose another backend")
    content = bytes(serialised)
    cache.store(key, content)
    return runtime.deserialize_cuda_engine(content)
