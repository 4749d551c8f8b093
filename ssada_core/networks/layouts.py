"""Whose public checkpoints can be read: their tensors' names beside ours.

Names and shapes only, as found in the public repositories; each table lists modules, and what a module holds
(``weight``, ``running_var``, …) is called the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD

CITYSCAPES_MEAN = (0.3257, 0.3690, 0.3223)
"""What CoinCheung's Cityscapes models subtract, RGB in [0, 1]."""
CITYSCAPES_STD = (0.2112, 0.2148, 0.2115)
"""What they divide by."""

Color = tuple[float, float, float]
_COINCHEUNGS_IMAGES: Mapping[int, tuple[Color, Color]] = {
    19: (CITYSCAPES_MEAN, CITYSCAPES_STD),
    171: ((0.46962251, 0.4464104, 0.40718787), (0.27469736, 0.27012361, 0.28515933)),  # COCO-Stuff
    150: ((0.49343230, 0.46819794, 0.43106043), (0.25680755, 0.25506608, 0.27422913)),  # ADE20K
}
"""CoinCheung's mean and deviation of each data set's images, by its number of classes."""
_OTHER_CORNERS = (
    "its logits were enlarged with aligned corners, ours are not: borders of regions move by a pixel or two"
)


@dataclass(frozen=True)
class Layout:
    """One kind of checkpoint.

    Attributes:
        name: for ``--layout``.
        marks: tensors that a checkpoint of this kind has.
        modules: their module → ours.
        network: the network settings that it needs.
        first: our (convolution, batch norm) pairs that see the image.
        classifier: our classifier's weight, whose first dimension is the number of classes; empty if it has none.
        without_bias: our classifiers that have no bias there, which is a bias of 0.
        mean: the images' mean it was trained with, RGB in [0, 1].
        std: likewise.
        images: mean and std by the classifier's number of classes, where they differ; with other numbers ``mean`` and
            ``std`` are a guess, which is noted.
        absolute_scale: batch norms use their scale's magnitude plus 1e-5 (InPlaceABN).
        covers: our modules that it can fill; empty means all.
        notes: what differs even where every tensor matches.
    """

    name: str
    marks: tuple[str, ...]
    modules: Mapping[str, str]
    network: Mapping[str, str]
    first: tuple[tuple[str, str], ...]
    classifier: str = ""
    without_bias: tuple[str, ...] = ()
    mean: Color = IMAGENET_MEAN
    std: Color = IMAGENET_STD
    images: Mapping[int, tuple[Color, Color]] = field(default_factory=dict)
    absolute_scale: bool = False
    covers: str = ""
    notes: tuple[str, ...] = field(default=())


def _same(theirs: str, ours: str, *parts: str) -> Iterator[tuple[str, str]]:
    return ((f"{theirs}.{part}", f"{ours}.{part}") for part in parts)


