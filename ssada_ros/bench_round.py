"""A training round that a measurement can switch on and off: a real worker on a pool of simulated, labelled frames."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssada_core.adaptation.round import RoundSpec, write_round
from ssada_core.adaptation.worker_process import WorkerProcess
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.errors import ConfigError, SsadaError
from ssada_core.inference.engine import EngineSettings
from ssada_core.learning.settings import RoundTrainingSettings
from ssada_core.store.pool import Choice, FramePool, PoolSettings
from ssada_core.store.registry import ModelRegistry

FRAMES, LABELLED, AUDIT = 24, 8, 2
APART_NS = 6 * 10**9
ENDLESS = 1_000_000
FIRST_STEPS = 2
START_S = 300.0
POLL_S = 0.1


class Round:
    """A worker in the middle of its training, standing still until it is asked to go on."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._pause()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Let it train inside the block."""
        before = self.iteration
        os.kill(self._worker.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self._pause()
        if self._worker.poll() != "running":
            raise SsadaError(f"the training beside the node ended: {self._worker.failure()}")
        if self.iteration == before:
            raise SsadaError("the training beside the node did no step: measure for longer, or on an idle machine")

    @property
    def iteration(self) -> int:
        """Optimisation steps so far."""
        return self._worker.progress().iteration

    def _pause(self) -> None:
        _signal(self._worker, signal.SIGSTOP)


@contextmanager
def paused_round(folder: Path, registry: Path, size: tuple[int, int], engine: EngineSettings) -> Iterator[Round]:
    """Start a round of the product's default settings, but without end, and stop it at its first steps.

    Args:
        folder: for the pool and the round.
        registry: whose current version is trained on.
        size: height and width of the frames in the pool.
        engine: with which the round would measure.

    Raises:
        ConfigError: if the model has other classes than the simulated labels.
        SsadaError: if the worker fails.
    """
    models = ModelRegistry(registry)
    champion = models.current_or_fail()
    space = models.manifest(champion).labels()
    if space.name != "camvid":
        raise ConfigError(
            f"the round beside the node trains on simulated labels of the space camvid, the model's is {space.name}: "
            "measure with --turns 0"
        )
    settings = PoolSettings(rate=1000, keep_free_share=0.0, standstill_threshold=0.0, duplicate_threshold=0.0)
    with FramePool(folder / "pool", settings, label_space=space) as pool:
        _fill(pool, size)
    spec = RoundSpec(
        pool_dir=str(folder / "pool"),
        registry_dir=str(registry),
        champion=champion,
        first=champion,
        training=RoundTrainingSettings(iterations=ENDLESS, unlabelled_start=0.0),
        engine=engine,
        reason="bench node",
    )
    write_round(folder / "round", spec)
    worker = WorkerProcess(folder / "round", restarts=0)
    try:
        _wait_for_steps(worker)
        yield Round(worker)
    finally:
        _signal(worker, signal.SIGKILL)  # nothing of it is wanted
        worker.stop()


def _signal(worker: WorkerProcess, number: signal.Signals) -> None:
    """To a worker that still runs; that of one which has ended may be another's process id by now."""
    if worker.poll() == "running":
        with suppress(ProcessLookupError):
            os.kill(worker.pid, number)


def _fill(pool: FramePool, size: tuple[int, int]) -> None:
    drive = SimulatedDrive(seed=3, size=size, rate=1.0)
    records = [
        added.record
        for index in range(FRAMES)
        if (added := pool.add(drive.frame(index, "night")[0], camera="camera", stamp_ns=APART_NS * index)).record
    ]
    chosen = [Choice(record.id, 0.0, index >= LABELLED, "") for index, record in enumerate(records)]
    for index, record in enumerate(pool.query(chosen[: LABELLED + AUDIT])):
        pool.accept_label(str(record.query_id), drive.frame(index, "night")[1], "bench")


def _wait_for_steps(worker: WorkerProcess) -> None:
    deadline = time.monotonic() + START_S
    while worker.progress().iteration < FIRST_STEPS:
        if worker.poll() != "running":
            raise SsadaError(f"the training beside the node failed: {worker.failure()}")
        if time.monotonic() > deadline:
            raise SsadaError(f"the training beside the node did no step in {START_S:.0f} s: the machine is too busy")
        time.sleep(POLL_S)
