"""Everything a killed round needs to go on as if nothing had happened, in one file, without pickle.

One safetensors file holds the tensors and, as its metadata, the rest as JSON: replaced in one atomic
step, it can never hold the weights of one iteration and the counters of another. There are no random
states in it: batches and dropout are functions of the seed and the iteration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ssada_core.errors import WorkerError
from ssada_core.store.files import write_atomic

CHECKPOINT_FILE = "checkpoint.safetensors"
_STATE = "state"
_NETWORK, _TEACHER, _MOMENTUM = "network.", "teacher.", "momentum."


@dataclass(frozen=True)
class Checkpoint:
    """A round between two iterations.

    Attributes:
        iteration: iterations done.
        seconds: time they took, over all attempts.
        identity: what must be the same for the round to go on: settings, frames per part, classes.
        tensors: weights, teacher and momentum by prefixed name.
        reveals: which labels were revealed so far, see :mod:`ssada_core.learning.reveals`.
    """

    iteration: int
    seconds: float
    identity: dict[str, Any]
    tensors: dict[str, Tensor]
    reveals: list[dict[str, Any]] = field(default_factory=list)


def collect(network: nn.Module, teacher: nn.Module | None, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors of a round, by prefixed name; on the CPU, in the default layout."""
    tensors = {_NETWORK + name: value for name, value in network.state_dict().items()}
    if teacher is not None:
        tensors |= {_TEACHER + name: value for name, value in teacher.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if momentum is not None:
            tensors[_MOMENTUM + name] = momentum
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def restore(
    tensors: Mapping[str, Tensor], network: nn.Module, teacher: nn.Module | None, optimizer: torch.optim.Optimizer
) -> None:
    """Put the tensors of :func:`collect` back; device and memory layout stay the network's.

    Raises:
        WorkerError: if they belong to another network.
    """
    try:
        network.load_state_dict(_under(tensors, _NETWORK))
        if teacher is not None:
            teacher.load_state_dict(_under(tensors, _TEACHER))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise WorkerError(f"the checkpoint belongs to another network ({reason}): use a new run folder") from error
    parameters = dict(network.named_parameters())
    for name, momentum in _under(tensors, _MOMENTUM).items():
        buffer = torch.empty_like(parameters[name]).copy_(momentum)
        optimizer.state[parameters[name]]["momentum_buffer"] = buffer.detach()


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint file; on return it is on the disk.

    Raises:
        StoreError: if it cannot be written.
    """
    state = {name: value for name, value in vars(checkpoint).items() if name != "tensors"}
    write_atomic(path, save(checkpoint.tensors, metadata={_STATE: json.dumps(state)}))


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None if there is none yet.

    Raises:
        WorkerError: if the file is damaged or something else.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[_STATE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        identity, reveals = dict(state["identity"]), list(state.get("reveals", []))
        return Checkpoint(int(state["iteration"]), float(state["seconds"]), identity, tensors, reveals)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WorkerError(f"{path}: not a readable checkpoint ({error}): delete it to start the round anew") from error
