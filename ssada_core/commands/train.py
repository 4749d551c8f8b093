"""``ssada train``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssada_core.commands.common import JsonOption, console, report
from ssada_core.config import load_settings
from ssada_core.learning.offline import OfflineSettings, train
from ssada_core.learning.progress import Progress as TrainingProgress


def command(
    config: Annotated[Path, typer.Option(help="Training configuration (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as training.iterations=100")] = None,
    json_file: JsonOption = None,
) -> int:
    """Train a model offline; interrupted, the same command resumes.

    Example: ssada train --config config/train/sim_day.yaml training.iterations=200 out=runs/quick
    """
    settings = load_settings(OfflineSettings, config, overrides or [])
    stop = _StopOnSignal()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=settings.effective_training().iterations)

        def show(line: TrainingProgress) -> None:
            bar.update(task, completed=line.iteration, description=f"loss {line.figures['loss']:.3f}")

        result, manifest = train(settings, command=_command_line(), on_progress=show, should_stop=stop)
    if manifest is None:
        console.print(f"stopped after {result.iterations} iterations: the same command goes on")
        return 1
    console.print(f"model: {Path(settings.out) / 'model'}")
    report({"model": str(Path(settings.out) / "model"), "losses": result.losses, **manifest.metrics}, json_file)
    return 0


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