def _conv_bn_relu(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    yield from ((f"{theirs}.conv", f"{ours}.0"), (f"{theirs}.bn", f"{ours}.1"))


def _resnet18(theirs: str, *, downsample: tuple[str, str]) -> Iterator[tuple[str, str]]:
    ours = "context_path.backbone"
    yield from ((f"{theirs}conv1", f"{ours}.stem.0"), (f"{theirs}bn1", f"{ours}.stem.1"))
    for stage, layer in ((1, "stem.4"), (2, "layer2"), (3, "layer3"), (4, "layer4")):
        for block in (0, 1):
            there, here = f"{theirs}layer{stage}.{block}", f"{ours}.{layer}.{block}"
            yield from _same(there, here, "conv1", "bn1", "conv2", "bn2")
            yield from zip(
                (f"{there}.{name}" for name in downsample), (f"{here}.downsample.{i}" for i in (0, 1)), strict=True
            )


def _bisenet_v1(*, downsample: tuple[str, str], gate: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    yield from _resnet18("cp.resnet.", downsample=downsample)
    for index, name in enumerate(("conv1", "conv2", "conv3", "conv_out")):
        yield from _conv_bn_relu(f"sp.{name}", f"spatial_path.{index}")
    for scale in (16, 32):
        there, here = f"cp.arm{scale}", f"context_path.refine{scale}"
        yield from _conv_bn_relu(f"{there}.conv", f"{here}.conv")
        yield from ((f"{there}.conv_atten", f"{here}.gate.0"), (f"{there}.bn_atten", f"{here}.gate.1"))
    for there, here in (("conv_avg", "globally"), ("conv_head32", "smooth16"), ("conv_head16", "smooth8")):
        yield from _conv_bn_relu(f"cp.{there}", f"context_path.{here}")
    yield from _conv_bn_relu("ffm.convblk", "fusion.conv")
    yield from ((f"ffm.{name}", f"fusion.gate.{index}") for name, index in gate.items())
    for there, here in (("conv_out", "head"), ("conv_out16", "auxiliary8"), ("conv_out32", "auxiliary16")):
        yield from _conv_bn_relu(f"{there}.conv", f"{here}.0")
        yield f"{there}.conv_out", f"{here}.1"


def _gather_expand(theirs: str, ours: str, *, down: bool) -> Iterator[tuple[str, str]]:
    yield from _conv_bn_relu(f"{theirs}.conv1", f"{ours}.conv")
    pairs = [("dwconv1", "down"), ("dwconv2", "expand")] if down else [("dwconv", "expand")]
    for there, here in (*pairs, ("conv2", "project")):
        yield from _same_parts(f"{theirs}.{there}", f"{ours}.{here}", 2)
    if down:
        yield from _same_parts(f"{theirs}.shortcut", f"{ours}.shortcut", 4)


def _same_parts(theirs: str, ours: str, count: int) -> Iterator[tuple[str, str]]:
    return _same(theirs, ours, *map(str, range(count)))


def _bisenet_v2() -> Iterator[tuple[str, str]]:
    for index, name in enumerate(("S1.0", "S1.1", "S2.0", "S2.1", "S2.2", "S3.0", "S3.1", "S3.2")):
        yield from _conv_bn_relu(f"detail.{name}", f"detail.{index}")
    for name in ("conv", "left.0", "left.1", "fuse"):
        yield from _conv_bn_relu(f"segment.S1S2.{name}", f"semantic.stem.{name}")
    for there, here, blocks in (("S3", "stage3", 2), ("S4", "stage4", 2), ("S5_4", "stage5", 4)):
        for block in range(blocks):
            yield from _gather_expand(f"segment.{there}.{block}", f"semantic.{here}.{block}", down=block == 0)
    yield "segment.S5_5.bn", "semantic.context.norm"
    yield from _conv_bn_relu("segment.S5_5.conv_gap", "semantic.context.globally")
    yield from _conv_bn_relu("segment.S5_5.conv_last", "semantic.context.conv")
    aggregation = (
        ("left1", "detail_keep", 3),
        ("left2", "detail_down", 2),
        ("right1", "semantic_up", 2),
        ("right2", "semantic_keep", 3),
        ("conv", "conv", 2),
    )
    for there, here, parts in aggregation:
        yield from _same_parts(f"bga.{there}", f"aggregation.{here}", parts)
    yield from _conv_bn_relu("head.conv", "head.0")
    yield "head.conv_out.1", "head.2"
    for index, name in enumerate(("aux2", "aux3", "aux4", "aux5_4")):
        yield from _conv_bn_relu(f"{name}.conv", f"boosters.{index}.0")
        yield from _conv_bn_relu(f"{name}.conv_out.0.1", f"boosters.{index}.3")
        yield f"{name}.conv_out.1", f"boosters.{index}.4"


_DOWNSAMPLE = ("downsample.0", "downsample.1")
_NORMED_GATE = {"conv": 0, "bn": 1}
_TWO_LAYER_GATE = {"conv1": 0, "conv2": 2}
_V1 = {"architecture": "bisenet_v1", "backbone": "resnet18"}
_BACKBONE_FIRST = ("context_path.backbone.stem.0", "context_path.backbone.stem.1")
_V1_FIRST = (("spatial_path.0.0", "spatial_path.0.1"), _BACKBONE_FIRST)
_V1_CLASSIFIERS = ("head.1", "auxiliary8.1", "auxiliary16.1")

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="coincheung_v2",
        marks=("detail.S1.0.conv.weight", "bga.left1.0.weight", "head.conv_out.1.weight"),
        modules=dict(_bisenet_v2()),
        network={"architecture": "bisenet_v2"},
        first=(("detail.0.0", "detail.0.1"), ("semantic.stem.conv.0", "semantic.stem.conv.1")),
        classifier="head.2.weight",
        mean=CITYSCAPES_MEAN,
        std=CITYSCAPES_STD,
        images=_COINCHEUNGS_IMAGES,
    ),
    Layout(
        name="tufl",
        marks=("cp.resnet.layer2.0.downsample_conv.weight", "ffm.conv1.weight"),
        modules=dict(_bisenet_v1(downsample=("downsample_conv", "downsample_bn"), gate=_TWO_LAYER_GATE)),
        network=_V1,
        first=_V1_FIRST,
        classifier="head.1.weight",
        without_bias=_V1_CLASSIFIERS,
        absolute_scale=True,
        notes=(
            "it was trained with leaky ReLU of slope 0.01 behind its batch norms, ours has ReLU there: evaluate it, "
            "and train a few iterations more if it lost",
            _OTHER_CORNERS,
        ),
    ),
    Layout(
        name="coincheung_v1",
        marks=("cp.resnet.conv1.weight", "ffm.bn.weight"),
        modules=dict(_bisenet_v1(downsample=_DOWNSAMPLE, gate=_NORMED_GATE)),
        network={**_V1, "fusion_gate": "batch_norm"},
        first=_V1_FIRST,
        classifier="head.1.weight",
        mean=CITYSCAPES_MEAN,
        std=CITYSCAPES_STD,
        images=_COINCHEUNGS_IMAGES,
    ),
    Layout(
        name="ss_ada",
        marks=("cp.resnet.conv1.weight", "ffm.bn.weight"),
        modules=dict(_bisenet_v1(downsample=_DOWNSAMPLE, gate=_NORMED_GATE)),
        network={**_V1, "fusion_gate": "batch_norm"},
        first=_V1_FIRST,
        classifier="head.1.weight",
    ),
    Layout(
        name="coincheung_v1_old",
        marks=("cp.resnet.layer2.0.downsample.0.weight", "ffm.conv1.weight"),
        modules=dict(_bisenet_v1(downsample=_DOWNSAMPLE, gate=_TWO_LAYER_GATE)),
        network=_V1,
        first=_V1_FIRST,
        classifier="head.1.weight",
        without_bias=_V1_CLASSIFIERS,
        mean=CITYSCAPES_MEAN,
        std=CITYSCAPES_STD,
        images=_COINCHEUNGS_IMAGES,
        notes=(_OTHER_CORNERS,),
    ),
    Layout(
        name="torchvision_resnet18",
        marks=("conv1.weight", "layer1.0.conv1.weight", "layer4.1.bn2.weight"),
        modules=dict(_resnet18("", downsample=_DOWNSAMPLE)),
        network=_V1,
        first=(_BACKBONE_FIRST,),
        covers="context_path.backbone.",
        notes=("only the backbone was filled, all else is random: a start for training, not a model to drive with",),
    ),
)
"""Every layout, the surest marks first."""
