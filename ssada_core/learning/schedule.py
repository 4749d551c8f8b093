"""Optimiser groups and everything that changes with the iteration (METHOD §4)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ssada_core.learning.losses import class_thresholds
from ssada_core.learning.settings import TrainingSettings
from ssada_core.networks.base import SegmentationNetwork


def build_optimizer(network: SegmentationNetwork, settings: TrainingSettings) -> torch.optim.SGD:
    """SGD with momentum; each group has a ``multiplier`` for :func:`set_learning_rate`.

    Heads learn at ``head_multiplier`` times the base rate. Biases and the scales and shifts of norms,
    that is everything with fewer than two dimensions, have no weight decay.
    """
    groups = [
        *_groups(network.backbone_parameters(), 1.0, settings.weight_decay),
        *_groups(network.head_parameters(), settings.head_multiplier, settings.weight_decay),
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def _groups(parameters: Iterable[nn.Parameter], multiplier: float, weight_decay: float) -> list[dict[str, object]]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    return [
        {"params": matrices, "multiplier": multiplier, "weight_decay": weight_decay},
        {"params": vectors, "multiplier": multiplier, "weight_decay": 0.0},
    ]


def learning_rate(iteration: int, settings: TrainingSettings) -> float:
    """Base rate at ``iteration`` (from 0): a linear warm-up to the full rate, then ``(1 − progress)^power``."""
    warmup = round(settings.warmup_share * settings.iterations)
    if iteration < warmup:
        return settings.learning_rate * (iteration + 1) / warmup
    progress = (iteration - warmup) / (settings.iterations - warmup)
    return float(settings.learning_rate * (1.0 - progress) ** settings.poly_power)


def set_learning_rate(optimizer: torch.optim.Optimizer, base: float) -> None:
    """Give each group ``base`` times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = base * group["multiplier"]


def threshold_ratio(iteration: int, settings: TrainingSettings) -> float:
    """The r of the class-wise confidence test: 1, or falling linearly from 1 to 0 at the last iteration."""
    if settings.threshold_mode == "class_falling":
        return 1.0 - iteration / max(settings.iterations - 1, 1)
    return 1.0


def thresholds(iteration: int, settings: TrainingSettings, iou: Tensor | None) -> Tensor | float:
    """What :func:`~ssada_core.learning.losses.confidence_mask` compares with at ``iteration``.

    Args:
        iteration: from 0.
        settings: mode and τ.
        iou: float ``[C]`` without NaN; None only in the fixed mode.
    """
    if settings.threshold_mode == "fixed" or iou is None:
        return settings.threshold
    return class_thresholds(iou, threshold_ratio(iteration, settings))


def unlabelled_weight(iteration: int, settings: TrainingSettings) -> float:
    """Weight of the unlabelled loss at ``iteration`` (from 0): 0 before the start, linear over the ramp, then all."""
    start, ramp = (share * settings.iterations for share in (settings.unlabelled_start, settings.unlabelled_ramp))
    if iteration < start:
        return 0.0
    return settings.unlabelled_weight * min(1.0, (iteration - start) / ramp if ramp > 0 else 1.0)


def teacher_decay(iteration: int, maximum: float) -> float:
    """Decay of the moving average: 0 at first (a copy), ``1 − 1/(i+1)`` (a plain mean), at most ``maximum``."""
    return min(maximum, 1.0 - 1.0 / (iteration + 1))


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the teacher's weights and statistics towards the student's: ``t ← d·t + (1−d)·s``; counters are copied."""
    theirs = student.state_dict()
    for name, value in teacher.state_dict().items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1.0 - decay)
        else:
            value.copy_(theirs[name])
