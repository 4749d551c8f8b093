"""``ssada bench annotate`` and ``ssada bench page``: what labelling costs a person, in clicks and in waiting."""

from __future__ import annotations

from typing import Annotated

import typer

from ssada_core.bench.annotation import AnnotationBench, run_annotation_bench
from ssada_core.bench.page import run_page_bench
from ssada_core.commands.common import JsonOption, progress_bar, report, say


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
        figures = run_annotation_bench(bench, log=say, on_frame=tell)
    say(
        f"{figures['clicks_median']:g} clicks in the median, {figures['clicks_most']} at most; "
        f"{figures['reached']} of {len(figures['frames'])} frames reached {target:.0%}"
    )
    report(figures, json_file)


def page(
    frames: Annotated[int, typer.Option(min=1, help="Queries to open.")] = 6,
    clicks: Annotated[int, typer.Option(min=1, help="Patches to click in each.")] = 20,
    json_file: JsonOption = None,
) -> None:
    """Time the annotation page at 1280x720 in a real browser, by its own clock: opening a query, repainting a click.

    Example: ssada bench page --json page.json
    """
    figures = run_page_bench(frames=frames, clicks=clicks, log=say)
    for name, words in (("open_ms", "a query opens in"), ("click_ms", "a click is repainted in")):
        row = figures[name]
        say(f"{words} {row['median']:g} ms (p90 {row['p90']:g}, most {row['most']:g}; limit {row['limit']:g})")
    report(figures, json_file)
