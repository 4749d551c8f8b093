"""A tiny network with the interface of the real ones, and little drives, for the tests of learning."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ssada_core.data.samples import ArraySamples
from ssada_core.networks.base import NetworkOutput, SegmentationNetwork, part


class TinyNetwork(SegmentationNetwork):
    """Three convolutions at half size, one auxiliary head, channel dropout before the main head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.feature_size = num_classes, 8
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.head = nn.Conv2d(8, num_classes, 1)
        self.auxiliary = nn.Conv2d(8, num_classes, 1)
        self.dropout = nn.Dropout2d(0.5)

    def _up(self, logits: Tensor, x: Tensor) -> Tensor:
        return nn.functional.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._up(self.head(self.middle(self.backbone(x))), x)

    def forward_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.middle(self.backbone(x))
        return self._up(self.head(features), x), features.mean((2, 3))

    def train_forward(
        self, x: Tensor, *, perturb: bool | slice = False, auxiliary: bool | slice = True, source: int = 0
    ) -> NetworkOutput:
        early = self.backbone(x)
        features = self.middle(early)
        chosen = features[part(perturb)]
        perturbed = self._up(self.head(self.dropout(chosen)), x) if len(chosen) else None
        helper = early[part(auxiliary)]
        heads = (self._up(self.auxiliary(helper), x),) if len(helper) else ()
        return NetworkOutput(self._up(self.head(features), x), heads, perturbed)

    def heads(self) -> tuple[nn.Module, ...]:
        return self.head, self.auxiliary

    def _new_heads(self, num_classes: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(8, num_classes, 1), nn.Conv2d(8, num_classes, 1)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        return self.backbone.parameters()


def tiny(num_classes: int = 3, seed: int = 0) -> TinyNetwork:
    torch.manual_seed(seed)
    return TinyNetwork(num_classes)


def drive(count: int, *, seed: int = 0, size: tuple[int, int] = (48, 64), labelled: bool = True) -> ArraySamples:
    """Frames of three brightness bands, whose class is the band: a tiny network learns it in a few steps."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(count):
        bands = np.sort(rng.integers(4, size[0] - 4, 2))
        label = np.digitize(np.arange(size[0]), bands).astype(np.uint8)[:, None].repeat(size[1], axis=1)
        noise = rng.integers(-20, 21, (*size, 3))
        images.append(np.clip(label[..., None] * 90.0 + 30 + noise, 0, 255).astype(np.uint8))
        labels.append(label)
    return ArraySamples(images, labels if labelled else None)
