"""The crops of one training step, as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD


def normalise(images: Tensor) -> Tensor:
    """Crops uint8 ``[B,h,w,3]`` BGR → float32 ``[B,3,h,w]`` RGB, ImageNet-normalised, in channels-last memory."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device) * 255.0
    scale = 1.0 / (torch.tensor(IMAGENET_STD, device=images.device) * 255.0)
    return images.flip(-1).float().sub_(mean).mul_(scale).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class LabelledCrops:
    """Images uint8 ``[B,h,w,3]`` BGR and labels int64 ``[B,h,w]``, 255 on padding."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> LabelledCrops:
        """The same crops on ``device``."""
        return LabelledCrops(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class UnlabelledCrops:
    """One weak and two strong views, and the second batch they are mixed with (METHOD §4).

    Attributes:
        weak: uint8 ``[B,h,w,3]`` BGR.
        strong1: its first strong view, with the first box from the second batch already pasted in.
        strong2: its second strong view, likewise.
        usable: bool ``[B,h,w]``, false on padding and on pixels that a human has labelled.
        box1: bool ``[B,h,w]``, what was pasted into ``strong1``.
        box2: bool ``[B,h,w]``, what was pasted into ``strong2``.
        other: weak views of the second batch, uint8 ``[M,h,w,3]``, M ≤ B: only those that are pasted somewhere.
        other_rows: int64 ``[M]``, which image of the batch each is pasted into.
        other_usable: bool ``[M,h,w]``.
    """

    weak: Tensor
    strong1: Tensor
    strong2: Tensor
    usable: Tensor
    box1: Tensor
    box2: Tensor
    other: Tensor
    other_rows: Tensor
    other_usable: Tensor

    def to(self, device: torch.device) -> UnlabelledCrops:
        """The same crops on ``device``."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class PairedCrops:
    """Two views of each target crop (METHOD §8).

    Attributes:
        plain: uint8 ``[B,h,w,3]`` BGR.
        augmented: the same in other colours and under an affine map.
        matrix: float32 ``[B,2,3]``, the map, see :mod:`ssada_core.learning.pairs`.
        usable: bool ``[B,h,w]``, false where ``plain`` is padding.
        valid: bool ``[B,h,w]``, where ``augmented`` shows usable pixels of ``plain``.
    """

    plain: Tensor
    augmented: Tensor
    matrix: Tensor
    usable: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> PairedCrops:
        """The same crops on ``device``."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class Batch:
    """The parts of one step; those that are missing are None."""

    source: LabelledCrops | None
    labelled: LabelledCrops | None
    unlabelled: UnlabelledCrops | None
    pairs: PairedCrops | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(
            self.source.to(device) if self.source else None,
            self.labelled.to(device) if self.labelled else None,
            self.unlabelled.to(device) if self.unlabelled else None,
            self.pairs.to(device) if self.pairs else None,
        )
