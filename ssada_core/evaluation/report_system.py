"""Where a run ran: the machine and the versions, for reports."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

PACKAGES = ("torch", "openvino", "onnxruntime", "opencv-contrib-python-headless", "numpy", "rosbags")


def system() -> dict[str, Any]:
    """The machine in a few words."""
    return {
        "machine": platform.machine(),
        "processor cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Python's version and those of the packages that figures depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
