"""``ssada bench adaptation``: one source model, many ways to adapt it, the same optimiser budget for each.

Every run is a process on one thread, kept in a folder of its own: an interrupted benchmark goes on where it was.
However the benchmark ends, its runs end with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssada_core.bench.adaptation_run import RESULT_FILE, RUN_FILE, RunSpec
from ssada_core.bench.adaptation_settings import SOURCE, BenchSettings, recipe
from ssada_core.errors import ConfigError, WorkerError
from ssada_core.learning.offline import DataSettings, OfflineSettings, train
from ssada_core.store.files import make_directory, read_json, sha256_file, write_json
from ssada_core.store.manifest import WEIGHTS_FILE
from ssada_core.store.models import resolve_model

LOG_FILE = "run.log"
_POLL_S = 0.2


@dataclass(frozen=True)
class Run:
    """One setting with one seed, and where it is kept."""

    setting: str
    seed: int
    folder: Path

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return (self.folder / RESULT_FILE).is_file()


def run_benchmark(
    bench: BenchSettings,
    *,
    settings: Sequence[str] = (),
    seeds: Sequence[int] = (),
    quick: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Run what has not been run yet.

    Args:
        bench: the configuration.
        settings: names instead of the configuration's.
        seeds: seeds instead of the configuration's.
        quick: short trainings, in folders of their own.
        on_progress: called with (runs done, runs in all).
        log: where messages go.

    Returns:
        The runs' results, see :func:`ssada_core.bench.adaptation_run.run`, by setting, then seed.

    Raises:
        ConfigError: if a setting or variant is unknown.
        WorkerError: if a run fails, with its last line; the others' results are kept.
        SsadaError: if data or model cannot be read.
    """
    names, numbers = tuple(settings or bench.settings), tuple(seeds or bench.seeds)
    for name in names:
        bench.training_of(recipe(name), seed=0)
    root = Path(bench.out) / (f"{bench.name}-quick" if quick else bench.name)
    model = source_model(bench, root, quick=quick, log=log)
    # The source model is what it is with any seed: one run.
    runs = [
        _prepare(root, name, seed, bench, model, quick=quick)
        for name in names
        for seed in (numbers[:1] if name == SOURCE else numbers)
    ]
    _run_all(runs, bench.jobs, on_progress or (lambda _done, _total: None), log)
    return [read_json(run.folder / RESULT_FILE) for run in runs]


def source_model(bench: BenchSettings, root: Path, *, quick: bool, log: Callable[[str], None]) -> str:
    """The model that every setting starts from: the one named, or one trained here, once.

    Raises:
        SsadaError: if it cannot be found or trained.
    """
    if bench.source_model:
        resolve_model(bench.source_model)
        return bench.source_model
    folder = root / "source_model"
    if not (folder / "model" / WEIGHTS_FILE).is_file():
        log(f"training the source model in {folder}")
        iterations = bench.quick_iterations if quick else bench.source_training.iterations
        training = bench.source_training.model_copy(update={"iterations": iterations})
        data = DataSettings(source=bench.data.source, validation=bench.data.held_out)
        settings = OfflineSettings(
            name=f"{bench.name}-source",
            out=str(folder),
            label_space=bench.label_space,
            network=bench.network,
            data=data,
            training=training,
        )
        train(settings, command="ssada bench adaptation")
    return str(folder / "model")


def _prepare(root: Path, name: str, seed: int, bench: BenchSettings, model: str, *, quick: bool) -> Run:
    """Write what the run is to do; an earlier run of the same folder must have been asked the same."""
    folder = root / f"{name}-seed{seed}"
    make_directory(folder)
    # What does not bear on this run may change between attempts: other settings, number of jobs.
    own = bench.model_copy(update={"settings": (name,), "seeds": (seed,), "jobs": 1, "name": "", "out": ""})
    spec = RunSpec(setting=name, seed=seed, quick=quick, source_model=model, bench=own)
    asked = spec.model_dump(mode="json")
    asked["bench"] = _that_matters(asked["bench"], name)
    if (folder / RUN_FILE).is_file() and read_json(folder / RUN_FILE) != asked:
        raise ConfigError(f"{folder} holds a run with other settings: remove it, or name another out= or name=")
    write_json(folder / RUN_FILE, asked)
    return Run(name, seed, folder)


def _that_matters(bench: dict[str, Any], name: str) -> dict[str, Any]:
    """The configuration without other modes' and variants' changes, so that adding one leaves finished runs valid."""
    chosen = recipe(name)
    for key, own in (("modes", chosen.mode), ("variants", chosen.variant)):
        bench[key] = {known: value for known, value in bench[key].items() if known == own}
    return bench


def _run_all(runs: list[Run], jobs: int, on_progress: Callable[[int, int], None], log: Callable[[str], None]) -> None:
    waiting = [run for run in runs if not run.done]
    running: list[tuple[Run, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                running.append((run, _start(run)))
            time.sleep(_POLL_S)
            ended = [(run, process) for run, process in running if process.poll() is not None]
            running = [pair for pair in running if pair not in ended]
            for run, process in ended:
                _check(run, process, log)
            on_progress(len(runs) - len(waiting) - len(running), len(runs))
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait()


def _start(run: Run) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (run.folder / LOG_FILE).open("ab") as log:
        command = [sys.executable, "-m", "ssada_core.bench.adaptation_run", str(run.folder)]
        command += ["--parent", str(os.getpid())]
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _check(run: Run, process: subprocess.Popen[bytes], log: Callable[[str], None]) -> None:
    if process.returncode != 0 or not run.done:
        lines = (run.folder / LOG_FILE).read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise WorkerError(f"{run.folder.name} failed (status {process.returncode}): {lines[-1]}")
    result = read_json(run.folder / RESULT_FILE)
    figures = f"mIoU {result['miou']:.1f}, {result['labels']} labels, {result['seconds']:.0f} s"
    log(f"{run.setting} seed {run.seed}: {figures}")


def model_sha256(reference: str) -> str:
    """SHA-256 of a model's weights, so that a result says what it started from."""
    return sha256_file(resolve_model(reference) / WEIGHTS_FILE)
