"""A training round: any number of SS-ADA steps, resumable at each checkpoint, exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssada_core.errors import WorkerError
from ssada_core.learning.attempts import FREE, Clock, difference, same_round
from ssada_core.learning.batches import Batch
from ssada_core.learning.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    collect,
    load_checkpoint,
    restore,
    save_checkpoint,
)
from ssada_core.learning.distributed import World
from ssada_core.learning.interpolation import interpolate, weights_of
from ssada_core.learning.loaders import BatchMaker, BatchStream, TrainingData
from ssada_core.learning.objective import Objective
from ssada_core.learning.pointwise import dilated_pointwise
from ssada_core.learning.precision import autocast
from ssada_core.learning.progress import PROGRESS_FILE, Progress, ProgressLog
from ssada_core.learning.reveals import Reveals
from ssada_core.learning.schedule import (
    build_optimizer,
    learning_rate,
    set_learning_rate,
    teacher_decay,
    update_teacher,
)
from ssada_core.learning.settings import TrainingSettings, TuflSettings
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.store.files import make_directory

__all__ = ["Trainer", "TrainingResult", "TrainingSettings"]

_THRESHOLDS = "thresholds"  # beside weights and momentum in the checkpoint
_DROPOUT = 5  # a random stream beside those of the loader


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
        reveals: Reveals | None = None,
        world: World | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Prepare a round, or the rest of one.

        Args:
            network: with the weights to start from.
            data: what to train on.
            settings: of the round; batch sizes are those of one process.
            run_dir: where progress and checkpoint go; what an earlier attempt left there is resumed.
            class_iou: IoU per class ``[C]`` in [0, 1] on the audit frames, NaN where unknown; None: all unknown.
            device: where to train.
            tufl: train by TUFL (METHOD §8) instead; what it shares with ``settings`` is the caller's to put there.
            reveals: labels that come in during training; ``data`` is what there is before the first.
            world: the processes that train together, all called alike; None: this one alone.
            on_progress: called after each iteration, in the first process.
            should_stop: asked before each iteration; one process that says so stops all.

        Raises:
            ConfigError: if ``class_iou`` has another number of classes.
            DataError: if there is nothing to train on.
        """
        self.settings = settings
        self.device = torch.device(device)
        self._world = world or World()
        # channels_last: 1.7 times as fast on the CPU.
        self.network = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.freeze_batch_norm(settings.freeze_batch_norm)
        if not settings.freeze_batch_norm:
            self._world.join_batch_norm(self.network)
        self.teacher = _copy(self.network) if settings.pseudo == "teacher" else None
        self._optimizer = build_optimizer(self.network, settings)
        self._tufl, self._reveals = tufl, reveals
        self._objective = Objective(self.network, settings, tufl, self.teacher, self.device)
        self._use(data, class_iou)
        self._identity = self._make_identity()
        self._run_dir = run_dir
        self._on_progress = on_progress or (lambda _: None)
        self._should_stop = should_stop or (lambda: False)
        self._stop_agreed = False

    @property
    def class_weights(self) -> list[float]:
        """Weight of each class in the supervised losses; all 1 where the settings ask for none."""
        return [float(weight) for weight in self._objective.class_weights]

    def run(self) -> TrainingResult:
        """Train to the end, or until asked to stop; a round that is already at its end returns at once.

        Raises:
            WorkerError: if a gradient is not finite (naming the iteration), or the run folder holds a round with
                other settings, data or network.
            DataError: if a frame or label cannot be read.
            StoreError: if progress or checkpoint cannot be written.
        """
        make_directory(self._run_dir)
        first = weights_of(self.network) if self.settings.trained_share < 1 else {}
        start, before = self._resume()
        self._world.wait()  # the first process writes a new checkpoint only when all have read the old one
        module = self._distributed()
        clock = Clock(before, start, self.settings.iterations)
        fast = dilated_pointwise(self.network) if self.device.type == "cpu" else nullcontext()
        with fast, ProgressLog(self._run_dir / PROGRESS_FILE, keep=start, silent=not self._world.leads) as log:
            done = self._train(module, start, clock, log)
            self._world.wait()  # until the first has written its last checkpoint
            if first and done == self.settings.iterations:  # after it: an attempt that resumes does the same
                interpolate(self.network, first, self.settings.trained_share)
            return TrainingResult(done, clock.seconds(), log.recent_losses(), done < self.settings.iterations)

    def _use(self, data: TrainingData, class_iou: NDArray[np.floating] | None) -> None:
        world = self._world
        self._maker = BatchMaker(
            data, self.settings, pairs=self._tufl is not None, rank=world.rank, processes=world.size
        )
        self._objective.use(data, class_iou)

    def _train(self, module: nn.Module, start: int, clock: Clock, log: ProgressLog) -> int:
        total, done = self.settings.iterations, start
        while done < total:
            if self._reveals is not None and self._reveals.due(done):
                self._reveals.reveal(self.network, self.device, self._world)
                self._use(self._reveals.data(), self._reveals.class_iou())
                self._save(done, clock, log)
            end = min(total, self._reveals.next_after(done)) if self._reveals is not None else total
            done = self._stretch(module, (done, end), clock, log)
            if done < end:
                break
        return done

    def _stretch(self, module: nn.Module, stretch: tuple[int, int], clock: Clock, log: ProgressLog) -> int:
        """Train from one iteration to another on the same data; the iterations done, fewer if asked to stop."""
        total = self.settings.iterations
        with BatchStream(self._maker, start=stretch[0], prefetch=self.settings.prefetch) as stream:
            for iteration in range(*stretch):
                if self._asked_to_stop():
                    self._save(iteration, clock, log)
                    return iteration
                batch = stream.next(last=iteration + 1 == stretch[1]).to(self.device)
                rate, figures = self._iterate(module, iteration, batch)
                done = iteration + 1
                line = Progress(
                    iteration=done,
                    iterations=total,
                    learning_rate=rate,
                    figures=figures,
                    seconds=clock.seconds(),
                    eta_seconds=clock.eta(done),
                )
                log.write(line)
                if done % self.settings.checkpoint_every == 0 or done == total:
                    self._save(done, clock, log)
                if self._world.leads:
                    self._on_progress(line)
        return stretch[1]

    def _iterate(self, module: nn.Module, iteration: int, batch: Batch) -> tuple[float, dict[str, float]]:
        """One optimisation step; the only place that waits for the device, once."""
        settings = self.settings
        torch.manual_seed(_seed(settings.seed, iteration, self._world.rank))
        with autocast(settings.precision, self.device):
            loss, figures = module(iteration, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._objective.share_thresholds(self._world)
        values = self._shared(figures | {"gradient_norm": self._gradient_norm()})
        if not all(np.isfinite(value) for value in values.values()):
            raise WorkerError(
                f"iteration {iteration + 1} of {settings.iterations}: loss {values['loss']}, gradient norm "
                f"{values['gradient_norm']}: lower learning_rate (now {settings.learning_rate})"
            )
        rate = learning_rate(iteration, settings)
        set_learning_rate(self._optimizer, rate)
        self._optimizer.step()
        if self.teacher is not None:
            update_teacher(self.teacher, self.network, teacher_decay(iteration, settings.teacher_decay))
        return rate, values

    def _distributed(self) -> nn.Module:
        """What is called in each iteration: with several processes, their gradients are averaged on the way back."""
        if self._world.size == 1:
            return self._objective
        # Auxiliary heads learn from labels only; as long as there are none, they have no gradients to wait for.
        shared = self._maker.sizes["source"] if self.network.source_heads is None else 0
        unused = shared + self._maker.sizes["labelled"] == 0
        return DistributedDataParallel(self._objective, find_unused_parameters=unused)

    def _asked_to_stop(self) -> bool:
        return self._should_stop() if self._world.size == 1 else self._stop_agreed

    def _shared(self, figures: dict[str, Tensor]) -> dict[str, float]:
        """Figures as numbers, means over the processes, which agree on stopping in the same exchange."""
        values = torch.stack([value.float() for value in figures.values()])
        if self._world.size == 1:
            return dict(zip(figures, values.tolist(), strict=True))
        *shared, stop = self._world.mean(torch.cat((values, values.new_tensor([self._should_stop()])))).tolist()
        self._stop_agreed = stop > 0
        return dict(zip(figures, shared, strict=True))

    def _gradient_norm(self) -> Tensor:
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        total: Tensor = torch.linalg.vector_norm(norms)
        return total

    def _make_identity(self) -> dict[str, Any]:
        """What must not change between the attempts of one round."""
        settings = self.settings.model_dump(mode="json", exclude=set(FREE))
        settings |= {"tufl": self._tufl.model_dump(mode="json")} if self._tufl else {}
        settings |= self._reveals.identity() if self._reveals else {}
        settings |= {"processes": self._world.size} if self._world.size > 1 else {}
        return {"settings": settings, "frames": self._maker.sizes, "classes": self.network.num_classes}

    def _resume(self) -> tuple[int, float]:
        """Iterations and seconds that earlier attempts have done."""
        path = self._run_dir / CHECKPOINT_FILE
        checkpoint = load_checkpoint(path)
        if checkpoint is None:
            return 0, 0.0
        if not same_round(checkpoint.identity, self._identity):
            changed = difference(checkpoint.identity, self._identity)
            raise WorkerError(f"{path} is of another round ({changed}): use a new run folder, or delete it")
        restore(checkpoint.tensors, self.network, self.teacher, self._optimizer)
        if self._objective.thresholds is not None:
            self._objective.thresholds.values = checkpoint.tensors[_THRESHOLDS].to(self.device)
        if self._reveals is not None and checkpoint.reveals:
            self._reveals.restore(checkpoint.reveals)
            self._use(self._reveals.data(), self._reveals.class_iou())
        return checkpoint.iteration, checkpoint.seconds

    def _save(self, done: int, clock: Clock, log: ProgressLog) -> None:
        if not self._world.leads:
            return
        log.sync()  # the lines first: a checkpoint never knows of iterations that the log does not
        tensors = collect(self.network, self.teacher, self._optimizer)
        if self._objective.thresholds is not None:
            tensors[_THRESHOLDS] = self._objective.thresholds.values.cpu()
        reveals = self._reveals.state() if self._reveals is not None else []
        checkpoint = Checkpoint(done, clock.seconds(), self._identity, tensors, reveals)
        save_checkpoint(self._run_dir / CHECKPOINT_FILE, checkpoint)


def _copy(network: SegmentationNetwork) -> SegmentationNetwork:
    return copy.deepcopy(network).requires_grad_(False).eval()


def _seed(seed: int, iteration: int, rank: int) -> int:
    # The first process draws what a single one would.
    words = [seed, _DROPOUT, iteration] + ([rank] if rank else [])
    return int(np.random.SeedSequence(words).generate_state(1)[0])
