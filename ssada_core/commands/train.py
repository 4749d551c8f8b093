"""``ssada train``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssada_core.commands.common import JsonOption, console, report, say
from ssada_core.config import load_settings
from ssada_core.learning.checkpoint import CHECKPOINT_FILE, load_checkpoint
from ssada_core.learning.distributed import rank
from ssada_core.learning.offline import OfflineSettings, train
from ssada_core.learning.progress import Progress as TrainingProgress


def command(
    config: Annotated[Path, typer.Option(help="Training configuration (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as training.iterations=100")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Say where the run goes on; it does so without this, too.")
    ] = False,
    json_file: JsonOption = None,
) -> int:
    """Train a model offline; interrupted, the same command goes on exactly where its last checkpoint is.

    On several GPUs or machines: torchrun --nproc_per_node 2 -m ssada_core.cli train --config …; the batch sizes are
    those of one process, and the run's folder must be one that all of them see.

    Example: ssada train --config config/train/sim_day.yaml training.iterations=200 out=runs/quick
    """
    settings = load_settings(OfflineSettings, config, overrides or [])
    stop, leads = _StopOnSignal(), rank() == 0
    if resume and leads:
        say(_where(Path(settings.out)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not leads) as bar:
        task = bar.add_task("training", total=settings.effective_training().iterations)

        def show(line: TrainingProgress) -> None:
            bar.update(task, completed=line.iteration, description=f"loss {line.figures['loss']:.3f}")

        result, manifest = train(settings, command=_command_line(), on_progress=show, should_stop=stop)
    if result.stopped:
        if leads:
            say(f"stopped after {result.iterations} iterations: the same command goes on")
        return 1
    if manifest is not None:
        say(f"model: {Path(settings.out) / 'model'}")
        report({"model": str(Path(settings.out) / "model"), "losses": result.losses, **manifest.metrics}, json_file)
    return 0


def _where(run_dir: Path) -> str:
    checkpoint = load_checkpoint(run_dir / CHECKPOINT_FILE)
    if checkpoint is None:
        return f"{run_dir} has no checkpoint yet: training starts from the beginning"
    return f"{run_dir}: going on after iteration {checkpoint.iteration}"


class _StopOnSignal:
    """Turns SIGINT and SIGTERM into "stop after this iteration, with a checkpoint"."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        return self._asked

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._asked = True


def _command_line() -> str:
    return " ".join(["ssada", *sys.argv[1:]])
