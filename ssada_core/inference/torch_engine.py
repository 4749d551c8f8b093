"""PyTorch: runs wherever training runs, on the GPU if there is one; the reference for the other backends."""

from __future__ import annotations

import torch
from torch import nn

from ssada_core.errors import EngineError
from ssada_core.inference.base_engine import FrameEngine, RawOutput
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.graph import DeployedGraph, GraphOutput
from ssada_core.networks.base import SegmentationNetwork


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
            network: moved to the GPU if there is one, and put in evaluation mode.
            size: height and width to run at.
            settings: ``threads`` above 0 sets torch's threads for the whole process.
            channels_last: the faster order of axes on every CPU we measured; without it torch's default.

        Raises:
            EngineError: if torch cannot run it.
        """
        super().__init__("torch", size, settings)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._frames = torch.from_numpy(self._buffer)
        network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        self._graph: nn.Module = DeployedGraph(network).to(self._device)
        self._warm_up()

    def _run(self) -> RawOutput:
        arithmetic = torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16")
        try:
            with torch.inference_mode(), arithmetic:
                output: GraphOutput = self._graph(self._frames.to(self._device))
                return RawOutput(*(part[0].cpu().numpy() for part in output))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise EngineError(f"torch cannot run the network on {self._device}: {reason}") from error

    def _release(self) -> None:
        self._graph = nn.Identity()
