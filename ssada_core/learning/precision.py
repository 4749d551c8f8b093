"""In which arithmetic the passes of training run; weights, gradients and losses are float32 in any case."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

_AMPERE = 8


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """A context for the forward pass: ``bf16``, ``fp32`` or ``auto`` (bf16 on GPUs that have it, else fp32).

    bfloat16 has float32's range, so that gradients need no scaling. Casts of the weights are not kept: before PyTorch
    2.11 those made without a gradient (the pass ahead) would serve the pass that learns, and no weight would have one.
    """
    capable = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= _AMPERE
    if precision == "bf16" or (precision == "auto" and capable):
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
    return nullcontext()
