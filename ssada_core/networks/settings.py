"""Which network: the part of a model's manifest that is needed to build it again."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from ssada_core.settings import Settings, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's images, RGB in [0, 1]; every network's input is normalised by it."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation, likewise."""
BACKBONE_NAMES = ("resnet18", "efficientnet_lite0")
"""Backbones of our own, beside timm's."""
ONNX_ARCHITECTURE: Literal["onnx"] = "onnx"
"""Of models that came as an ONNX graph."""
TIMM_PREFIX = "timm:"
"""What the name of any of timm's feature backbones starts with, as ``timm:mobilenetv3_large_100``."""

_TIMM_NAME = re.compile(r"timm:[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")


class NetworkSettings(Settings):
    """Architecture, backbone and the size it runs at."""

    architecture: Literal["bisenet_v1", "bisenet_v2", "onnx"] = Field(
        "bisenet_v1", description="Network architecture; onnx is an imported graph, which runs but cannot be trained."
    )
    backbone: str = Field(
        "efficientnet_lite0",
        description="V1's context path's backbone: resnet18, efficientnet_lite0 or timm:NAME; V2 has none.",
    )
    fusion_gate: Literal["two_layers", "batch_norm"] = Field(
        "two_layers", description="V1's gate on the fusion: the paper's, or that of most public checkpoints."
    )
    input_height: int = Field(384, ge=32, le=4096, description="Height in pixels at which frames are segmented.")
    input_width: int = Field(640, ge=32, le=4096, description="Width in pixels at which frames are segmented.")

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        # Whether timm has the model is asked when it is built: importing timm takes two seconds.
        if name in BACKBONE_NAMES or _TIMM_NAME.fullmatch(name):
            return name
        candidates = [*BACKBONE_NAMES, f"{TIMM_PREFIX}NAME"]
        raise ValueError(f"no such backbone{nearest(name, candidates)}")
