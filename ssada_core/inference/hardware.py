"""What computes in this machine, seen without loading any library for it."""

from __future__ import annotations

from pathlib import Path

_NVIDIA_DEVICES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu")
"""Made by NVIDIA's driver: for boards in computers, and for older and newer Jetsons."""


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver offers a GPU; a library that uses it may still be missing."""
    return any(Path(name).exists() for name in _NVIDIA_DEVICES)


def torch_sees_gpu() -> bool:
    """Whether torch can compute on an NVIDIA GPU; imports torch only where there is one."""
    if not has_nvidia_gpu():
        return False
    import torch

    return bool(torch.cuda.is_available())
