"""The losses of SS-ADA as pure functions (METHOD §3 and §4). No empty mask ever gives NaN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (the name everybody reads)
from torch import Tensor

from ssada_core.labels import IGNORE

OHEM_THRESHOLD = 0.7
MIN_KEPT_SHARE = 1.0 / 13.0
"""200 000 pixels of a batch of 4 at 800×800, as a share (METHOD §3)."""

_NOT_A_PROBABILITY = 2.0


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = OHEM_THRESHOLD,
    min_kept_share: float = MIN_KEPT_SHARE,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy over the hard pixels: online hard example mining (METHOD §3).

    A valid pixel is kept if its probability of the true class is at most ``max(threshold, p_k)``, where
    ``p_k`` is the k-th smallest such probability and k is ``min_kept_share`` of all pixels; with fewer
    valid pixels than k, all are kept.

    Args:
        logits: float ``[B,C,H,W]``.
        target: int64 ``[B,H,W]`` of class ids and 255.
        threshold: probability above which a pixel is easy.
        min_kept_share: share of the batch's pixels, ignored ones included, that is always kept.
        class_weights: float ``[C]``; the mean is then the weighted one, as in ``torch.nn.CrossEntropyLoss``.

    Returns:
        Scalar; exactly 0, with a gradient of zeros, if no pixel is valid.
    """
    loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="none")
    weight = _hard_pixels(loss.detach(), target != IGNORE, threshold, min_kept_share).to(loss.dtype)
    if class_weights is not None:
        weight = weight * class_weights.to(weight)[target.clamp(max=class_weights.numel() - 1)]
    return _ratio((loss * weight).sum(), weight.sum())


def _hard_pixels(loss: Tensor, valid: Tensor, threshold: float, min_kept_share: float) -> Tensor:
    # Ignored pixels sort last, so that with fewer valid pixels than k the bound exceeds every probability.
    # Nothing here waits for the device.
    probability = torch.where(valid, torch.exp(-loss), _NOT_A_PROBABILITY)
    k = max(1, int(min_kept_share * probability.numel()))
    bound = probability.flatten().kthvalue(k).values.clamp(min=threshold)
    return valid & (probability <= bound)


def supervised_loss(
    heads: Sequence[Tensor],
    target: Tensor,
    *,
    threshold: float = OHEM_THRESHOLD,
    min_kept_share: float = MIN_KEPT_SHARE,
    class_weights: Tensor | None = None,
) -> Tensor:
    """OHEM cross-entropy averaged over the main and the auxiliary heads (METHOD §3).

    Args:
        heads: logits ``[B,C,H,W]`` of every head, the main one first; at least one.
        target: int64 ``[B,H,W]``.
        threshold: see :func:`ohem_cross_entropy`.
        min_kept_share: see :func:`ohem_cross_entropy`.
        class_weights: see :func:`ohem_cross_entropy`.
    """
    losses = [
        ohem_cross_entropy(
            logits, target, threshold=threshold, min_kept_share=min_kept_share, class_weights=class_weights
        )
        for logits in heads
    ]
    return torch.stack(losses).mean()


def pseudo_labels(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence float32 ``[B,H,W]`` and arg max int64 ``[B,H,W]`` of logits ``[B,C,H,W]``; no gradient."""
    confidence, label = torch.softmax(logits.detach().float(), dim=1).max(dim=1)
    return confidence, label


def class_thresholds(iou: Tensor, ratio: float) -> Tensor:
    """Class-wise confidence thresholds ``ratio · IoU`` float ``[C]`` (METHOD §4); ``iou`` without NaN."""
    return iou * ratio


def confidence_mask(confidence: Tensor, pseudo: Tensor, thresholds: Tensor | float) -> Tensor:
    """Which pixels pass the confidence test (METHOD §4).

    Args:
        confidence: float ``[B,H,W]``.
        pseudo: predicted class, int64 ``[B,H,W]``.
        thresholds: one τ for all classes, or float ``[C]`` (see :func:`class_thresholds`).

    Returns:
        bool ``[B,H,W]``, true where ``confidence >= threshold``.
    """
    if isinstance(thresholds, Tensor):
        return confidence >= thresholds.to(confidence)[pseudo]
    return confidence >= thresholds


def unlabelled_cross_entropy(
    logits: Tensor, pseudo: Tensor, confidence: Tensor, valid: Tensor, *, thresholds: Tensor | float = 0.0
) -> Tensor:
    """Cross-entropy against pseudo-labels over confident pixels, divided by the valid ones (METHOD §4).

    The divisor is the number of pixels that are not padding, confident or not, so that a batch with
    little confidence pulls little.

    Args:
        logits: float ``[B,C,H,W]``.
        pseudo: int64 ``[B,H,W]``.
        confidence: float ``[B,H,W]``.
        valid: bool ``[B,H,W]``, false on padding (and on pixels a human has labelled, METHOD §7).
        thresholds: see :func:`confidence_mask`.

    Returns:
        Scalar; exactly 0, with a gradient of zeros, if no pixel is valid.
    """
    keep = valid & confidence_mask(confidence, pseudo, thresholds)
    loss = F.cross_entropy(logits.float(), pseudo, reduction="none")
    return _ratio((loss * keep).sum(), valid.sum())


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``, and 0 where nothing was counted (then the total is 0 too)."""
    return total / torch.where(count > 0, count, torch.ones_like(count))
