"""PyTorch: runs wherever training runs, on the GPU if there is one; the reference for the other backends."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ssada_core.errors import BackendError, EngineError
from ssada_core.inference.base_engine import FrameEngine, RawOutput
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.graph import DeployedGraph, GraphOutput
from ssada_core.networks.base import SegmentationNetwork

HIGH_PRIORITY = -1
GPU_BATCH = 4
"""Frames at once on a GPU, unless the settings say otherwise. On a CPU 4 took 1.03 times as long a frame as 1."""


class TorchEngine(FrameEngine):
    """The network itself, in evaluation mode and ``channels_last``."""

    def __init__(
        self,
        network: SegmentationNetwork,
        size: tuple[int, int],
        settings: EngineSettings,
        *,
        channels_last: bool = True,
    ) -> None:
        """Take over a network.

        Args:
            network: moved to the device, and put in evaluation mode.
            size: height and width to run at.
            settings: ``threads`` above 0 sets torch's threads for the whole process.
            channels_last: the faster order of axes on every CPU we measured; without it torch's default.

        Raises:
            EngineError: if torch cannot run it, or the device is missing or has no such arithmetic.
        """
        self._device = _device(settings.device)
        self._dtype = _dtype(settings.precision, self._device)
        at_once = settings.batch or (GPU_BATCH if self._device.type == "cuda" else 1)
        super().__init__("torch", size, settings, batch=at_once)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._frames = torch.from_numpy(self._buffer)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=layout)
        self._graph: nn.Module = DeployedGraph(network, memory_format=layout).to(self._device)
        self._stream = _stream(self._device)
        self._warm_up()

    def _run(self, count: int) -> list[RawOutput]:
        arithmetic = torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None)
        try:
            with torch.inference_mode(), arithmetic, torch.cuda.stream(self._stream):
                output: GraphOutput = self._graph(self._frames[:count].to(self._device))
                parts = [part.cpu().numpy() for part in output]
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise BackendError(f"torch cannot run the network on {self._device}: {reason}") from error
        return [RawOutput(*(part[index] for part in parts)) for index in range(count)]

    def _release(self) -> None:
        self._graph = nn.Identity()


def _stream(device: torch.device) -> Any:  # noqa: ANN401 (torch.cuda.Stream, whose constructor has no types)
    """On a GPU a stream of high priority: training beside it runs on the default one, whose priority is the lowest."""
    if device.type != "cuda":
        return None  # torch.cuda.stream(None) does nothing
    return torch.cuda.Stream(device, priority=HIGH_PRIORITY)  # type: ignore[no-untyped-call]


def _device(wanted: str) -> torch.device:
    if wanted == "gpu" and not torch.cuda.is_available():
        raise EngineError(
            "device gpu: torch sees no NVIDIA GPU: install a torch that was built for CUDA and NVIDIA's driver, "
            "or choose device cpu"
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What the network's products are computed in; None for float32."""
    if precision == "fp16" and device.type == "cpu":
        raise EngineError("precision fp16: torch computes it on a GPU only: choose bf16 or fp32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise EngineError("precision bf16: this GPU has no bfloat16 arithmetic: choose fp16")
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
