"""The models of a replay: found, deployed for this machine where they are not yet, loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssada_core.data.samples import Samples
from ssada_core.errors import ConfigError
from ssada_core.inference.deployment import deploy_for
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import ONNX_FILE, load_engine, read_manifest
from ssada_core.labels import LabelSpace
from ssada_core.replay.driver import LoadedModel
from ssada_core.replay.figures import ModelFigures
from ssada_core.store.files import sha256_file
from ssada_core.store.manifest import WEIGHTS_FILE
from ssada_core.store.model_files import seal
from ssada_core.store.models import resolve_model

DEPLOY_FOLDER = "deploy"


@dataclass(frozen=True)
class ReplayModel:
    """A model on its way into a replay."""

    reference: str
    folder: Path
    version: str
    label_space: LabelSpace


def find_models(references: Sequence[str]) -> list[ReplayModel]:
    """The models meant, all of one label space.

    Raises:
        ConfigError: if there is none, or their classes differ.
        ModelError: if one does not exist.
    """
    if not references:
        raise ConfigError("no model is named: give --model")
    models = []
    for reference in references:
        folder = resolve_model(reference)
        manifest = read_manifest(folder)
        models.append(ReplayModel(reference, folder, manifest.version, manifest.labels()))
    for model in models[1:]:
        if model.label_space.classes != models[0].label_space.classes:
            raise ConfigError(
                f"models {models[0].reference} and {model.reference} have other classes: "
                "only models of one label space can be compared"
            )
    return models


def series_names(models: Sequence[ReplayModel]) -> list[str]:
    """Short names that differ: the version, else the reference, else with a number."""
    for names in ([model.version for model in models], [model.reference for model in models]):
        if len(set(names)) == len(names):
            return names
    return [f"{model.reference} #{number}" for number, model in enumerate(models, 1)]


def deployed(
    model: ReplayModel, settings: EngineSettings, frames: Samples, scratch: Path, log: Callable[[str], None]
) -> Path:
    """The model's folder; one without a deployed form is copied to ``scratch`` and gets one, made with ``frames``.

    Raises:
        ModelError: if it cannot be read.
        EngineError: if it does not answer as torch does.
    """
    if settings.backend == "torch" or (model.folder / DEPLOY_FOLDER).is_dir():
        return model.folder
    log(f"deploying {model.reference} for this machine")
    shutil.copytree(model.folder, scratch)
    deploy_for(scratch, settings, frames)
    seal(scratch, read_manifest(scratch))
    return scratch


def load(model: ReplayModel, folder: Path, settings: EngineSettings, log: Callable[[str], None]) -> LoadedModel:
    """Load a model from the folder where it is deployed.

    Raises:
        EngineError: if it cannot be run.
    """
    return LoadedModel(model.version, load_engine(folder, settings, log=log))


def describe(model: ReplayModel, loaded: LoadedModel) -> ModelFigures:
    """What ran, for the report."""
    height, width = loaded.engine.input_size
    weights = model.folder / WEIGHTS_FILE  # which an imported ONNX graph has in itself
    return ModelFigures(
        reference=model.reference,
        version=model.version,
        weights_sha256=sha256_file(weights if weights.exists() else model.folder / ONNX_FILE),
        backend=loaded.engine.backend,
        precision=loaded.engine.precision,
        input_height=height,
        input_width=width,
    )
