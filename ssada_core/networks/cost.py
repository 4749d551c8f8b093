"""What a network costs: parameters and floating-point operations."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    """Number of learnable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def flops(network: nn.Module, size: tuple[int, int]) -> int:
    """Floating-point operations of one image's forward pass: a multiplication and its addition count as two.

    Convolutions and matrix products are counted, as is usual; pointwise work and enlarging are not.

    Args:
        network: run once in evaluation mode on the CPU; its mode is restored.
        size: height and width of the image.
    """
    training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, *size))
    network.train(training)
    return int(counter.get_total_flops())
