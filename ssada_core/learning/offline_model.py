"""The network a training starts from, and the model folder it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from ssada_core.data.lists import open_samples
from ssada_core.errors import ConfigError
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.torch_engine import TorchEngine
from ssada_core.labels import LabelSpace
from ssada_core.learning.offline_settings import OfflineSettings
from ssada_core.learning.separate_heads import adopt, source_space
from ssada_core.learning.trainer import TrainingResult
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.build import build_network
from ssada_core.networks.weights import load_weights, weights_bytes
from ssada_core.store.files import TEMPORARY_SUFFIX, fsync_directory, make_directory, store_error, write_atomic
from ssada_core.store.journal import utc_now
from ssada_core.store.manifest import MANIFEST_FILE, WEIGHTS_FILE, ModelManifest
from ssada_core.store.model_files import read_manifest, seal, verify
from ssada_core.store.models import resolve_model

MODEL_FOLDER = "model"
"""Subfolder of a run in which the finished model lies."""


def initial_network(settings: OfflineSettings, label_space: LabelSpace) -> SegmentationNetwork:
    """The network with the weights of ``initial``, or ImageNet's and a random rest that follows from the seed.

    Raises:
        ModelError: if the initial model is missing, damaged or another network.
    """
    torch.manual_seed(settings.training.seed)  # the heads start at random: the same configuration, the same model
    network = build_network(settings.network, label_space.num_classes, pretrained=not settings.initial)
    source = source_space(settings, label_space)
    separate = source.classes != label_space.classes
    if settings.initial:
        folder = resolve_model(settings.initial)
        verify(folder)
        if separate and read_manifest(folder).labels().classes == source.classes:
            trained = build_network(settings.network, source.num_classes, pretrained=False)
            load_weights(trained, folder / WEIGHTS_FILE)
            network.add_source_heads(source.num_classes)
            adopt(network, trained, source, label_space)
            return network
        load_weights(network, folder / WEIGHTS_FILE)
    if separate:
        network.add_source_heads(source.num_classes)
    return network


def check_place(settings: OfflineSettings) -> None:
    """Refuse a folder where the model is to be that holds something else: it would be replaced.

    Raises:
        ConfigError: naming it.
    """
    folder = Path(settings.out) / MODEL_FOLDER
    if folder.exists() and not (folder / MANIFEST_FILE).is_file():
        raise ConfigError(f"{folder} is no model and would be replaced: move it away, or name another folder (out)")


def write_model(
    network: SegmentationNetwork,
    settings: OfflineSettings,
    label_space: LabelSpace,
    result: TrainingResult,
    command: str,
) -> ModelManifest:
    """Write ``out/model``, replacing an earlier one, with the target's heads; measured are the weights as stored.

    Raises:
        StoreError: if it cannot be written.
        DataError: if the validation frames cannot be read.
    """
    network.drop_source_heads()
    folder = Path(settings.out) / MODEL_FOLDER
    fresh = folder.with_name(f".{MODEL_FOLDER}{TEMPORARY_SUFFIX}")
    shutil.rmtree(fresh, ignore_errors=True)
    make_directory(fresh)
    write_atomic(fresh / WEIGHTS_FILE, weights_bytes(network, half=settings.half))
    load_weights(network, fresh / WEIGHTS_FILE)
    manifest = _manifest(settings, label_space, result, command)
    seal(fresh, manifest.model_copy(update={"metrics": _validate(network, settings, label_space)}))
    try:
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
        fsync_directory(folder.parent)
    except OSError as error:
        raise store_error("write", folder, error) from error
    return read_manifest(folder)


def _manifest(
    settings: OfflineSettings, label_space: LabelSpace, result: TrainingResult, command: str
) -> ModelManifest:
    return ModelManifest(
        version=settings.name,
        created=utc_now(),
        network=settings.network,
        label_space=label_space.to_dict(),
        data={"mode": settings.mode, **settings.data.model_dump(mode="json"), "note": settings.note},
        training={
            "command": command,
            "settings": settings.effective_training().model_dump(mode="json"),
            **({"tufl": settings.tufl.model_dump(mode="json")} if settings.mode == "tufl" else {}),
            "iterations": result.iterations,
            "seconds": round(result.seconds, 1),
            "losses": result.losses,
        },
    )


def _validate(network: SegmentationNetwork, settings: OfflineSettings, label_space: LabelSpace) -> dict[str, Any]:
    if not settings.data.validation:
        return {}
    size = (settings.network.input_height, settings.network.input_width)
    engine = TorchEngine(network, size, EngineSettings(backend="torch", threads=settings.training.threads))
    try:
        evaluation = evaluate(engine, open_samples(settings.data.validation, label_space), label_space.num_classes)
    finally:
        engine.close()
    return {"validation": settings.data.validation, **evaluation.summary(label_space)}
