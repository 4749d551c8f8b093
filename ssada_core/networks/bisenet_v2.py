"""BiSeNet V2 (arXiv 2004.02147; METHOD §2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from torch import Tensor, nn

from ssada_core.networks.base import NetworkOutput, SegmentationNetwork, part
from ssada_core.networks.bilateral import (
    BOOSTED_CHANNELS,
    CHANNELS,
    BoosterHead,
    DetailBranch,
    GuidedAggregation,
    SemanticBranch,
    WideHead,
)
from ssada_core.networks.blocks import initialise, pad_to_multiple, upsample, with_perturbed

STRIDE = 32
LOGIT_STRIDE = 8
BOOSTED_STRIDES = (4, 8, 16, 32)
PERTURB_DROPOUT = 0.5


class _Encoded(NamedTuple):
    detail: Tensor
    context: Tensor
    boosted: tuple[Tensor, Tensor, Tensor, Tensor]


class BiSeNetV2(SegmentationNetwork):
    """Detail and semantic branch side by side, joined at 1/8 of the image; four auxiliary heads while it learns.

    There is no ImageNet backbone. What learns at the base learning rate (:meth:`backbone_parameters`) are the two
    branches: what a public checkpoint fills whatever its classes, and what adaptation should change least. Who
    trains V2 from random weights sets a higher learning rate and a head multiplier of 1.
    """

    feature_size = CHANNELS
    logit_stride = LOGIT_STRIDE

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.detail = DetailBranch()
        self.semantic = SemanticBranch()
        self.aggregation = GuidedAggregation()
        self.head, *boosters = self._new_heads(num_classes)
        self.boosters = nn.ModuleList(boosters)
        self.dropout = nn.Dropout2d(PERTURB_DROPOUT)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`SegmentationNetwork`."""
        return self.forward_with_features(x)[0]

    def forward_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`SegmentationNetwork`; the features are the mean of the semantic branch's context."""
        logits, features = self.coarse_with_features(x)
        return upsample(logits, LOGIT_STRIDE, _size(x)), features

    def coarse_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`SegmentationNetwork`."""
        self._check_batch(x)
        encoded = self._encode(x)
        return self._decode(encoded.detail, encoded.context), encoded.context.mean(dim=(2, 3))

    def train_forward(
        self, x: Tensor, *, perturb: bool | slice = False, auxiliary: bool | slice = True, source: int = 0
    ) -> NetworkOutput:
        """See :class:`SegmentationNetwork`; perturbed are the aggregation's inputs. In evaluation that does nothing."""
        self._check_batch(x)
        encoded = self._encode(x)
        size, batch = _size(x), x.shape[0] - source
        detail, context = (with_perturbed(path, part(perturb), self.dropout) for path in encoded[:2])
        joined: Tensor = self.aggregation(detail, context)
        logits = upsample(self.head(joined[source:] if source else joined), LOGIT_STRIDE, size)
        return NetworkOutput(
            logits[:batch],
            _auxiliary(self.boosters, encoded.boosted, part(auxiliary), size),
            logits[batch:] if logits.shape[0] > batch else None,
            self._source(joined, encoded, source, size),
        )

    def heads(self) -> tuple[nn.Module, ...]:
        """See :class:`SegmentationNetwork`."""
        return self.head, *self.boosters

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The two branches; see the class."""
        return chain(self.detail.parameters(), self.semantic.parameters())

    def _encode(self, x: Tensor) -> _Encoded:
        padded = pad_to_multiple(x, STRIDE)
        boosted, context = self.semantic(padded)
        return _Encoded(self.detail(padded), context, boosted)

    def _decode(self, detail: Tensor, context: Tensor) -> Tensor:
        logits: Tensor = self.head(self.aggregation(detail, context))
        return logits

    def _new_heads(self, num_classes: int) -> tuple[nn.Module, ...]:
        boosters = (
            BoosterHead(inputs, factor, num_classes)
            for inputs, factor in zip(BOOSTED_CHANNELS, BOOSTED_STRIDES, strict=True)
        )
        return WideHead(num_classes), *boosters

    def _source(self, joined: Tensor, encoded: _Encoded, count: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
        if count == 0 or self.source_heads is None:
            return ()
        main, *boosters = self.source_heads
        chosen = slice(0, count)
        logits = upsample(main(joined[chosen]), LOGIT_STRIDE, size)
        return (logits, *_auxiliary(boosters, encoded.boosted, chosen, size))


def _auxiliary(
    boosters: Iterable[nn.Module], boosted: tuple[Tensor, ...], chosen: slice, size: tuple[int, int]
) -> tuple[Tensor, ...]:
    if boosted[0][chosen].shape[0] == 0:
        return ()
    return tuple(  # the heads themselves double the size
        upsample(head(features[chosen]), factor // 2, size)
        for head, features, factor in zip(boosters, boosted, BOOSTED_STRIDES, strict=True)
    )


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
