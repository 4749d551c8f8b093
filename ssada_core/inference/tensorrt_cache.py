"""Where built TensorRT engines are kept, and which of them fits a model, told by content and by structure."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import onnx

from ssada_core.store.files import make_directory, write_atomic

KEPT = 12
"""Built engines that stay; the least recently used go."""
_KEY = 24


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from, and for.

    Attributes:
        structure: of the ONNX model without the values of its weights.
        content: of the whole file.
        machine: GPU and TensorRT release: an engine of another is of no use.
    """

    structure: str
    content: str
    machine: str

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.structure}-{self.content}-{self.machine}.engine"


def engine_key(model: bytes, gpu: str, capability: tuple[int, int], release: str) -> EngineKey:
    """The key of an ONNX model on a machine.

    Args:
        model: the file's content.
        gpu: name of the GPU.
        capability: its compute capability.
        release: of TensorRT.
    """
    words = f"{gpu}-{capability[0]}.{capability[1]}-trt{release}"
    return EngineKey(_structure(model), _digest(model), re.sub(r"[^A-Za-z0-9.]+", "_", words))


class EngineCache:
    """A folder of built engines."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use ``folder``; by default the user's cache (``XDG_CACHE_HOME``, else ``~/.cache``)."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = folder or home / "ssada" / "tensorrt"

    def exact(self, key: EngineKey) -> bytes | None:
        """An engine of this very model, or None."""
        return self._read(self.folder / key.name)

    def alike(self, key: EngineKey) -> bytes | None:
        """The newest engine of the same structure with other weights, which can be given this model's; or None."""
        found = sorted(self.folder.glob(f"{key.structure}-*-{key.machine}.engine"), key=_used, reverse=True)
        return next((content for path in found if path.name != key.name and (content := self._read(path))), None)

    def store(self, key: EngineKey, engine: bytes) -> None:
        """Keep a built engine; the least recently used make room.

        Raises:
            StoreError: if the disk refuses.
        """
        make_directory(self.folder)
        write_atomic(self.folder / key.name, engine)
        for path in sorted(self.folder.glob("*.engine"), key=_used, reverse=True)[KEPT:]:
            path.unlink(missing_ok=True)

    def forget(self, key: EngineKey) -> None:
        """Remove an engine that turned out to be of no use."""
        (self.folder / key.name).unlink(missing_ok=True)

    @staticmethod
    def _read(path: Path) -> bytes | None:
        try:
            content = path.read_bytes()
            path.touch()
        except OSError:
            return None
        return content


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process made room in this moment
        return 0.0


def _structure(content: bytes) -> str:
    model = onnx.load_model_from_string(content)
    for tensor in model.graph.initializer:
        for values in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(values)
    return _digest(model.SerializeToString(deterministic=True))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_KEY]
