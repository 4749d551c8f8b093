"""``ssada bench annotate``: clicks per frame of a scripted user."""

from __future__ import annotations

from typing import Annotated

import typer

from ssada_core.bench.annotation import AnnotationBench, run_annotation_bench
from ssada_core.commands.common import JsonOption, console, progress_bar, report


def command(
    data: Annotated[str, typer.Option(help="Labelled frames, as for ssada evaluate.")],
    model: Annotated[str, typer.Option(help="Model whose predictions are corrected.")] = "sim-day",
    frames: Annotated[int, typer.Option(min=1, help="How many frames, spread evenly.")] = 10,
    target: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of pixels that must be right.")] = 0.95,
    most_clicks: Annotated[int, typer.Option(min=1, help="When the user gives up.")] = 300,
    backend: Annotated[str, typer.Option(help="Inference backend.")] = "auto",
    json_file: JsonOption = None,
) -> None:
    """Count the clicks on patches and regions that turn a model's prediction into a label.

    A scripted user who knows the ground truth takes the best click each time: the least that a person can hope for.

    Example: ssada bench annotate --model sim-day --data sim:night:2:0-100 --json clicks.json
    """
    bench = AnnotationBench(
        model=model, data=data, frames=frames, target=target, most_clicks=most_clicks, backend=backend
    )
    with progress_bar("frames") as tell:
        figures = run_annotation_bench(bench, log=console.print, on_frame=tell)
    console.print(
        f"{figures['clicks_median']:g} clicks in the median, {figures['clicks_most']} at most; "
        f"{figures['reached']} of {len(figures['frames'])} frames reached {target:.0%}"
    )
    report(figures, json_file)
