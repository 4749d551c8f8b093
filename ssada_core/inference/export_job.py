"""What every form of one export is made from: the model, its graph, and the engine that it is compared with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssada_core.errors import EngineError
from ssada_core.inference.convert import GraphForm, export_onnx
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.load import ONNX_FILE, read_manifest, read_model
from ssada_core.inference.onnx_engine import OnnxEngine
from ssada_core.inference.torch_engine import TorchEngine
from ssada_core.networks.settings import ONNX_ARCHITECTURE
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.model_files import verify_listed

Array = NDArray[np.uint8]


@dataclass(frozen=True)
class ExportJob:
    """What every target of one deployment is made from.

    Attributes:
        model_dir: the model.
        scratch: a folder for its graphs.
        manifest: the model's.
        frames: uint8 BGR frames of any size.
        labels: uint8 ground truth of each, or None.
        write: writes the graph of one form to a path.
        open_reference: makes the engine that fp32 targets are compared with.
    """

    model_dir: Path
    scratch: Path
    manifest: ModelManifest
    frames: Sequence[Array]
    labels: Sequence[Array] | None

    write: Callable[[Path, GraphForm], None]
    open_reference: Callable[[EngineSettings], Engine]

    def graph(self, form: GraphForm) -> Path:
        """The exported graph, written when it is first asked for."""
        path = self.scratch / f"{form}.onnx"
        if not path.exists():
            self.write(path, form)
        return path

    @property
    def size(self) -> tuple[int, int]:
        """The network's height and width."""
        return self.manifest.network.input_height, self.manifest.network.input_width


def open_job(model_dir: Path, scratch: Path, frames: Sequence[Array], labels: Sequence[Array] | None) -> ExportJob:
    """Read a model to export it; ``scratch`` is a folder for its graphs.

    Raises:
        ModelError: if it cannot be read, or its weights or its imported graph are not the manifest's.
    """
    manifest = read_manifest(model_dir)
    if manifest.network.architecture == ONNX_ARCHITECTURE:
        return _imported_job(model_dir, scratch, manifest, frames, labels)
    network, _ = read_model(model_dir)
    size = manifest.network.input_height, manifest.network.input_width
    return ExportJob(
        model_dir,
        scratch,
        manifest,
        frames,
        labels,
        write=lambda path, form: export_onnx(network, manifest.network, path, form),
        open_reference=lambda settings: TorchEngine(network, size, settings),
    )


def _imported_job(
    model_dir: Path, scratch: Path, manifest: ModelManifest, frames: Sequence[Array], labels: Sequence[Array] | None
) -> ExportJob:
    """An imported graph is deployed as it is and compared with itself in ONNX Runtime."""
    verify_listed(model_dir, manifest, below=ONNX_FILE)
    graph, size = scratch / "imported.onnx", (manifest.network.input_height, manifest.network.input_width)
    shutil.copyfile(model_dir / ONNX_FILE, graph)  # whose folder is replaced

    def write(path: Path, form: GraphForm) -> None:
        if form == "tensorrt-half":
            raise EngineError("an imported ONNX graph keeps its own arithmetic: choose precision fp32 or int8")
        shutil.copyfile(graph, path)

    return ExportJob(
        model_dir,
        scratch,
        manifest,
        frames,
        labels,
        write=write,
        open_reference=lambda settings: OnnxEngine(graph, size, settings),
    )
