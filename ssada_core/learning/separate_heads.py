"""Source and target with different classes: heads of their own over a shared trunk (METHOD §2)."""

from __future__ import annotations

import torch
from torch import nn

from ssada_core.errors import ConfigError
from ssada_core.labels import LabelSpace, load_label_space
from ssada_core.learning.offline_settings import OfflineSettings
from ssada_core.networks.base import SegmentationNetwork

_MODES = ("joint", "ssada")


def source_space(settings: OfflineSettings, target: LabelSpace) -> LabelSpace:
    """The label space of the source frames: the target's, unless the configuration names one with other classes.

    Raises:
        ConfigError: if the mode or mixing cannot do with two label spaces.
    """
    if not settings.source_label_space:
        return target
    source = load_label_space(settings.source_label_space)
    if source.classes == target.classes:
        return source
    if settings.mode not in _MODES:
        raise ConfigError(
            f"source_label_space '{source.name}' has other classes than '{target.name}': heads of its own are for "
            f"mode joint and ssada, not {settings.mode}"
        )
    if settings.training.mixing.mode != "none":
        raise ConfigError("mixing pastes source classes onto target frames: with other classes set its mode to none")
    return source


def adopt(network: SegmentationNetwork, trained: SegmentationNetwork, source: LabelSpace, target: LabelSpace) -> None:
    """Start from a model of the source's classes.

    Trunk and source heads are its own; the target's heads are like them, with the classifiers of the classes that
    have the same name; the rest of them stays random **[ours]**.

    Args:
        network: with target and source heads; changed in place.
        trained: the same architecture with the source's classes.
        source: its classes.
        target: the target's classes.
    """
    if network.source_heads is None:
        raise ConfigError("the network has no heads for the source: add them first")
    fresh = {id(parameter) for head in network.heads() for parameter in _classifier(head).parameters()}
    kept = {name for name, parameter in network.named_parameters() if id(parameter) in fresh}
    trunk = {name: value for name, value in trained.state_dict().items() if name not in kept}
    network.load_state_dict({**network.state_dict(), **trunk})
    pairs = [
        (row, source.classes.index(name)) for row, name in enumerate(target.classes) if name in set(source.classes)
    ]
    for source_head, head, known_head in zip(network.source_heads, network.heads(), trained.heads(), strict=True):
        source_head.load_state_dict(known_head.state_dict())
        _copy_classes(head, known_head, pairs)


@torch.no_grad()
def _copy_classes(head: nn.Module, trained: nn.Module, pairs: list[tuple[int, int]]) -> None:
    """Copy the classifier's rows, the last convolution's, target row from source row."""
    ours, theirs = _classifier(head), _classifier(trained)
    for row, found in pairs:
        ours.weight[row] = theirs.weight[found]
        if ours.bias is not None and theirs.bias is not None:
            ours.bias[row] = theirs.bias[found]


def _classifier(head: nn.Module) -> nn.Conv2d:
    """A head's last convolution, with a row per class."""
    return [module for module in head.modules() if isinstance(module, nn.Conv2d)][-1]
