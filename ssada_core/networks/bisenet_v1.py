"""BiSeNet V1 (arXiv 1808.00897; METHOD §2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from ssada_core.networks.backbones import Backbone
from ssada_core.networks.base import NetworkOutput, SegmentationNetwork, part
from ssada_core.networks.blocks import (
    AttentionRefinement,
    ConvBnRelu,
    FeatureFusion,
    SegmentationHead,
    SpatialPath,
    initialise,
    pad_to_multiple,
    upsample,
    with_perturbed,
)

STRIDE = 32
LOGIT_STRIDE = 8
PATH_CHANNELS = 128
FUSED_CHANNELS = 256
AUXILIARY_HIDDEN = 64
PERTURB_DROPOUT = 0.5


class ContextPath(nn.Module):
    """Backbone, attention refinement at 1/16 and 1/32, and the global average branch."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        _, at_16, at_32 = backbone.channels
        self.refine16 = AttentionRefinement(at_16, PATH_CHANNELS)
        self.refine32 = AttentionRefinement(at_32, PATH_CHANNELS)
        self.globally = ConvBnRelu(at_32, PATH_CHANNELS, kernel=1)
        self.smooth16 = ConvBnRelu(PATH_CHANNELS, PATH_CHANNELS)
        self.smooth8 = ConvBnRelu(PATH_CHANNELS, PATH_CHANNELS)
        self.apply(initialise)
        self.backbone = backbone  # after initialise: its weights are its own

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Image ``[B,3,H,W]`` → context ``[B,128,H/8,W/8]`` and ``[B,128,H/16,W/16]``."""
        _, at_16, at_32 = self.backbone(x)
        scene = self.globally(functional.adaptive_avg_pool2d(at_32, 1))
        context16: Tensor = self.smooth16(_double(self.refine32(at_32) + scene))
        context8: Tensor = self.smooth8(_double(self.refine16(at_16) + context16))
        return context8, context16


class _Encoded(NamedTuple):
    spatial: Tensor
    context8: Tensor
    context16: Tensor


class BiSeNetV1(SegmentationNetwork):
    """Spatial path for detail, context path for meaning, fused at 1/8 of the image."""

    feature_size = PATH_CHANNELS
    logit_stride = LOGIT_STRIDE

    def __init__(self, backbone: Backbone, num_classes: int, *, gate_batch_norm: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.spatial_path = SpatialPath()
        self.fusion = FeatureFusion(2 * PATH_CHANNELS, FUSED_CHANNELS, batch_norm=gate_batch_norm)
        self.head, self.auxiliary8, self.auxiliary16 = self._new_heads(num_classes)
        self.dropout = nn.Dropout2d(PERTURB_DROPOUT)
        self.apply(initialise)
        self.context_path = ContextPath(backbone)

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`SegmentationNetwork`."""
        self._check_batch(x)
        encoded = self._encode(x)
        return upsample(self._decode(encoded.spatial, encoded.context8), LOGIT_STRIDE, _size(x))

    def forward_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`SegmentationNetwork`; the features are the mean of the context at 1/8."""
        logits, features = self.coarse_with_features(x)
        return upsample(logits, LOGIT_STRIDE, _size(x)), features

    def coarse_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`SegmentationNetwork`."""
        self._check_batch(x)
        encoded = self._encode(x)
        return self._decode(encoded.spatial, encoded.context8), encoded.context8.mean(dim=(2, 3))

    def train_forward(
        self, x: Tensor, *, perturb: bool | slice = False, auxiliary: bool | slice = True, source: int = 0
    ) -> NetworkOutput:
        """See :class:`SegmentationNetwork`. In evaluation mode the perturbation does nothing."""
        self._check_batch(x)
        encoded = self._encode(x)
        size, batch = _size(x), x.shape[0] - source
        spatial, context = (with_perturbed(path, part(perturb), self.dropout) for path in encoded[:2])
        fused: Tensor = self.fusion(spatial, context)
        logits = upsample(self.head(fused[source:] if source else fused), LOGIT_STRIDE, size)
        return NetworkOutput(
            logits[:batch],
            _auxiliary((self.auxiliary8, self.auxiliary16), encoded, part(auxiliary), size),
            logits[batch:] if logits.shape[0] > batch else None,
            self._source(fused, encoded, source, size),
        )

    def heads(self) -> tuple[nn.Module, ...]:
        """See :class:`SegmentationNetwork`."""
        return self.head, self.auxiliary8, self.auxiliary16

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """See :class:`SegmentationNetwork`."""
        return self.context_path.backbone.parameters()

    def _encode(self, x: Tensor) -> _Encoded:
        padded = pad_to_multiple(x, STRIDE)
        return _Encoded(self.spatial_path(padded), *self.context_path(padded))

    def _decode(self, spatial: Tensor, context: Tensor) -> Tensor:
        logits: Tensor = self.head(self.fusion(spatial, context))
        return logits

    def _new_heads(self, num_classes: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        return (
            SegmentationHead(FUSED_CHANNELS, FUSED_CHANNELS, num_classes),
            SegmentationHead(PATH_CHANNELS, AUXILIARY_HIDDEN, num_classes),
            SegmentationHead(PATH_CHANNELS, AUXILIARY_HIDDEN, num_classes),
        )

    def _source(self, fused: Tensor, encoded: _Encoded, count: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
        if count == 0 or self.source_heads is None:
            return ()
        main, *auxiliary = self.source_heads
        chosen = slice(0, count)
        logits = upsample(main(fused[chosen]), LOGIT_STRIDE, size)
        return (logits, *_auxiliary(auxiliary, encoded, chosen, size))


def _auxiliary(
    heads: Sequence[nn.Module], encoded: _Encoded, chosen: slice, size: tuple[int, int]
) -> tuple[Tensor, ...]:
    if encoded.context8[chosen].shape[0] == 0:
        return ()
    at_8, at_16 = heads
    return (
        upsample(at_8(encoded.context8[chosen]), 8, size),
        upsample(at_16(encoded.context16[chosen]), 16, size),
    )


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
