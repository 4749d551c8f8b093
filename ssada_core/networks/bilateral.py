"""The parts BiSeNet V2 is made of (arXiv 2004.02147; METHOD §2).

Where the paper is silent they are as in CoinCheung's BiSeNet, so that its public weights load completely: a ReLU
behind the expansion and behind the aggregation, nearest-neighbour enlarging in the aggregation, 1024 channels in the
main head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssada_core.networks.blocks import ConvBnRelu

CHANNELS = 128
"""Channels of both branches' outputs and of the aggregation."""
EXPANSION = 6
BOOSTED_CHANNELS = (16, 32, 64, 128)
"""Channels of the semantic branch at 1/4, 1/8, 1/16 and 1/32."""

_HEAD_DROPOUT = 0.1
_RATIO = 4  # of the two branches' resolutions


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias and batch norm; keeps the size divided by ``stride``."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class DetailBranch(nn.Sequential):
    """Wide and shallow: image ``[B,3,H,W]`` → ``[B,128,H/8,W/8]``."""

    def __init__(self) -> None:
        super().__init__(
            ConvBnRelu(3, 64, stride=2),
            ConvBnRelu(64, 64),
            ConvBnRelu(64, 64, stride=2),
            ConvBnRelu(64, 64),
            ConvBnRelu(64, 64),
            ConvBnRelu(64, CHANNELS, stride=2),
            ConvBnRelu(CHANNELS, CHANNELS),
            ConvBnRelu(CHANNELS, CHANNELS),
        )


class Stem(nn.Module):
    """Image ``[B,3,H,W]`` → ``[B,16,H/4,W/4]``, by convolution and by maximum side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvBnRelu(3, 16, stride=2)
        self.left = nn.Sequential(ConvBnRelu(16, 8, kernel=1), ConvBnRelu(8, 16, stride=2))
        self.right = nn.MaxPool2d(3, 2, padding=1)
        self.fuse = ConvBnRelu(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        features = self.conv(x)
        fused: Tensor = self.fuse(torch.cat((self.left(features), self.right(features)), dim=1))
        return fused


class GatherExpand(nn.Module):
    """Gather 3×3, expand six-fold depthwise, project back, with a residual; keeps size and channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        expanded = channels * EXPANSION
        self.conv = ConvBnRelu(channels, channels)
        self.expand = conv_bn(channels, expanded, 3, groups=channels).append(nn.ReLU(inplace=True))
        self.project = conv_bn(expanded, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B,channels,h,w]`` → the same shape."""
        return functional.relu(self.project(self.expand(self.conv(x))) + x)


class GatherExpandDown(nn.Module):
    """The same with half the size: ``[B,inputs,h,w]`` → ``[B,outputs,h/2,w/2]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        expanded = inputs * EXPANSION
        self.conv = ConvBnRelu(inputs, inputs)
        self.down = conv_bn(inputs, expanded, 3, stride=2, groups=inputs)
        self.expand = conv_bn(expanded, expanded, 3, groups=expanded).append(nn.ReLU(inplace=True))
        self.project = conv_bn(expanded, outputs, 1)
        self.shortcut = conv_bn(inputs, inputs, 3, stride=2, groups=inputs).extend(conv_bn(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        features = self.project(self.expand(self.down(self.conv(x))))
        return functional.relu(features + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """Adds the global average to every place: ``[B,128,h,w]`` → the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.globally = ConvBnRelu(CHANNELS, CHANNELS, kernel=1)
        self.conv = ConvBnRelu(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        scene = self.globally(self.norm(functional.adaptive_avg_pool2d(x, 1)))
        embedded: Tensor = self.conv(x + scene)
        return embedded


class SemanticBranch(nn.Module):
    """Narrow and deep: image → features at 1/4, 1/8, 1/16 and 1/32, and the context ``[B,128,H/32,W/32]``."""

    def __init__(self) -> None:
        super().__init__()
        at_4, at_8, at_16, at_32 = BOOSTED_CHANNELS
        self.stem = Stem()
        self.stage3 = nn.Sequential(GatherExpandDown(at_4, at_8), GatherExpand(at_8))
        self.stage4 = nn.Sequential(GatherExpandDown(at_8, at_16), GatherExpand(at_16))
        self.stage5 = nn.Sequential(GatherExpandDown(at_16, at_32), *(GatherExpand(at_32) for _ in range(3)))
        self.context = ContextEmbedding()

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """See the class."""
        at_4: Tensor = self.stem(x)
        at_8: Tensor = self.stage3(at_4)
        at_16: Tensor = self.stage4(at_8)
        at_32: Tensor = self.stage5(at_16)
        context: Tensor = self.context(at_32)
        return (at_4, at_8, at_16, at_32), context


class GuidedAggregation(nn.Module):
    """Each branch gates the other at its own resolution; the sum is at the detail branch's.

    ``keep`` paths stay at their branch's resolution, the others are brought to the other one's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.detail_keep = _separable()
        self.detail_down = conv_bn(CHANNELS, CHANNELS, 3, stride=2).append(nn.AvgPool2d(3, 2, padding=1))
        self.semantic_up = conv_bn(CHANNELS, CHANNELS, 3)
        self.semantic_keep = _separable()
        self.conv = ConvBnRelu(CHANNELS, CHANNELS)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """``[B,128,h,w]`` and ``[B,128,h/4,w/4]`` → ``[B,128,h,w]``."""
        fine = self.detail_keep(detail) * torch.sigmoid(_enlarge(self.semantic_up(semantic)))
        coarse = self.detail_down(detail) * torch.sigmoid(self.semantic_keep(semantic))
        aggregated: Tensor = self.conv(fine + _enlarge(coarse))
        return aggregated


class WideHead(nn.Sequential):
    """The main head: ``[B,128,h,w]`` → logits ``[B,classes,h,w]``."""

    def __init__(self, classes: int) -> None:
        super().__init__(ConvBnRelu(CHANNELS, 1024), nn.Dropout(_HEAD_DROPOUT), nn.Conv2d(1024, classes, 1))


class BoosterHead(nn.Sequential):
    """An auxiliary head on features at 1/``factor``: ``[B,inputs,h,w]`` → logits ``[B,classes,2h,2w]``."""

    def __init__(self, inputs: int, factor: int, classes: int) -> None:
        hidden = factor * factor
        super().__init__(
            ConvBnRelu(inputs, CHANNELS),
            nn.Dropout(_HEAD_DROPOUT),
            nn.Upsample(scale_factor=2.0),
            ConvBnRelu(CHANNELS, hidden),
            nn.Conv2d(hidden, classes, 1),
        )


def _separable() -> nn.Sequential:
    return conv_bn(CHANNELS, CHANNELS, 3, groups=CHANNELS).append(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False))


def _enlarge(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=float(_RATIO), mode="nearest")
