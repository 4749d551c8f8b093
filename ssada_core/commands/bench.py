"""``ssada bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from ssada_core.bench.training import TrainingBench, run_training_bench
from ssada_core.commands.common import JsonOption, console, make_app, progress_bar, report

app = make_app("Measure what the parts cost on this machine.")


@app.callback()
def group() -> None:
    """Measure what the parts cost on this machine."""


@app.command("training")
def training(
    batch: Annotated[int, typer.Option(min=1, help="Crops of each kind: source, labelled, unlabelled, mixed in.")] = 2,
    crop: Annotated[int, typer.Option(min=32, help="Height and width of a crop, pixels.")] = 192,
    backbone: Annotated[str, typer.Option(help="BiSeNet V1's backbone.")] = "efficientnet_lite0",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each kind that count, in turn.")] = 15,
    json_file: JsonOption = None,
) -> None:
    """Time one SS-ADA step against one that runs each view through the network on its own, in default memory layout.

    Example: ssada bench training --json training.json
    """
    bench = TrainingBench(batch=batch, crop=crop, backbone=backbone, threads=threads, rounds=rounds)
    with progress_bar("steps") as tell:
        figures = run_training_bench(bench, on_round=tell)
    console.print(
        f"{figures['step_seconds']:.2f} s a step, {figures['ratio']:.2f} of the straightforward one's "
        f"{figures['naive_step_seconds']:.2f} s ({figures['cpu_ratio']:.2f} processor time; limit {figures['limit']})"
    )
    report(figures, json_file)
