"""The network as it is deployed: from camera bytes to mask, confidence and uncertainty in one graph."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD

INPUT_NAME = "frames"
OUTPUT_NAMES = ("label", "confidence", "uncertainty", "features")


class GraphOutput(NamedTuple):
    """What :class:`DeployedGraph` returns, in the order of the deployed models' outputs."""

    label: Tensor
    """uint8 ``[B,H,W]``: class ids; of equal logits the lowest id."""
    confidence: Tensor
    """uint8 ``[B,H,W]``: 255 × the largest class probability, rounded."""
    uncertainty: Tensor
    """float32 ``[B]``: entropy / log C, averaged over the frame (METHOD §5)."""
    features: Tensor
    """float32 ``[B,D]``: pooled from the context path."""


class DeployedGraph(nn.Module):
    """uint8 ``[B,H,W,3]`` BGR frames of the network's size → :class:`GraphOutput`."""

    def __init__(
        self,
        network: SegmentationNetwork,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        *,
        memory_format: torch.memory_format | None = None,
        bytes_at_edges: bool = False,
    ) -> None:
        """Wrap a network, which is put in evaluation mode.

        Args:
            network: shared, not copied.
            mean: of the training images, RGB in [0, 1].
            std: likewise.
            memory_format: order of axes in which the network gets its images; None: as frames come, which torch takes
                for ``channels_last``.
            bytes_at_edges: integers only as input and output, for TensorRT, which computes nothing with uint8.
        """
        super().__init__()
        self._memory_format = memory_format
        self._bytes_at_edges = bytes_at_edges
        self.register_buffer("_rgb", torch.tensor([2, 1, 0]), persistent=False)
        self._rgb: Tensor
        self.network = network
        scale = 1.0 / (255.0 * torch.tensor(std))
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-255.0 * torch.tensor(mean) * scale).view(1, 3, 1, 1), persistent=False)
        self.scale: Tensor
        self.shift: Tensor
        self.eval()

    def forward(self, frames: Tensor) -> GraphOutput:
        """See the class."""
        images = self._planes(frames) * self.scale + self.shift
        if images.dtype != (wanted := next(self.network.parameters()).dtype):
            images = images.to(wanted)
        if self._memory_format is not None:
            images = images.contiguous(memory_format=self._memory_format)
        coarse, features = self.network.coarse_with_features(images)
        height, width = int(frames.shape[1]), int(frames.shape[2])
        logits = enlarge(_float32(coarse), self.network.logit_stride, (height, width))
        label, total, spread = _class_statistics(logits, torch.float32 if self._bytes_at_edges else torch.uint8)
        if self._bytes_at_edges:
            label = label.to(torch.uint8)
        confidence = (255.0 / total + 0.5).to(torch.uint8)
        classes = max(self.network.num_classes, 2)
        entropy = mean_log(total, classes) + spread.mean(dim=(1, 2))
        return GraphOutput(label, confidence, entropy / math.log(classes), _float32(features))

    def _planes(self, frames: Tensor) -> Tensor:
        """uint8 ``[B,H,W,3]`` BGR → float32 ``[B,3,H,W]`` RGB."""
        if self._bytes_at_edges:
            return frames.float().permute(0, 3, 1, 2).index_select(1, self._rgb)
        return frames.permute(0, 3, 1, 2).flip(1).float()


def _float32(x: Tensor) -> Tensor:
    """Converted only where it must be: a conversion without effect stays in an exported graph, and nncf stumbles."""
    return x if x.dtype == torch.float32 else x.float()


def enlarge(logits: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """Bilinear ``[B,C,h,w]`` float32 → ``[B,C,*size]``: what :func:`blocks.upsample` does, as two matrix products.

    A CPU does them in half the time, in an order of axes that the pixel statistics want, and what padding had added
    is never computed. Differs from interpolation by rounding only.
    """
    if factor == 1:
        return logits[..., : size[0], : size[1]]
    rows, columns = (
        _bilinear(count, factor, wanted, logits.device) for count, wanted in zip(logits.shape[-2:], size, strict=True)
    )
    with torch.autocast(logits.device.type, enabled=False):  # which would round the logits
        return torch.matmul(rows.T, torch.matmul(logits, columns))


@lru_cache(maxsize=64)
def _bilinear(count: int, factor: int, wanted: int, device: torch.device) -> Tensor:
    """Weights ``[count,wanted]`` of ``count`` values in what they are enlarged to; each column sums to 1."""
    # Not in inference mode, where the cached tensor could later not take part in a training.
    with torch.inference_mode(mode=False), torch.no_grad():
        unit = torch.eye(count).unsqueeze(0)
        large = functional.interpolate(unit, scale_factor=float(factor), mode="linear", align_corners=False)
        return large[0, :, :wanted].contiguous().to(device)


def pixel_statistics(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Arg max (uint8), largest probability and entropy in nats, each ``[B,H,W]``, of ``[B,C,H,W]`` logits."""
    label, total, spread = _class_statistics(logits)
    return label, 1.0 / total, total.log() + spread


def mean_log(values: Tensor, highest: float) -> Tensor:
    """Mean of the logarithms of ``[B,H,W]`` values in [1, highest], ``[B]``.

    The logarithm of products of up to 16 values, because OpenVINO computes logarithms one by one; a product of so
    many sums of 11 exponentials is far from float32's limit of 3e38.
    """
    pixels = values.flatten(1)
    doublings = 0
    while doublings < 4 and pixels.shape[1] % 2 == 0 and highest ** (2 << doublings) < 1e37:
        half = pixels.shape[1] // 2
        pixels = pixels[:, :half] * pixels[:, half:]
        doublings += 1
    return pixels.log().mean(dim=1) / (1 << doublings)


def _class_statistics(logits: Tensor, ids: torch.dtype = torch.uint8) -> tuple[Tensor, Tensor, Tensor]:
    """Arg max (of type ``ids``), S = Σ exp d and −Σ d·exp d / S of d = z − max z, each ``[B,H,W]``.

    Exact, with one exponential per value: the largest probability is 1/S and the entropy log S − Σ d·exp d / S.
    Written class by class because reductions over the channel axis are the slow part of the graph on a CPU: this
    form took half the time of softmax and arg max in torch, onnxruntime and OpenVINO.
    """
    planes = logits.unbind(1)
    top = planes[0]
    label = torch.zeros_like(top, dtype=ids)
    for index, plane in enumerate(planes[1:], start=1):
        label = label.masked_fill(plane > top, index)
        top = torch.maximum(top, plane)
    total, weighted = torch.zeros_like(top), torch.zeros_like(top)
    for plane in planes:
        below = plane - top
        share = below.exp()
        total = total + share
        weighted = weighted + below * share
    return label, total, -weighted / total
