"""A faster path for 1×1 convolutions while training on one CPU thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def dilated_pointwise(network: nn.Module) -> Iterator[None]:
    """Give 1×1 convolutions a dilation, which means nothing for one tap, and take it away again.

    On a single thread PyTorch sends plain 1×1 convolutions to its own im2col code and dilated ones to oneDNN,
    which is faster in channels-last memory: a tenth of the CPU time of a whole step with EfficientNet-Lite0.
    """
    plain = [module for module in network.modules() if isinstance(module, nn.Conv2d) and _is_pointwise(module)]
    for module in plain:
        module.dilation = (2, 2)
    try:
        yield
    finally:
        for module in plain:
            module.dilation = (1, 1)


def _is_pointwise(module: nn.Conv2d) -> bool:
    return module.kernel_size == (1, 1) and module.dilation == (1, 1) and module.padding == (0, 0)
