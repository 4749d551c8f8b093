"""Offline training: a configuration in, a model directory out (``ssada train``)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import cv2
import torch

from ssada_core.data.lists import open_samples
from ssada_core.data.resized import ResizedSamples
from ssada_core.data.samples import Samples
from ssada_core.errors import ConfigError
from ssada_core.labels import LabelSpace, load_label_space
from ssada_core.learning.budget import plan
from ssada_core.learning.distributed import World, joined_world
from ssada_core.learning.loaders import TrainingData
from ssada_core.learning.offline_model import MODEL_FOLDER, check_place, initial_network, write_model
from ssada_core.learning.offline_settings import PARTS, DataSettings, Mode, OfflineSettings
from ssada_core.learning.progress import Progress
from ssada_core.learning.reveals import LabelReveals, Target
from ssada_core.learning.separate_heads import source_space
from ssada_core.learning.tensorboard import TENSORBOARD_FOLDER, TensorBoardLog
from ssada_core.learning.trainer import Trainer, TrainingResult
from ssada_core.store.manifest import ModelManifest

__all__ = ["MODEL_FOLDER", "PARTS", "DataSettings", "Mode", "OfflineSettings", "train"]


def train(
    settings: OfflineSettings,
    *,
    command: str,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[TrainingResult, ModelManifest | None]:
    """Train to the end, or until asked to stop; the same call resumes. Under ``torchrun``, in all its processes.

    Args:
        settings: the configuration.
        command: how this was asked for, kept in the manifest.
        on_progress: called after each iteration, in the first process.
        should_stop: asked before each iteration.

    Returns:
        The result, and the manifest of the model written to ``out/model`` (None if stopped before the end, and in
        all processes but the first).

    Raises:
        ConfigError: if data that the mode needs is not named, or ``out/model`` is something else than a model.
        SsadaError: if data, model or disk fail; what was trained stays for the next call.
    """
    check_place(settings)
    label_space = load_label_space(settings.label_space)
    data = _training_data(settings, label_space)
    reveals = _reveals(settings, data)
    if reveals is not None:
        data = reveals.data()
    torch.set_num_threads(settings.training.threads)
    cv2.setNumThreads(settings.training.threads)
    network = initial_network(settings, label_space)
    with joined_world() as world, _curves(settings, world) as curves:
        trainer = Trainer(
            network,
            data,
            settings.effective_training(),
            run_dir=Path(settings.out),
            device=world.device,
            tufl=settings.tufl if settings.mode == "tufl" else None,
            reveals=reveals,
            world=world,
            on_progress=_both(on_progress, curves.write if curves else None),
            should_stop=should_stop,
        )
        result = trainer.run()
    if result.stopped or not world.leads:
        return result, None
    return result, write_model(network.to("cpu"), settings, label_space, result, command)


def _curves(settings: OfflineSettings, world: World) -> AbstractContextManager[TensorBoardLog | None]:
    wanted = settings.tensorboard and world.leads
    return TensorBoardLog(Path(settings.out) / TENSORBOARD_FOLDER) if wanted else nullcontext()


def _both(
    first: Callable[[Progress], None] | None, second: Callable[[Progress], None] | None
) -> Callable[[Progress], None]:
    called = [each for each in (first, second) if each is not None]

    def on_progress(line: Progress) -> None:
        for each in called:
            each(line)

    return on_progress


def _training_data(settings: OfflineSettings, label_space: LabelSpace) -> TrainingData:
    budget = settings.data.budget > 0
    if budget and settings.mode != "ssada":
        raise ConfigError(f"data.budget reveals labels in mode 'ssada', not in '{settings.mode}': set it to 0")
    if budget and settings.data.labelled:
        raise ConfigError("data.budget reveals labels of data.unlabelled: leave data.labelled empty, or set it to 0")
    parts: dict[str, Samples | None] = {}
    for part in ("source", "labelled", "unlabelled"):
        reference = getattr(settings.data, part)
        wanted = part in PARTS[settings.mode] and not (part == "labelled" and budget)
        if wanted and not reference and not (settings.mode == "ssada" and part == "source"):
            raise ConfigError(f"mode '{settings.mode}' trains on {part} frames: set data.{part}")
        space = source_space(settings, label_space) if part == "source" else label_space
        parts[part] = _open(reference, settings, space) if wanted and reference else None
    return TrainingData(parts["source"], parts["labelled"], parts["unlabelled"])


def _reveals(settings: OfflineSettings, data: TrainingData) -> LabelReveals | None:
    if settings.data.budget == 0 or data.unlabelled is None:
        return None
    training = settings.effective_training()
    parts = plan(settings.data, frames=len(data.unlabelled), iterations=training.iterations)
    target = Target(
        data.source,
        data.unlabelled,
        settings.acquisition,
        trained=bool(settings.initial),
        seed=training.seed,
        folder=Path(settings.out),
    )
    return LabelReveals(target, parts)


def _open(reference: str, settings: OfflineSettings, label_space: LabelSpace) -> Samples:
    size = (settings.network.input_height, settings.network.input_width)
    return ResizedSamples(open_samples(reference, label_space), size)
