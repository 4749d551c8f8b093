"""The network as it is deployed: from camera bytes to mask, confidence and uncertainty in one graph."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

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
    ) -> None:
        """Wrap a network, which is put in evaluation mode.

        Args:
            network: shared, not copied.
            mean: of the training images, RGB in [0, 1].
            std: likewise.
        """
        super().__init__()
        self.network = network
        scale = 1.0 / (255.0 * torch.tensor(std))
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-255.0 * torch.tensor(mean) * scale).view(1, 3, 1, 1), persistent=False)
        self.scale: Tensor
        self.shift: Tensor
        self.eval()

    def forward(self, frames: Tensor) -> GraphOutput:
        """See the class."""
        rgb = frames.permute(0, 3, 1, 2).flip(1)
        logits, features = self.network.forward_with_features(rgb.float() * self.scale + self.shift)
        label, probability, entropy = pixel_statistics(logits.float())
        confidence = (probability * 255.0 + 0.5).to(torch.uint8)
        highest = math.log(max(self.network.num_classes, 2))
        return GraphOutput(label, confidence, entropy.mean(dim=(1, 2)) / highest, features.float())


def pixel_statistics(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Arg max (uint8), largest probability and entropy in nats, each ``[B,H,W]``, of ``[B,C,H,W]`` logits.

    Exact, with one exponential per value: with d = z − max z and S = Σ exp d, the largest probability is 1/S and the
    entropy log S − Σ d·exp d / S. Written class by class because reductions over the channel axis are the slow part
    of the graph on a CPU: this form took half the time of softmax and arg max in torch, onnxruntime and OpenVINO.
    """
    planes = logits.unbind(1)
    top = planes[0]
    label = torch.zeros_like(top, dtype=torch.uint8)
    for index, plane in enumerate(planes[1:], start=1):
        label = label.masked_fill(plane > top, index)
        top = torch.maximum(top, plane)
    total, weighted = torch.zeros_like(top), torch.zeros_like(top)
    for plane in planes:
        below = plane - top
        share = below.exp()
        total = total + share
        weighted = weighted + below * share
    return label, 1.0 / total, total.log() - weighted / total
