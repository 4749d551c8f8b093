"""Any of timm's feature backbones as V1's backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssada_core.errors import ModelError
from ssada_core.networks.backbones import Backbone, Pyramid
from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD
from ssada_core.settings import nearest

_STRIDES = (8, 16, 32)
_PROBE = 64


class TimmBackbone(Backbone):
    """A timm model's features at 1/8, 1/16 and 1/32, normalised as that model's own weights want it."""

    def __init__(self, name: str, *, pretrained: bool) -> None:
        """Build it.

        Args:
            name: timm's name, with or without a tag of pretrained weights (``mobilenetv3_large_100.ra_in1k``).
            pretrained: give it its ImageNet weights, downloaded by timm unless they are in its cache.

        Raises:
            ModelError: if timm has no such model, it has no such features, or its weights cannot be had.
        """
        super().__init__()
        import timm

        if not timm.is_model(name.partition(".")[0]):
            raise ModelError(f"timm has no model '{name}'{nearest(name, timm.list_models())}")
        self.net = _create(name, pretrained=pretrained)
        self.channels = _probe(self.net, name)
        scale, shift = _normalisation(name)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.scale: Tensor
        self.shift: Tensor
        self._as_imagenet = bool(torch.all(scale == 1) and torch.all(shift == 0))

    def forward(self, x: Tensor) -> Pyramid:
        """See :class:`Backbone`."""
        at_8, at_16, at_32 = self.net(x if self._as_imagenet else x * self.scale + self.shift)
        return at_8, at_16, at_32


def _create(name: str, *, pretrained: bool) -> nn.Module:
    import timm

    try:
        whole = timm.create_model(name, pretrained=False, features_only=True)
        reductions = list(whole.feature_info.reduction())
        indices = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in _STRIDES)
    except (RuntimeError, ValueError, AttributeError, TypeError, AssertionError) as error:  # by kind of model
        raise _unsuitable(name, str(error)) from error
    try:
        net: nn.Module = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=indices)
    except (OSError, RuntimeError) as error:  # RuntimeError: the model has no weights, or the download is damaged
        raise ModelError(
            f"ImageNet weights of timm's '{name}' cannot be downloaded ({type(error).__name__}): fill timm's cache "
            "on a machine with network, or choose the backbone efficientnet_lite0"
        ) from error
    return net


def _probe(net: nn.Module, name: str) -> tuple[int, int, int]:
    """Channels of the three scales, from features that were seen to have the right layout and sizes."""
    training = net.training
    try:
        with torch.no_grad():
            features = net.eval()(torch.zeros(1, 3, _PROBE, _PROBE))
    except (RuntimeError, AssertionError) as error:  # made for one size of images
        raise _unsuitable(name, str(error)) from error
    net.train(training)
    channels = tuple(int(channel) for channel in net.feature_info.channels())  # type: ignore[operator, union-attr]
    expected = [(1, count, _PROBE // s, _PROBE // s) for count, s in zip(channels, _STRIDES, strict=True)]
    if [tuple(found.shape) for found in features] != expected:
        raise _unsuitable(name, "its features have another layout")
    return channels[0], channels[1], channels[2]


def _unsuitable(name: str, reason: str) -> ModelError:
    return ModelError(
        f"timm's '{name}' has no features at 1/8, 1/16 and 1/32 of any image ({reason.splitlines()[0]}): "
        "choose a convolutional one, such as mobilenetv3_large_100"
    )


def _normalisation(name: str) -> tuple[Tensor, Tensor]:
    """Factor and summand that turn ImageNet-normalised images into what the model's weights were trained on."""
    import timm

    found: Any = timm.get_pretrained_cfg(name)
    mean, std = (found.mean, found.std) if found is not None else (IMAGENET_MEAN, IMAGENET_STD)
    scale = torch.tensor(IMAGENET_STD) / torch.tensor(std)
    shift = (torch.tensor(IMAGENET_MEAN) - torch.tensor(mean)) / torch.tensor(std)
    return scale.view(1, 3, 1, 1), shift.view(1, 3, 1, 1)
