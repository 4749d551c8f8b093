"""A training round: any number of SS-ADA steps, resumable at each checkpoint, exactly."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssada_core.errors import WorkerError
from ssada_core.learning.batches import Batch
from ssada_core.learning.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    collect,
    load_checkpoint,
    restore,
    save_checkpoint,
)
from ssada_core.learning.loaders import BatchMaker, BatchStream, TrainingData
from ssada_core.learning.mixing_step import long_tail_classes
from ssada_core.learning.pointwise import dilated_pointwise
from ssada_core.learning.progress import PROGRESS_FILE, Progress, ProgressLog
from ssada_core.learning.schedule import (
    build_optimizer,
    learning_rate,
    set_learning_rate,
    teacher_decay,
    thresholds,
    update_teacher,
)
from ssada_core.learning.settings import TrainingSettings, TuflSettings
from ssada_core.learning.step import StepResult, ssada_step
from ssada_core.learning.tufl_step import first_thresholds, tufl_step
from ssada_core.learning.weighting import checked_iou, class_weights, fill_unknown
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.store.files import make_directory

__all__ = ["Trainer", "TrainingResult", "TrainingSettings"]

_THRESHOLDS = "thresholds"  # beside weights and momentum in the checkpoint
_DROPOUT = 5  # a random stream beside those of the loader
_FREE = frozenset({"threads", "prefetch", "cache_megabytes", "checkpoint_every"})  # may change between attempts


@dataclass(frozen=True)
class TrainingResult:
    """How a round went.

    Attributes:
        iterations: iterations done, over all attempts.
        seconds: time they took, over all attempts.
        losses: the loss and its parts, each the mean over the last tenth of the iterations, 100 at most.
        stopped: it was asked to stop before its end, and can be resumed.
    """

    iterations: int
    seconds: float
    losses: dict[str, float]
    stopped: bool


class Trainer:
    """Trains a network in place.

    Everything random follows from ``settings.seed`` and the iteration: PyTorch's global generator is seeded
    anew at each step. The number of CPU threads is left to the caller.

    Attributes:
        network: the network given, on the device and in channels-last memory.
        teacher: its moving average, if the settings ask for one.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        data: TrainingData,
        settings: TrainingSettings,
        *,
        run_dir: Path,
        class_iou: NDArray[np.floating] | None = None,
        device: str | torch.device = "cpu",
        tufl: TuflSettings | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Prepare a round, or the rest of one.

        Args:
            network: with the weights to start from.
            data: what to train on.
            settings: of the round.
            run_dir: where progress and checkpoint go; what an earlier attempt left there is resumed.
            class_iou: IoU per class ``[C]`` in [0, 1] on the audit frames, NaN where unknown; None: all unknown.
            device: where to train.
            tufl: train by TUFL (METHOD §8) instead; what it shares with ``settings`` is the caller's to put there.
            on_progress: called after each iteration.
            should_stop: asked before each iteration.

        Raises:
            ConfigError: if ``class_iou`` has another number of classes.
            DataError: if there is nothing to train on.
        """
        self.settings = settings
        self.device = torch.device(device)
        # channels_last: 1.7 times as fast on the CPU.
        self.network = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.freeze_batch_norm(settings.freeze_batch_norm)
        self.teacher = _copy(self.network) if settings.pseudo == "teacher" else None
        self._optimizer = build_optimizer(self.network, settings)
        self._maker = BatchMaker(data, settings, pairs=tufl is not None)
        self._tufl = tufl
        self._thresholds = first_thresholds(tufl, network.num_classes, self.device) if tufl else None
        self._rare = long_tail_classes(settings.mixing, data.source, network.num_classes, self.device)
        iou = checked_iou(class_iou, network.num_classes)
        self._iou = self._tensor(fill_unknown(iou))
        counted = data.labelled if data.labelled is not None and len(data.labelled) else data.source
        weights = class_weights(settings, iou, counted)
        self.class_weights: list[float] = weights.tolist()
        self._weights = None if settings.class_weights == "none" else self._tensor(weights)
        self._run_dir = run_dir
        self._on_progress = on_progress or (lambda _: None)
        self._should_stop = should_stop or (lambda: False)

    def run(self) -> TrainingResult:
        """Train to the end, or until asked to stop; a round that is already at its end returns at once.

        Raises:
            WorkerError: if a gradient is not finite (naming the iteration), or the run folder holds a round with
                other settings, data or network.
            DataError: if a frame or label cannot be read.
            StoreError: if progress or checkpoint cannot be written.
        """
        make_directory(self._run_dir)
        start, before = self._resume()
        clock = _Clock(before, start, self.settings.iterations)
        fast = dilated_pointwise(self.network) if self.device.type == "cpu" else nullcontext()
        with fast, ProgressLog(self._run_dir / PROGRESS_FILE, keep=start) as log:
            done = self._train(start, clock, log)
            stopped = done < self.settings.iterations
            return TrainingResult(done, clock.seconds(), log.recent_losses(), stopped)

    def _train(self, start: int, clock: _Clock, log: ProgressLog) -> int:
        total = self.settings.iterations
        with BatchStream(self._maker, start=start, prefetch=self.settings.prefetch) as stream:
            for iteration in range(start, total):
                if self._should_stop():
                    self._save(iteration, clock, log)
                    return iteration
                rate, figures = self._iterate(iteration, stream)
                done = iteration + 1
                seconds, eta = clock.seconds(), clock.eta(done)
                line = Progress(
                    iteration=done,
                    iterations=total,
                    learning_rate=rate,
                    figures=figures,
                    seconds=seconds,
                    eta_seconds=eta,
                )
                log.write(line)
                if done % self.settings.checkpoint_every == 0 or done == total:
                    self._save(done, clock, log)
                self._on_progress(line)
        return total

    def _iterate(self, iteration: int, stream: BatchStream) -> tuple[float, dict[str, float]]:
        """One optimisation step; the only place that waits for the device, once."""
        settings = self.settings
        batch = stream.next(last=iteration + 1 == settings.iterations).to(self.device)
        torch.manual_seed(_seed(settings.seed, iteration))
        with self._autocast():
            result = self._step(iteration, batch)
        self._optimizer.zero_grad(set_to_none=True)
        result.loss.backward()  # type: ignore[no-untyped-call]
        figures = _floats(result.figures | {"gradient_norm": self._gradient_norm()})
        if not all(np.isfinite(value) for value in figures.values()):
            raise WorkerError(
                f"iteration {iteration + 1} of {settings.iterations}: loss {figures['loss']}, gradient norm "
                f"{figures['gradient_norm']}: lower learning_rate (now {settings.learning_rate})"
            )
        rate = learning_rate(iteration, settings)
        set_learning_rate(self._optimizer, rate)
        self._optimizer.step()
        if self.teacher is not None:
            update_teacher(self.teacher, self.network, teacher_decay(iteration, settings.teacher_decay))
        return rate, figures

    def _step(self, iteration: int, batch: Batch) -> StepResult:
        settings = self.settings
        if self._tufl is not None and self._thresholds is not None:
            return tufl_step(
                self.network,
                batch,
                settings,
                self._tufl,
                self._thresholds,
                class_weights=self._weights,
                rare=self._rare,
            )
        return ssada_step(
            self.network,
            batch,
            settings,
            thresholds=thresholds(iteration, settings, self._iou),
            class_weights=self._weights,
            teacher=self.teacher,
            rare=self._rare,
        )

    def _autocast(self) -> AbstractContextManager[Any]:
        # bfloat16 needs no loss scaling; GPUs without it (before Ampere) train in float32, CPUs too.
        if self.device.type == "cuda" and torch.cuda.get_device_capability(self.device)[0] >= 8:
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _gradient_norm(self) -> Tensor:
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        total: Tensor = torch.linalg.vector_norm(norms)
        return total

    def _identity(self) -> dict[str, Any]:
        """What must not change between the attempts of one round."""
        settings = self.settings.model_dump(mode="json", exclude=set(_FREE))
        return {
            "settings": settings | ({"tufl": self._tufl.model_dump(mode="json")} if self._tufl else {}),
            "frames": self._maker.sizes,
            "classes": self.network.num_classes,
        }

    def _resume(self) -> tuple[int, float]:
        """Iterations and seconds that earlier attempts have done."""
        path = self._run_dir / CHECKPOINT_FILE
        checkpoint = load_checkpoint(path)
        if checkpoint is None:
            return 0, 0.0
        if checkpoint.identity != self._identity():
            changed = _difference(checkpoint.identity, self._identity())
            raise WorkerError(f"{path} is of another round ({changed}): use a new run folder, or delete it")
        restore(checkpoint.tensors, self.network, self.teacher, self._optimizer)
        if self._thresholds is not None:
            self._thresholds.values = checkpoint.tensors[_THRESHOLDS].to(self.device)
        return checkpoint.iteration, checkpoint.seconds

    def _save(self, done: int, clock: _Clock, log: ProgressLog) -> None:
        log.sync()  # the lines first: a checkpoint never knows of iterations that the log does not
        tensors = collect(self.network, self.teacher, self._optimizer)
        if self._thresholds is not None:
            tensors[_THRESHOLDS] = self._thresholds.values.cpu()
        checkpoint = Checkpoint(done, clock.seconds(), self._identity(), tensors)
        save_checkpoint(self._run_dir / CHECKPOINT_FILE, checkpoint)

    def _tensor(self, values: NDArray[np.float64]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)


class _Clock:
    """Seconds over all attempts, and how many are left at this attempt's rate."""

    def __init__(self, before: float, start: int, total: int) -> None:
        self._before, self._start, self._total = before, start, total
        self._began = time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def eta(self, done: int) -> float:
        return (time.monotonic() - self._began) / max(done - self._start, 1) * (self._total - done)


def _copy(network: SegmentationNetwork) -> SegmentationNetwork:
    return copy.deepcopy(network).requires_grad_(False).eval()


def _seed(seed: int, iteration: int) -> int:
    return int(np.random.SeedSequence([seed, _DROPOUT, iteration]).generate_state(1)[0])


def _floats(figures: dict[str, Tensor]) -> dict[str, float]:
    values = torch.stack([value.float() for value in figures.values()]).tolist()
    return dict(zip(figures, values, strict=True))


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    flat_old, flat_new = ({**side["settings"], **side["frames"], "classes": side["classes"]} for side in (old, new))
    changed = [key for key in flat_new if flat_old.get(key) != flat_new[key]]
    return ", ".join(f"{key} {flat_old.get(key)} is now {flat_new[key]}" for key in changed) or "other keys"
