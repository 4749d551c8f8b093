"""Offline training: a configuration in, a model directory out (``ssada train``)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import cv2
import torch
from pydantic import Field

from ssada_core.data.lists import open_samples
from ssada_core.data.resized import ResizedSamples
from ssada_core.data.samples import Samples
from ssada_core.errors import ConfigError
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.torch_engine import TorchEngine
from ssada_core.labels import LabelSpace, load_label_space
from ssada_core.learning.loaders import TrainingData
from ssada_core.learning.progress import Progress
from ssada_core.learning.settings import TrainingSettings, TuflSettings
from ssada_core.learning.tensorboard import TENSORBOARD_FOLDER, TensorBoardLog
from ssada_core.learning.trainer import Trainer, TrainingResult
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings
from ssada_core.networks.weights import load_weights, weights_bytes
from ssada_core.settings import Settings
from ssada_core.store.files import TEMPORARY_SUFFIX, fsync_directory, make_directory, store_error, write_atomic
from ssada_core.store.journal import utc_now
from ssada_core.store.manifest import WEIGHTS_FILE, ModelManifest
from ssada_core.store.model_files import read_manifest, seal, verify
from ssada_core.store.models import resolve_model

Mode = Literal["source", "supervised", "joint", "ssada", "tufl"]

PARTS: dict[Mode, frozenset[str]] = {
    "source": frozenset({"source"}),
    "supervised": frozenset({"labelled"}),
    "joint": frozenset({"source", "labelled"}),
    "ssada": frozenset({"source", "labelled", "unlabelled"}),
    "tufl": frozenset({"source", "unlabelled"}),
}
"""Which data each mode trains on; ``ssada`` without a source is source-free, as in an online round."""


MODEL_FOLDER = "model"
"""Subfolder of a run in which the finished model lies."""


class DataSettings(Settings):
    """What to train on: references as :func:`ssada_core.data.lists.open_samples` takes them."""

    source: str = Field("", description="Labelled source frames.")
    labelled: str = Field("", description="Labelled target frames.")
    unlabelled: str = Field("", description="Unlabelled target frames; labels they have are not read.")
    validation: str = Field("", description="Labelled frames that judge the result and are never trained on.")


class OfflineSettings(Settings):
    """A training configuration, ``config/train/*.yaml``."""

    name: str = Field("model", description="Version name of the result.")
    mode: Mode = Field("source", description="source, supervised, joint, ssada or tufl.")
    out: str = Field("runs/model", description="Folder of the run; the model is in its subfolder model/.")
    label_space: str = Field("camvid", description="A built-in label space or a YAML file.")
    initial: str = Field("", description="Model to start from; empty starts from ImageNet weights.")
    half: bool = Field(True, description="Store convolution weights as float16.")
    note: str = Field("", description="Kept in the manifest: licence of the data, purpose.")
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    data: DataSettings = Field(default_factory=DataSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    tufl: TuflSettings = Field(default_factory=TuflSettings)
    tensorboard: bool = Field(
        False, description="Write curves to the run's subfolder tensorboard/ (extra 'tensorboard')."
    )

    def effective_training(self) -> TrainingSettings:
        """What the mode trains by: TUFL has its own length, learning rate, weight decay and batch norm."""
        if self.mode != "tufl":
            return self.training
        own = ("iterations", "learning_rate", "weight_decay", "freeze_batch_norm")
        return self.training.model_copy(update={name: getattr(self.tufl, name) for name in own})


def train(
    settings: OfflineSettings,
    *,
    command: str,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[TrainingResult, ModelManifest | None]:
    """Train to the end, or until asked to stop; the same call resumes.

    Args:
        settings: the configuration.
        command: how this was asked for, kept in the manifest.
        on_progress: called after each iteration.
        should_stop: asked before each iteration.

    Returns:
        The result, and the manifest of the model written to ``out/model`` (None if stopped before the end).

    Raises:
        ConfigError: if data that the mode needs is not named.
        SsadaError: if data, model or disk fail; what was trained stays for the next call.
    """
    label_space = load_label_space(settings.label_space)
    data = _training_data(settings, label_space)
    torch.set_num_threads(settings.training.threads)
    cv2.setNumThreads(settings.training.threads)
    network = _initial_network(settings, label_space)
    with _curves(settings) as curves:
        trainer = Trainer(
            network,
            data,
            settings.effective_training(),
            run_dir=Path(settings.out),
            device="cuda" if torch.cuda.is_available() else "cpu",
            tufl=settings.tufl if settings.mode == "tufl" else None,
            on_progress=_both(on_progress, curves.write if curves else None),
            should_stop=should_stop,
        )
        result = trainer.run()
    if result.stopped:
        return result, None
    return result, _write_model(network.to("cpu"), settings, label_space, result, command)


def _curves(settings: OfflineSettings) -> AbstractContextManager[TensorBoardLog | None]:
    return TensorBoardLog(Path(settings.out) / TENSORBOARD_FOLDER) if settings.tensorboard else nullcontext()


def _both(
    first: Callable[[Progress], None] | None, second: Callable[[Progress], None] | None
) -> Callable[[Progress], None]:
    called = [each for each in (first, second) if each is not None]

    def on_progress(line: Progress) -> None:
        for each in called:
            each(line)

    return on_progress


def _write_model(
    network: SegmentationNetwork,
    settings: OfflineSettings,
    label_space: LabelSpace,
    result: TrainingResult,
    command: str,
) -> ModelManifest:
    """Write ``out/model``, replacing an earlier one; what is measured are the weights as they are stored."""
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


def _initial_network(settings: OfflineSettings, label_space: LabelSpace) -> SegmentationNetwork:
    torch.manual_seed(settings.training.seed)  # the heads start at random: the same configuration, the same model
    network = build_network(settings.network, label_space.num_classes, pretrained=not settings.initial)
    if settings.initial:
        folder = resolve_model(settings.initial)
        verify(folder)
        load_weights(network, folder / WEIGHTS_FILE)
    return network


def _training_data(settings: OfflineSettings, label_space: LabelSpace) -> TrainingData:
    parts: dict[str, Samples | None] = {}
    for part in ("source", "labelled", "unlabelled"):
        reference = getattr(settings.data, part)
        wanted = part in PARTS[settings.mode]
        if wanted and not reference and not (settings.mode == "ssada" and part == "source"):
            raise ConfigError(f"mode '{settings.mode}' trains on {part} frames: set data.{part}")
        parts[part] = _open(reference, settings, label_space) if wanted and reference else None
    return TrainingData(**parts)


def _open(reference: str, settings: OfflineSettings, label_space: LabelSpace) -> Samples:
    size = (settings.network.input_height, settings.network.input_width)
    return ResizedSamples(open_samples(reference, label_space), size)


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
