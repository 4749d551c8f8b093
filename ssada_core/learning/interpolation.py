"""A step back towards the weights that a training began with (WiSE-FT, arXiv 2109.01903, eq. 1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and batch-norm statistics, by name, on the network's device."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def interpolate(network: nn.Module, first: Mapping[str, Tensor], share: float) -> None:
    """Set weights and batch-norm statistics to ``share·trained + (1 − share)·first``, in place; counters stay.

    Two networks of which one was trained on from the other lie in one valley: between them the new domain's
    accuracy stays, and the old one's comes back.

    Args:
        network: the trained one.
        first: what :func:`weights_of` returned before the training.
        share: of the trained weights, in [0, 1]; 1 changes nothing.
    """
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.lerp_(first[name].to(value), 1.0 - share)
