"""Where built TensorRT engines are kept, and which of them fits a model, told by content and by structure."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx

from ssada_core.errors import StoreError
from ssada_core.store.files import make_directory, write_atomic

KEPT = 12
"""Built engines that stay; the least recently used go."""
_KEY = 24
_log = logging.getLogger(__name__)


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
    """A folder of built engines. It saves time and nothing else: where it cannot be used, engines are built again."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use ``folder``; by default the user's cache (``XDG_CACHE_HOME``, else ``~/.cache``)."""
        self.folder = folder or _home() / "ssada" / "tensorrt"

    def exact(self, key: EngineKey) -> bytes | None:
        """An engine of this very model, or None."""
        return self._read(self.folder / key.name)

    def alike(self, key: EngineKey) -> bytes | None:
        """The newest engine of the same structure with other weights, which can be given this model's; or None."""
        try:
            found = sorted(self.folder.glob(f"{key.structure}-*-{key.machine}.engine"), key=_used, reverse=True)
        except OSError:  # before Python 3.13 a folder above it that may not be searched raises here
            return None
        return next((content for path in found if path.name != key.name and (content := self._read(path))), None)

    def store(self, key: EngineKey, engine: bytes) -> None:
        """Keep a built engine; the least recently used make room. A disk that refuses is logged: the engine is good."""
        try:
            make_directory(self.folder)
            write_atomic(self.folder / key.name, engine)
            for path in sorted(self.folder.glob("*.engine"), key=_used, reverse=True)[KEPT:]:
                path.unlink(missing_ok=True)
        except (StoreError, OSError) as error:
            _log.warning(
                "the TensorRT engine is not kept and takes minutes to build again at the next start: %s", error
            )

    def forget(self, key: EngineKey) -> None:
        """Remove an engine that turned out to be of no use, if the disk allows it."""
        with suppress(OSError):
            (self.folder / key.name).unlink(missing_ok=True)

    @staticmethod
    def _read(path: Path) -> bytes | None:
        try:
            content = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # when it was used matters only where there is room to be made
            path.touch()
        return content


def _home() -> Path:
    """The user's cache folder; for a user without a home one that cannot be made, so that nothing is kept."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return Path(os.devnull, "no home: set XDG_CACHE_HOME")


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
