"""The loss of one TUFL step: labelled source, and pairs of target views (METHOD §8)."""

from __future__ import annotations

import torch
from torch import Tensor

from ssada_core.errors import DataError
from ssada_core.learning.batches import Batch, PairedCrops, normalise
from ssada_core.learning.focal import ThresholdState, focal_loss
from ssada_core.learning.losses import confidence_mask, pseudo_labels, supervised_loss
from ssada_core.learning.mixing import ground_truth, pseudo_labelled
from ssada_core.learning.mixing_step import mixing_loss
from ssada_core.learning.pairs import warp
from ssada_core.learning.settings import TrainingSettings, TuflSettings
from ssada_core.learning.step import StepResult
from ssada_core.networks.base import SegmentationNetwork


def first_thresholds(tufl: TuflSettings, num_classes: int, device: torch.device) -> ThresholdState:
    """The thresholds that a training begins with: the same for each class."""
    values = torch.full((num_classes,), tufl.threshold, device=device)
    return ThresholdState(
        values, a=tufl.adaptive_keep, b=tufl.adaptive_share, d=tufl.adaptive_power, cap=tufl.adaptive_cap
    )


def tufl_step(
    network: SegmentationNetwork,
    batch: Batch,
    settings: TrainingSettings,
    tufl: TuflSettings,
    thresholds: ThresholdState,
    *,
    class_weights: Tensor | None = None,
    rare: Tensor | None = None,
) -> StepResult:
    """``L = L_source + λ·L_focal``, plus the weighted loss of mixed frames where the settings ask for them.

    Source, plain and augmented views pass the network in one concatenated batch. Adaptive thresholds follow
    this batch before they are used on it (a choice of ours: METHOD leaves the order open).

    Args:
        network: is put into training mode; frozen batch norms stay frozen.
        batch: on the network's device; with pairs.
        settings: of OHEM and mixing.
        tufl: of the focal loss.
        thresholds: changed in place if ``tufl.threshold_mode`` is ``adaptive``.
        class_weights: float ``[C]`` for the supervised loss.
        rare: bool ``[C]``, classes that ``long_tail`` pastes more often.

    Raises:
        DataError: if the batch has no pairs.
    """
    if batch.pairs is None:
        raise DataError("a batch without pairs of target views: TUFL needs unlabelled target frames")
    heads, before, plain, augmented = _forward(network.train(), batch, batch.pairs)
    valid = batch.pairs.valid
    confidence, label = pseudo_labels(plain[0])
    if tufl.threshold_mode == "adaptive":
        thresholds.update(confidence, label, valid)
    focal = focal_loss(
        plain,
        augmented,
        valid,
        threshold=thresholds.values,
        ohem_ratio=tufl.ohem_ratio,
        gamma=tufl.gamma,
        kind=tufl.focal_type,
    )
    losses = {"focal": focal}
    loss = tufl.focal_weight * focal
    if batch.source is not None:
        losses["source"] = supervised_loss(
            heads,
            batch.source.labels,
            threshold=settings.ohem_threshold,
            min_kept_share=settings.ohem_min_kept_share,
            class_weights=class_weights,
        )
        loss = loss + losses["source"]
        if settings.mixing.mode != "none":
            losses["mixed"] = _mixed(network, batch, batch.pairs, before, settings, rare)
            loss = loss + settings.mixing.weight * losses["mixed"]
    confident = (valid & confidence_mask(confidence, label, thresholds.values)).sum() / valid.sum().clamp(min=1)
    figures = {"loss": loss} | {f"loss_{name}": value for name, value in losses.items()} | {"confident": confident}
    return StepResult(loss, {name: value.detach().float() for name, value in figures.items()})


def _forward(
    network: SegmentationNetwork, batch: Batch, pairs: PairedCrops
) -> tuple[list[Tensor], Tensor, list[Tensor], list[Tensor]]:
    """Logits of every head on the source; the main one's on the plain views; all on warped plain and augmented."""
    images = [batch.source.images] if batch.source is not None else []
    first, count = sum(len(part) for part in images), len(pairs.plain)
    output = network.train_forward(normalise(torch.cat([*images, pairs.plain, pairs.augmented])))
    heads = (output.logits, *output.auxiliary)
    warped = [warp(head[first : first + count], pairs.matrix) for head in heads]
    augmented = [head[first + count :] for head in heads]
    return [head[:first] for head in heads], output.logits[first : first + count], warped, augmented


def _mixed(
    network: SegmentationNetwork,
    batch: Batch,
    pairs: PairedCrops,
    plain: Tensor,
    settings: TrainingSettings,
    rare: Tensor | None,
) -> Tensor:
    if batch.source is None:
        raise DataError("a batch without source crops: there is nothing to mix with")
    confidence, label = pseudo_labels(plain)
    target = pseudo_labelled(pairs.plain, label, confidence, pairs.usable, settings.mixing.threshold)
    return mixing_loss(network, ground_truth(batch.source.images, batch.source.labels), target, settings.mixing, rare)
