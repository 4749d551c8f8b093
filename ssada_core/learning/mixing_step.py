"""The loss of frames mixed from source and target (METHOD §8)."""

from __future__ import annotations

import torch
from torch import Tensor

from ssada_core.data.samples import Samples
from ssada_core.learning.batches import normalise
from ssada_core.learning.mixing import (
    Labelled,
    add_rare,
    choose_classes,
    class_mask,
    paste_classes,
    rare_classes,
    soft_cross_entropy,
    weighted_cross_entropy,
)
from ssada_core.learning.settings import MixingSettings
from ssada_core.networks.base import SegmentationNetwork


def long_tail_classes(
    settings: MixingSettings, source: Samples | None, num_classes: int, device: torch.device
) -> Tensor | None:
    """The classes that ``long_tail`` pastes more often, bool ``[C]``; None where it is off."""
    if settings.mode == "none" or not settings.long_tail or source is None:
        return None
    return torch.from_numpy(rare_classes(source, num_classes, settings.rare_share)).to(device)


def mixing_loss(
    network: SegmentationNetwork, source: Labelled, target: Labelled, settings: MixingSettings, rare: Tensor | None
) -> Tensor:
    """Cross-entropy of mixed frames in a pass of their own, averaged over main and auxiliary heads.

    Frames are paired in order; where one side has more, its last ones are left out. Classes are drawn from
    PyTorch's global generator on the CPU, so that every device draws the same.

    Args:
        network: in training mode.
        source: with ground truth.
        target: with pseudo-labels.
        settings: mode ``single`` or ``dual_soft``.
        rare: bool ``[C]``, needed for ``long_tail``.
    """
    frames = mixed_frames(source, target, settings, rare, network.num_classes)
    output = network.train_forward(normalise(torch.cat([mixed.images for mixed, _ in frames])))
    heads = (output.logits, *output.auxiliary)
    losses = []
    for number, (mixed, original) in enumerate(frames):
        part = slice(number * len(mixed.images), (number + 1) * len(mixed.images))
        for head in heads:
            if settings.mode == "dual_soft":
                losses.append(soft_cross_entropy(head[part], mixed, original))
            else:
                losses.append(weighted_cross_entropy(head[part], mixed.labels, mixed.weights))
    return torch.stack(losses).mean()


def mixed_frames(
    source: Labelled, target: Labelled, settings: MixingSettings, rare: Tensor | None, num_classes: int
) -> list[tuple[Labelled, Labelled]]:
    """Mixed frames, each with what it was before: source pasted onto target and, in ``dual_soft``, the other way."""
    count = min(len(source.images), len(target.images))
    source, target = _first(source, count), _first(target, count)
    frames = [(_pasted(source, target, settings, rare, num_classes), target)]
    if settings.mode == "dual_soft":
        frames.append((_pasted(target, source, settings, None, num_classes), source))
    return frames


def _pasted(
    pasted: Labelled, onto: Labelled, settings: MixingSettings, rare: Tensor | None, num_classes: int
) -> Labelled:
    chosen = choose_classes(pasted.labels, _draws(pasted.labels, num_classes))
    if settings.long_tail and rare is not None:
        draws = _draws(pasted.labels, num_classes)
        chosen = add_rare(chosen, pasted.labels, rare, draws, settings.long_tail_probability)
    return paste_classes(onto, pasted, class_mask(pasted.labels, chosen))


def _draws(labels: Tensor, num_classes: int) -> Tensor:
    return torch.rand(len(labels), num_classes).to(labels.device)


def _first(frames: Labelled, count: int) -> Labelled:
    return Labelled(frames.images[:count], frames.labels[:count], frames.weights[:count])
