"""The unsupervised focal loss of TUFL and its adaptive thresholds, as pure functions (METHOD §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (the name everybody reads)
from torch import Tensor

from ssada_core.learning.losses import pseudo_labels


def focal_map(plain: Tensor, augmented: Tensor, *, gamma: float = 2.0, kind: int = 1) -> Tensor:
    """Unsupervised focal loss per pixel, ``Σ_c p_c·(log p_c − d·log q_c) + H(p)`` (METHOD §8).

    With p = softmax(plain), q = softmax(augmented), k = arg max p: ``d = |a − q_k|^γ`` where a is 1 (type 1) or
    p_k (type 2). The gradient reaches ``plain`` through H(p) alone, ``augmented`` through q and d.

    Args:
        plain: logits of the plain view, float ``[B,C,H,W]``, already where the augmented view shows them.
        augmented: logits of the augmented view, float ``[B,C,H,W]``.
        gamma: γ, at least 1: below, d's gradient has no bound where a equals q_k.
        kind: 1 or 2.

    Returns:
        float32 ``[B,H,W]``.
    """
    log_p, log_q = F.log_softmax(plain.float(), dim=1), F.log_softmax(augmented.float(), dim=1)
    entropy = -(log_p.exp() * log_p).sum(1)
    fixed = log_p.detach()
    p = fixed.exp()
    top, label = p.max(dim=1)
    q_top = log_q.gather(1, label[:, None]).squeeze(1).exp()
    difficulty = ((1.0 if kind == 1 else top) - q_top).abs() ** gamma
    return (p * (fixed - difficulty[:, None] * log_q)).sum(1) + entropy


def hardest_mean(loss: Tensor, keep: Tensor, ratio: float) -> Tensor:
    """Mean over the share ``ratio`` of the kept pixels that has the highest loss; nothing waits for the device.

    Args:
        loss: float, any shape.
        keep: bool, of the same shape.
        ratio: share in (0, 1]; of a pixel or more always one.

    Returns:
        Scalar; exactly 0, with a gradient of zeros, if no pixel is kept.
    """
    # Pixels left out sort last and are never among the first ``count``.
    ordered = torch.where(keep, loss, -torch.inf).flatten().sort(descending=True).values
    kept = keep.sum()
    count = (ratio * kept).floor().clamp(min=1).minimum(kept)
    among = torch.arange(ordered.numel(), device=loss.device) < count
    return torch.where(among, ordered, 0.0).sum() / count.clamp(min=1)


def focal_loss(
    plain: Sequence[Tensor],
    augmented: Sequence[Tensor],
    valid: Tensor,
    *,
    threshold: Tensor | float = 0.8,
    ohem_ratio: float = 0.5,
    gamma: float = 2.0,
    kind: int = 1,
) -> Tensor:
    """Focal loss over the confident, hard pixels, averaged over the heads (METHOD §8).

    Args:
        plain: logits ``[B,C,H,W]`` of every head for the plain view, warped onto the augmented one.
        augmented: logits of the same heads for the augmented view.
        valid: bool ``[B,H,W]``, false where the augmented view shows nothing of the plain one.
        threshold: confidence above which a pixel is kept: one, or one per class, float ``[C]``.
        ohem_ratio: share of the kept pixels, highest loss first, that is averaged.
        gamma: see :func:`focal_map`.
        kind: see :func:`focal_map`.

    Returns:
        Scalar; exactly 0, with a gradient of zeros, if no pixel is kept.
    """
    losses = []
    for before, after in zip(plain, augmented, strict=True):
        confidence, label = pseudo_labels(before)
        least = threshold.to(confidence)[label] if isinstance(threshold, Tensor) else threshold
        keep = valid & (confidence > least)
        losses.append(hardest_mean(focal_map(before, after, gamma=gamma, kind=kind), keep, ohem_ratio))
    return torch.stack(losses).mean()


@dataclass
class ThresholdState:
    """One confidence threshold per class, following what the network is sure of (METHOD §8).

    Attributes:
        values: T_c, float32 ``[C]``.
        a: share of the old threshold that a step keeps.
        b: share of a class's pixels that would pass at T_c = 1.
        d: exponent that makes thresholds below 1 stricter.
        cap: largest threshold.
    """

    values: Tensor
    a: float = 0.9
    b: float = 0.8
    d: float = 8.0
    cap: float = 0.999

    def update(self, confidence: Tensor, label: Tensor, valid: Tensor) -> None:
        """``T_c ← min(cap, a·T_c + (1−a)·t_c)``; a class that is not predicted keeps its threshold.

        t_c is the confidence at position ⌊b·T_c^d·n_c⌋ (from 0) of the n_c confidences predicted as c, sorted
        from high. One sort serves all classes, and nothing waits for the device.

        Args:
            confidence: float ``[B,H,W]``.
            label: predicted class, int64 ``[B,H,W]``.
            valid: bool ``[B,H,W]``; other pixels are not counted.
        """
        classes = self.values.numel()
        ordered, by_confidence = confidence.flatten().float().sort(descending=True)
        group = torch.where(valid, label, classes).flatten()[by_confidence]
        group, by_class = group.sort(stable=True)
        counts = torch.zeros(classes + 1, dtype=torch.int64, device=group.device)
        counts = counts.scatter_add_(0, group, torch.ones_like(group))[:classes]
        position = (self.b * self.values**self.d * counts).floor().long().minimum(counts - 1).clamp(min=0)
        first = counts.cumsum(0) - counts
        index = (first + position).clamp(max=max(ordered.numel() - 1, 0))
        found = ordered[by_class][index]
        moved = (self.a * self.values + (1.0 - self.a) * found).clamp(max=self.cap)
        self.values = torch.where(counts > 0, moved, self.values)
