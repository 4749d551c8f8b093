"""Weights as safetensors: no pickle is ever loaded (ARCHITECTURE contract 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ssada_core.errors import ModelError


def weights_bytes(network: nn.Module, *, half: bool = False) -> bytes:
    """A network's state as the bytes of a ``.safetensors`` file.

    Args:
        network: parameters and batch norm statistics are taken from it.
        half: store convolution weights as float16. Vectors (biases, batch norm) stay float32: they are small, and
            running variances may leave float16's range.
    """
    data: bytes = save({name: _stored(tensor, half) for name, tensor in network.state_dict().items()})
    return data


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a file written by :func:`weights_bytes`, strictly; float16 becomes float32.

    Raises:
        ModelError: if the file is missing, unreadable, or its tensors are not exactly the network's.
    """
    if not path.is_file():
        raise ModelError(f"no weights at {path}: name a model directory that holds {path.name}")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"weights {path} cannot be read ({error}): copy or download the model again") from error
    _check(network.state_dict(), weights, path)
    network.load_state_dict(weights)  # copies into float32 parameters


def _stored(tensor: Tensor, half: bool) -> Tensor:
    plain = tensor.detach().cpu().contiguous()
    return plain.to(torch.float16) if half and plain.is_floating_point() and plain.ndim >= 2 else plain


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or surplus:
        raise ModelError(
            f"weights {path} are of another network: {len(missing)} tensors missing {missing[:2]}, "
            f"{len(surplus)} unknown {surplus[:2]}: check 'network' in the manifest"
        )
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ModelError(
                f"weights {path}: '{name}' expected {tuple(tensor.shape)}, found {tuple(found[name].shape)}: "
                "check 'network' and the number of classes in the manifest"
            )
