"""What every segmentation network offers to training and inference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssada_core.errors import ModelError
from ssada_core.networks.blocks import initialise

ALL = slice(None)
NONE = slice(0, 0)


@dataclass(frozen=True)
class NetworkOutput:
    """Logits of a training pass, all at the input's size.

    Attributes:
        logits: main head, ``[B,C,H,W]``.
        auxiliary: auxiliary heads, ``[Ba,C,H,W]`` each, for the part of the batch that was asked for.
        perturbed: main head on features with dropped channels, ``[Bp,C,H,W]``, or None.
        source: what the source's own heads say of the first images, ``[Bs,Cs,H,W]`` each, the main head first;
            those images are then not among the others. Empty where source and target share their heads.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    perturbed: Tensor | None
    source: tuple[Tensor, ...] = ()


class SegmentationNetwork(nn.Module, ABC):
    """Images ``[B,3,H,W]`` (float32, ImageNet-normalised RGB, any size) → logits ``[B,C,H,W]``.

    Attributes:
        num_classes: C.
        feature_size: D of :meth:`forward_with_features`.
        logit_stride: pixels of the image, in either direction, for one of :meth:`coarse_with_features`.
        source_heads: heads for the source's label space, the main one first; None where it is the target's own.
    """

    num_classes: int
    feature_size: int
    logit_stride: int = 1

    def __init__(self) -> None:
        super().__init__()
        self._batch_norm_frozen = False
        self.source_heads: nn.ModuleList | None = None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Main logits ``[B,C,H,W]``."""

    @abstractmethod
    def forward_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Main logits and one feature vector per image, ``[B,D]``, pooled from the context path."""

    def coarse_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Main logits as they are before they are enlarged, and the features of :meth:`forward_with_features`.

        Returns:
            ``[B,C,h,w]``, where h and w are the sizes of the image, padded as the network needs, over
            :attr:`logit_stride`; and ``[B,D]``.
        """
        return self.forward_with_features(x)

    @abstractmethod
    def train_forward(
        self, x: Tensor, *, perturb: bool | slice = False, auxiliary: bool | slice = True, source: int = 0
    ) -> NetworkOutput:
        """One pass with what the losses need; the encoder runs once.

        Args:
            x: ``[B,3,H,W]``; source, target and unlabelled views may be concatenated.
            perturb: which images also get a prediction from perturbed features (a slice of the batch, or all).
            auxiliary: which images the auxiliary heads are computed for.
            source: how many images, the first ones, go to the source's own heads instead.

        Raises:
            ModelError: for a batch of one image while batch norm learns its statistics.
        """

    @abstractmethod
    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that have ImageNet weights: they learn at the base learning rate (METHOD §4)."""

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Everything but the backbone: learns at 10× the base learning rate."""
        backbone = {id(parameter) for parameter in self.backbone_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in backbone)

    @abstractmethod
    def heads(self) -> tuple[nn.Module, ...]:
        """Main and auxiliary heads, in this order."""

    @abstractmethod
    def _new_heads(self, num_classes: int) -> tuple[nn.Module, ...]:
        """Further heads like :meth:`heads`, for another label space."""

    def add_source_heads(self, num_classes: int) -> None:
        """Give the source heads of its own over the shared trunk (METHOD §2); they start at random."""
        self.source_heads = nn.ModuleList(self._new_heads(num_classes))
        self.source_heads.apply(initialise)

    def drop_source_heads(self) -> None:
        """Keep the target's heads only: the network as it is deployed."""
        self.source_heads = None

    def freeze_batch_norm(self, frozen: bool = True) -> None:
        """Keep batch norm's running statistics as they are, also after ``train()``; scale and shift still learn."""
        self._batch_norm_frozen = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> SegmentationNetwork:
        """Like ``nn.Module.train``, but frozen batch norms stay in evaluation."""
        super().train(mode)
        if self._batch_norm_frozen:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _check_batch(self, x: Tensor) -> None:
        if self.training and not self._batch_norm_frozen and x.shape[0] < 2:
            raise ModelError(
                "batch norm cannot learn from a batch of 1 image (the global branch has one value per channel): "
                "use a batch of 2 or more, or freeze batch norm"
            )


def part(choice: bool | slice) -> slice:
    """A slice of the batch: all, none, or the one given."""
    if isinstance(choice, slice):
        return choice
    return ALL if choice else NONE
