"""Tensors of the names and shapes of the public checkpoints, written down from their authors' model definitions.

``DIGESTS`` and ``LOGITS`` come from running the definitions themselves (CoinCheung/BiSeNet 6b4b67a, ywher/SS-ADA
b361d6b, ywher/TUFL 5cecde9, torchvision's ResNet-18), so that a slip here or in the tables of names is noticed.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

DIGESTS = {
    "coincheung_v1": "2f70be94fc423f10",
    "coincheung_v2": "0a8f2a1b6edfbc20",
    "ss_ada": "29fc4212b71ad653",
    "tufl": "9e14fe9436a78dff",
    "torchvision_resnet18": "867b8d8ae95f5a28",
}
LOGITS = {
    "coincheung_v1": [6.4847, -1.1566, -20.2316, 36.8956, -1.0053, -28.4438, 24.9892, 3.3564, -16.6952],
    "coincheung_v2": [0.1567, 0.6672, -0.2852, -1.3015, 3.6526, 0.0397, -1.347, 0.3918, 0.2368],
    "ss_ada": [6.5192, -0.9309, -20.237, 36.93, -0.7796, -28.4492, 25.0236, 3.5821, -16.7005],
}
"""Class 0 to 2 at the pixels (0, 0), (37, 50) and (63, 95), for :func:`image` and :func:`tensors`."""
AUXILIARY_LOGITS = {
    "coincheung_v1": [
        [9.9866, -6.4615, 12.4841, 2.6587, -51.7003, 8.6437, 9.5863, -9.3849, -7.0781],
        [5.4951, -32.6155, -14.2569, 17.5175, -5.3621, -16.4108, -3.074, 2.2226, -2.2299],
    ],
    "coincheung_v2": [
        [0.0719, 0.7907, -0.6684, 1.9093, -1.086, 0.6558, 0.869, -0.7277, 0.1137],
        [-1.4747, 0.8337, -3.3443, -4.0267, 5.9276, -3.6912, 0.2168, 2.0717, 0.1459],
        [-11.7778, -4.1662, 11.7215, -34.2765, 1.1974, 30.6946, -13.0138, -3.9188, 4.1742],
        [14.458, 9.805, -12.577, 6.7554, 31.5431, -26.243, -2.169, 15.386, -9.6255],
    ],
    "ss_ada": [
        [-4.6897, 6.547, 19.3615, -21.9916, 25.2063, 40.1807, 2.3896, -6.3988, 9.0944],
        [2.58, -5.9329, -6.833, 49.0583, 0.9847, 13.1908, 27.4433, -35.8826, -23.5165],
    ],
}


def image() -> Tensor:
    """A normalised image ``[1,3,64,96]`` with nothing random in it."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    planes = (torch.sin(rows / 5), torch.cos(columns / 7), torch.sin((rows + columns) / 11))
    return torch.stack(planes)[None]


def pixels(logits: Tensor) -> list[float]:
    """What ``LOGITS`` holds, of ``[1,C,64,96]``."""
    return [round(float(logits[0, c, y, x]), 4) for y, x in ((0, 0), (37, 50), (63, 95)) for c in range(3)]


def digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of all names and shapes, in alphabetical order."""
    lines = "\n".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random weights that keep activations in range, statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _tensor(name, shape, generator) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if not shape:
        return torch.tensor(7)
    if name.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    if len(shape) == 4:
        fan_in = shape[1] * shape[2] * shape[3]
        return torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
    return torch.randn(shape, generator=generator) * 0.1 + (1.0 if name.endswith(".weight") else 0.0)


def conv(name: str, outputs: int, inputs: int, kernel: int = 3, *, bias: bool = False) -> Shapes:
    found: Shapes = {f"{name}.weight": (outputs, inputs, kernel, kernel)}
    return {**found, f"{name}.bias": (outputs,)} if bias else found


def norm(name: str, channels: int, *, counter: bool = True) -> Shapes:
    found: Shapes = {f"{name}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return {**found, f"{name}.num_batches_tracked": ()} if counter else found


def block(name: str, outputs: int, inputs: int, kernel: int = 3, *, counter: bool = True) -> Shapes:
    """Their ConvBNReLU."""
    return {**conv(f"{name}.conv", outputs, inputs, kernel), **norm(f"{name}.bn", outputs, counter=counter)}


def pair(name: str, first: int, outputs: int, inputs: int, kernel: int) -> Shapes:
    """A convolution and a batch norm at two places of a Sequential."""
    return {**conv(f"{name}.{first}", outputs, inputs, kernel), **norm(f"{name}.{first + 1}", outputs)}


def resnet18(
    prefix: str = "", *, down: tuple[str, str] = ("downsample.0", "downsample.1"), counter: bool = True
) -> Shapes:
    found = {**conv(f"{prefix}conv1", 64, 3, 7), **norm(f"{prefix}bn1", 64, counter=counter)}
    for stage, (inputs, outputs) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), start=1):
        for index in (0, 1):
            name = f"{prefix}layer{stage}.{index}"
            found |= conv(f"{name}.conv1", outputs, inputs if index == 0 else outputs)
            found |= norm(f"{name}.bn1", outputs, counter=counter)
            found |= {**conv(f"{name}.conv2", outputs, outputs), **norm(f"{name}.bn2", outputs, counter=counter)}
            if index == 0 and inputs != outputs:
                found |= conv(f"{name}.{down[0]}", outputs, inputs, 1)
                found |= norm(f"{name}.{down[1]}", outputs, counter=counter)
    return found


def torchvision_resnet18() -> Shapes:
    return {**resnet18(), "fc.weight": (1000, 512), "fc.bias": (1000,)}


def bisenet_v1(classes: int, *, old_gate: bool = False, in_place: bool = False, auxiliary: bool = True) -> Shapes:
    """CoinCheung's and SS-ADA's; with ``old_gate`` CoinCheung's first, with ``in_place`` TUFL's."""
    counter = not in_place
    down = ("downsample_conv", "downsample_bn") if in_place else ("downsample.0", "downsample.1")
    found = resnet18("cp.resnet.", down=down, counter=counter)
    for scale, inputs in ((16, 256), (32, 512)):
        found |= block(f"cp.arm{scale}.conv", 128, inputs, counter=counter)
        found |= conv(f"cp.arm{scale}.conv_atten", 128, 128, 1)
        found |= norm(f"cp.arm{scale}.bn_atten", 128, counter=counter)
    found |= block("cp.conv_head32", 128, 128, counter=counter)
    found |= block("cp.conv_head16", 128, 128, counter=counter)
    found |= block("cp.conv_avg", 128, 512, 1, counter=counter)
    for name, outputs, inputs, kernel in (
        ("conv1", 64, 3, 7),
        ("conv2", 64, 64, 3),
        ("conv3", 64, 64, 3),
        ("conv_out", 128, 64, 1),
    ):
        found |= block(f"sp.{name}", outputs, inputs, kernel, counter=counter)
    found |= block("ffm.convblk", 256, 256, 1, counter=counter)
    if old_gate or in_place:
        found |= {**conv("ffm.conv1", 64, 256, 1), **conv("ffm.conv2", 256, 64, 1)}
    else:
        found |= {**conv("ffm.conv", 256, 256, 1), **norm("ffm.bn", 256)}
    heads = (("conv_out", 256, 256), ("conv_out16", 64, 128), ("conv_out32", 64, 128))
    for name, hidden, inputs in heads if auxiliary else heads[:1]:
        found |= block(f"{name}.conv", hidden, inputs, counter=counter)
        found |= conv(f"{name}.conv_out", classes, hidden, 1, bias=not (old_gate or in_place))
    return found


def bisenet_v2(classes: int) -> Shapes:
    """CoinCheung's."""
    found: Shapes = {}
    widths = {"S1": (3, 64, 64), "S2": (64, 64, 64, 64), "S3": (64, 128, 128, 128)}
    for stage, channels in widths.items():
        for index, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            found |= block(f"detail.{stage}.{index}", outputs, inputs)
    found |= {**block("segment.S1S2.conv", 16, 3), **block("segment.S1S2.left.0", 8, 16, 1)}
    found |= {**block("segment.S1S2.left.1", 16, 8), **block("segment.S1S2.fuse", 16, 32)}
    for stage, inputs, outputs, blocks in (("S3", 16, 32, 2), ("S4", 32, 64, 2), ("S5_4", 64, 128, 4)):
        found |= _down(f"segment.{stage}.0", inputs, outputs)
        for index in range(1, blocks):
            name = f"segment.{stage}.{index}"
            found |= {**block(f"{name}.conv1", outputs, outputs), **pair(f"{name}.dwconv", 0, 6 * outputs, 1, 3)}
            found |= pair(f"{name}.conv2", 0, outputs, 6 * outputs, 1)
    found |= {**norm("segment.S5_5.bn", 128), **block("segment.S5_5.conv_gap", 128, 128, 1)}
    found |= block("segment.S5_5.conv_last", 128, 128)
    for name, inputs in (("left1", 1), ("left2", 128), ("right1", 128), ("right2", 1), ("conv", 128)):
        found |= pair(f"bga.{name}", 0, 128, inputs, 3)
    found |= {**conv("bga.left1.2", 128, 128, 1), **conv("bga.right2.2", 128, 128, 1)}
    found |= {**block("head.conv", 1024, 128), **conv("head.conv_out.1", classes, 1024, 1, bias=True)}
    for name, inputs, factor in (("aux2", 16, 4), ("aux3", 32, 8), ("aux4", 64, 16), ("aux5_4", 128, 32)):
        found |= {**block(f"{name}.conv", 128, inputs), **block(f"{name}.conv_out.0.1", factor**2, 128)}
        found |= conv(f"{name}.conv_out.1", classes, factor**2, 1, bias=True)
    return found


def _down(name: str, inputs: int, outputs: int) -> Shapes:
    wide = 6 * inputs
    found = {**block(f"{name}.conv1", inputs, inputs), **pair(f"{name}.dwconv1", 0, wide, 1, 3)}
    found |= {**pair(f"{name}.dwconv2", 0, wide, 1, 3), **pair(f"{name}.conv2", 0, outputs, wide, 1)}
    return {**found, **pair(f"{name}.shortcut", 0, inputs, 1, 3), **pair(f"{name}.shortcut", 2, outputs, inputs, 1)}
