"""The parts BiSeNet is made of (arXiv 1808.00897; METHOD §2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; keeps the size divided by ``stride``."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class SpatialPath(nn.Sequential):
    """Image ``[B,3,H,W]`` → detail ``[B,128,H/8,W/8]``."""

    def __init__(self) -> None:
        super().__init__(
            ConvBnRelu(3, 64, kernel=7, stride=2),
            ConvBnRelu(64, 64, stride=2),
            ConvBnRelu(64, 64, stride=2),
            ConvBnRelu(64, 128, kernel=1),
        )


class AttentionRefinement(nn.Module):
    """3×3 convolution to ``outputs`` channels, each scaled by a gate from the global average."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBnRelu(inputs, outputs)
        self.gate = nn.Sequential(nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """``[B,inputs,h,w]`` → ``[B,outputs,h,w]``."""
        features: Tensor = self.conv(x)
        gate: Tensor = self.gate(functional.adaptive_avg_pool2d(features, 1))
        return features * gate


class FeatureFusion(nn.Module):
    """Joins the spatial and the context path; a channel gate with a residual.

    The gate is the paper's two layers, or with ``batch_norm`` one layer and a batch norm, as in the public
    checkpoints of CoinCheung's BiSeNet and of SS-ADA.
    """

    def __init__(self, inputs: int, outputs: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.conv = ConvBnRelu(inputs, outputs, kernel=1)
        self.gate = _normed_gate(outputs) if batch_norm else _two_layer_gate(outputs)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Two ``[B,·,h,w]`` whose channels sum to ``inputs`` → ``[B,outputs,h,w]``."""
        features: Tensor = self.conv(torch.cat((spatial, context), dim=1))
        gate: Tensor = self.gate(functional.adaptive_avg_pool2d(features, 1))
        return features + features * gate


def _two_layer_gate(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels // 4, 1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels // 4, channels, 1, bias=False),
        nn.Sigmoid(),
    )


def _normed_gate(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.Sigmoid())


class SegmentationHead(nn.Sequential):
    """3×3 convolution and a classifier: ``[B,inputs,h,w]`` → logits ``[B,classes,h,w]``."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__(ConvBnRelu(inputs, hidden), nn.Conv2d(hidden, classes, 1))


def upsample(logits: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """Bilinear ``[B,C,h,w]`` → ``[B,C,h·factor,w·factor]``, cut to ``size`` (what padding had added goes)."""
    large = functional.interpolate(logits, scale_factor=float(factor), mode="bilinear", align_corners=False)
    return large if large.shape[-2:] == size else large[..., : size[0], : size[1]]


def with_perturbed(features: Tensor, chosen: slice, dropout: nn.Module) -> Tensor:
    """Features, and behind them those of the chosen images with channels dropped.

    Both go through the decoder together and so share its batch norm statistics.
    """
    perturbed = features[chosen]
    return torch.cat((features, dropout(perturbed))) if perturbed.shape[0] else features


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of ``[B,C,H,W]`` until both sizes are multiples of ``multiple``."""
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return functional.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def initialise(module: nn.Module) -> None:
    """He initialisation of convolutions; for everything that has no pretrained weights."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
