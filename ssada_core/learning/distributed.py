"""Training in several processes that ``torchrun`` starts, each with crops of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssada_core.errors import ConfigError


@dataclass(frozen=True)
class World:
    """The processes of one training, and which of them this is.

    Attributes:
        rank: 0 writes logs, checkpoints and the model.
        size: how many there are.
        device: where this one trains.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor that each of them has; with one process the tensor itself."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def agree(self, text: str) -> str:
        """The first process's text, in every process."""
        if self.size == 1:
            return text
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        length = torch.tensor([data.numel()], device=self.device)
        dist.broadcast(length, 0)
        if not self.leads:
            data = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        dist.broadcast(data, 0)
        return bytes(data.tolist()).decode()

    def join_batch_norm(self, network: nn.Module) -> None:
        """Let batch norm see the batch of all processes, in place; PyTorch has that on GPUs only."""
        if self.size > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            dist.barrier()


def rank() -> int:
    """Which of torchrun's processes this is; 0 without torchrun."""
    return _number("RANK", 0)


def best_device() -> torch.device:
    """The GPU if there is one; under ``torchrun`` each process has its own."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", _number("LOCAL_RANK", 0) % torch.cuda.device_count())


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that ``torchrun`` has started, by NCCL on GPUs and by Gloo on CPUs; alone without it.

    Raises:
        ConfigError: if torchrun's variables are there but no numbers.
    """
    size = _number("WORLD_SIZE", 1)
    device = best_device()
    if size == 1:
        yield World(device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(_backend(device))
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def _backend(device: torch.device) -> str:
    # NCCL wants a GPU for each process; with more processes than GPUs (a trial on a small machine) Gloo still works.
    own = device.type == "cuda" and _number("LOCAL_WORLD_SIZE", 1) <= torch.cuda.device_count()
    return "nccl" if own and dist.is_nccl_available() else "gloo"


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}={text}: torchrun sets it to a number; unset it to train in one process") from None
