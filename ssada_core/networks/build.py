"""From settings to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ssada_core.errors import ModelError
from ssada_core.networks.backbones import BACKBONES, Backbone
from ssada_core.networks.base import NetworkOutput, SegmentationNetwork
from ssada_core.networks.bisenet_v1 import BiSeNetV1
from ssada_core.networks.bisenet_v2 import BiSeNetV2
from ssada_core.networks.settings import ONNX_ARCHITECTURE, TIMM_PREFIX, NetworkSettings
from ssada_core.networks.timm_backbone import TimmBackbone

__all__ = ["ARCHITECTURES", "NetworkOutput", "SegmentationNetwork", "build_network"]


def build_network(settings: NetworkSettings, num_classes: int, *, pretrained: bool) -> SegmentationNetwork:
    """Build a network in training mode.

    Args:
        settings: architecture and backbone.
        num_classes: number of logits per pixel, 1 to 255 (255 itself means "ignored").
        pretrained: give the backbone its ImageNet weights; the rest is random either way, and so is all of V2.

    Raises:
        ModelError: if the number of classes is impossible, timm has no such backbone, the ImageNet weights cannot be
            had, or the model is an imported ONNX graph.
    """
    if settings.architecture == ONNX_ARCHITECTURE:
        raise ModelError(
            "this model was imported as an ONNX graph: it runs in onnxruntime and openvino, but torch can neither run "
            "nor train it: start from a checkpoint that has its weights"
        )
    if not 1 <= num_classes <= 255:
        raise ModelError(f"{num_classes} classes: a label image holds 1 to 255 (255 itself means ignored)")
    return ARCHITECTURES[settings.architecture](settings, num_classes, pretrained)


def _backbone(name: str, *, pretrained: bool) -> Backbone:
    if name.startswith(TIMM_PREFIX):
        return TimmBackbone(name.removeprefix(TIMM_PREFIX), pretrained=pretrained)
    return BACKBONES[name](pretrained=pretrained)


def _bisenet_v1(settings: NetworkSettings, num_classes: int, pretrained: bool) -> SegmentationNetwork:
    backbone = _backbone(settings.backbone, pretrained=pretrained)
    return BiSeNetV1(backbone, num_classes, gate_batch_norm=settings.fusion_gate == "batch_norm")


def _bisenet_v2(_settings: NetworkSettings, num_classes: int, _pretrained: bool) -> SegmentationNetwork:
    return BiSeNetV2(num_classes)


ARCHITECTURES: Mapping[str, Callable[[NetworkSettings, int, bool], SegmentationNetwork]] = {
    "bisenet_v1": _bisenet_v1,
    "bisenet_v2": _bisenet_v2,
}
"""Every architecture by the name in the settings; called with settings, number of classes and ``pretrained``."""
