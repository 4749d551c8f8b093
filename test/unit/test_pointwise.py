from __future__ import annotations

import pytest
import torch
from torch import nn

from ssada_core.learning.pointwise import dilated_pointwise
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings


def dilations(network: nn.Module) -> list[object]:
    return [(module.kernel_size, module.dilation) for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_the_network_computes_the_same_and_is_left_as_it_was():
    torch.manual_seed(0)
    network = build_network(NetworkSettings(), 5, pretrained=False).eval()
    x = torch.randn(1, 3, 64, 64)
    before = dilations(network)
    with torch.no_grad():
        plain = network(x)
        with dilated_pointwise(network):
            assert ((1, 1), (2, 2)) in dilations(network)
            assert all(kernel == (1, 1) or dilation == (1, 1) for kernel, dilation in dilations(network))
            torch.testing.assert_close(network(x), plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))
    assert dilations(network) == before


def test_it_is_left_as_it_was_after_an_error_too():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3))
    before = dilations(network)
    with pytest.raises(RuntimeError), dilated_pointwise(network):
        raise RuntimeError
    assert dilations(network) == before
