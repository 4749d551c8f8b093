"""Cross-domain mixing: classes of one frame pasted onto another, as in ClassMix and DACS (METHOD §8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name everybody reads)
from numpy.typing import NDArray
from torch import Tensor

from ssada_core.data.samples import Samples, spread
from ssada_core.labels import IGNORE

MIXED_SHARE, ORIGINAL_SHARE = 0.8, 0.2
"""Weights of the mixed label and of the original one in ``dual_soft``."""

_COUNTED_FRAMES = 64


@dataclass(frozen=True)
class Labelled:
    """Frames with what each pixel is taken for, and how much it counts.

    Attributes:
        images: uint8 ``[B,h,w,3]`` BGR.
        labels: int64 ``[B,h,w]`` of class ids and 255.
        weights: float32 ``[B,h,w]``.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor


def ground_truth(images: Tensor, labels: Tensor) -> Labelled:
    """Frames that a human has labelled: each labelled pixel weighs 1."""
    return Labelled(images, labels, (labels != IGNORE).float())


def pseudo_labelled(images: Tensor, labels: Tensor, confidence: Tensor, usable: Tensor, threshold: float) -> Labelled:
    """Frames with pseudo-labels: each usable pixel weighs the share of its frame's usable pixels that are confident.

    Args:
        images: uint8 ``[B,h,w,3]`` BGR.
        labels: predicted class, int64 ``[B,h,w]``.
        confidence: float ``[B,h,w]``.
        usable: bool ``[B,h,w]``; elsewhere the label becomes 255.
        threshold: a pixel is confident from here on.
    """
    confident = (usable & (confidence >= threshold)).sum((1, 2))
    share = confident / usable.sum((1, 2)).clamp(min=1)
    return Labelled(images, torch.where(usable, labels, IGNORE), share[:, None, None] * usable.float())


def choose_classes(labels: Tensor, draws: Tensor) -> Tensor:
    """Half of the classes that each frame shows, rounded up: those with the lowest draws.

    Args:
        labels: int64 ``[B,h,w]`` of class ids and 255.
        draws: float ``[B,C]``, below 1.

    Returns:
        bool ``[B,C]``.
    """
    present = classes_present(labels, draws.shape[1])
    rank = torch.where(present, draws, torch.inf).argsort(dim=1).argsort(dim=1)
    return present & (rank < (present.sum(1, keepdim=True) + 1) // 2)


def classes_present(labels: Tensor, num_classes: int) -> Tensor:
    """Which classes each frame of int64 ``[B,h,w]`` shows: bool ``[B,C]``."""
    present = torch.zeros(len(labels), 256, dtype=torch.bool, device=labels.device)
    return present.scatter_(1, labels.flatten(1), True)[:, :num_classes]


def add_rare(chosen: Tensor, labels: Tensor, rare: Tensor, draws: Tensor, probability: float) -> Tensor:
    """``long_tail``: each rare class that a frame shows is pasted too, with the probability given.

    Args:
        chosen: bool ``[B,C]``, see :func:`choose_classes`.
        labels: int64 ``[B,h,w]``.
        rare: bool ``[C]``.
        draws: float ``[B,C]`` in [0, 1).
        probability: METHOD's 0.3.
    """
    return chosen | (classes_present(labels, draws.shape[1]) & rare & (draws < probability))


def class_mask(labels: Tensor, chosen: Tensor) -> Tensor:
    """Pixels of the chosen classes: bool ``[B,h,w]``."""
    table = F.pad(chosen, (0, 256 - chosen.shape[1]))
    return table.gather(1, labels.flatten(1)).view_as(labels)


def paste_classes(onto: Labelled, pasted: Labelled, mask: Tensor) -> Labelled:
    """Images, labels and weights of ``pasted`` within the mask (bool ``[B,h,w]``), of ``onto`` elsewhere."""
    return Labelled(
        torch.where(mask[..., None], pasted.images, onto.images),
        torch.where(mask, pasted.labels, onto.labels),
        torch.where(mask, pasted.weights, onto.weights),
    )


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """``Σ w·CE / number of labelled pixels``, so that frames with little confidence pull little.

    Args:
        logits: float ``[B,C,H,W]``.
        labels: int64 ``[B,H,W]`` of class ids and 255.
        weights: float ``[B,H,W]``.

    Returns:
        Scalar; exactly 0, with a gradient of zeros, if no pixel is labelled.
    """
    loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    return (loss * weights).sum() / (labels != IGNORE).sum().clamp(min=1)


def soft_cross_entropy(logits: Tensor, mixed: Labelled, original: Labelled) -> Tensor:
    """``dual_soft``: 0.8 of the loss against the mixed label, 0.2 of that against the frame's own label."""
    parts = [(MIXED_SHARE, mixed), (ORIGINAL_SHARE, original)]
    losses = [share * weighted_cross_entropy(logits, side.labels, side.weights) for share, side in parts]
    return torch.stack(losses).sum()


def rare_classes(samples: Samples, num_classes: int, share: float) -> NDArray[np.bool_]:
    """Classes with less than ``share`` of the labelled pixels, bool ``[C]``; from 64 frames at most.

    Classes that none of the frames shows are rare.
    """
    looked_at = spread(samples, _COUNTED_FRAMES)
    counts = np.zeros(num_classes, np.int64)
    for index in range(len(looked_at)):
        label = looked_at.label(index)
        if label is not None:
            counts += np.bincount(label.ravel(), minlength=256)[:num_classes]
    return np.asarray(counts < share * max(int(counts.sum()), 1), np.bool_)
