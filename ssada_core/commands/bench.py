"""``ssada bench``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from ssada_core.bench.inference import InferenceBench, measure
from ssada_core.bench.training import TrainingBench, run_training_bench
from ssada_core.commands import bench_adaptation, bench_annotation, bench_gate
from ssada_core.commands.common import JsonOption, console, make_app, progress_bar, report, say
from ssada_core.errors import ConfigError

app = make_app("Measure what the parts cost on this machine.")
_LEAST, _MOST = 32, 4096
"""Pixels a side, as NetworkSettings takes them."""

app.command("adaptation")(bench_adaptation.command)
app.command("gate")(bench_gate.gate)
app.command("rounds")(bench_gate.rounds)
app.command("drift")(bench_gate.road_change)
app.command("long-drive")(bench_gate.drive)
app.command("annotate")(bench_annotation.command)
app.command("page")(bench_annotation.page)


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
    say(
        f"{figures['step_seconds']:.2f} s a step, {figures['ratio']:.2f} of the straightforward one's "
        f"{figures['naive_step_seconds']:.2f} s ({figures['cpu_ratio']:.2f} processor time; limit {figures['limit']})"
    )
    report(figures, json_file)


@app.command("inference")
def inference(
    model: Annotated[
        str, typer.Option(help="Model reference, or random:ARCHITECTURE-BACKBONE for a network without a training.")
    ],
    size: Annotated[str, typer.Option(help="Height and width of the network, HxW.")] = "384x640",
    backends: Annotated[str, typer.Option(help="Such as torch,openvino; all that are installed.")] = "",
    precision: Annotated[str, typer.Option(help="Such as fp32,int8; all that there are.")] = "",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of every engine; 0: all cores.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each engine has its turn, of three frames.")] = 20,
    data: Annotated[
        str, typer.Option(help="Frames to run and to calibrate int8 on, as for ssada evaluate.")
    ] = "sim:day",
    frame_size: Annotated[str, typer.Option(help="Height and width of the frames, HxW; the network's.")] = "",
    json_file: JsonOption = None,
) -> None:
    """Time every backend on the same frames in turn, from uint8 frame to uint8 label, and compare it with torch.

    Every engine runs in its own process with the same number of threads. The share is that of what the same cores
    reach in a plain matrix product of the same precision, measured in the same turns.

    Example: ssada bench inference --model random:bisenet_v1-resnet18 --size 384x640 --json inference.json
    """
    bench = InferenceBench(
        model=model,
        size=parse_size("--size", size),
        backends=words(backends),
        precisions=words(precision),
        threads=threads,
        turns=rounds,
        data=data,
        frame_size=parse_size("--frame-size", frame_size) if frame_size else None,
    )
    with progress_bar("turns") as tell:
        figures = measure(bench, log=say, on_turn=tell)
    _show_inference(figures)
    report(figures, json_file)


def _show_inference(figures: Mapping[str, Any]) -> None:
    table = Table("backend", "precision", "p50 ms", "p90", "p99", "frames/s", "as torch", "peak MB", "start s", "limit")
    for row in figures["results"]:
        times = [f"{row['latency_ms'][name]:.1f}" for name in ("p50", "p90", "p99")]
        share = row["roofline_share"]
        figures_of_row = [f"{row['fps']:.1f}", f"{100 * row['agreement']:.3f} %", f"{row['peak_rss_mb']:.0f}"]
        limit = "" if share is None else f"{100 * share:.0f} %"
        table.add_row(row["backend"], row["precision"], *times, *figures_of_row, f"{row['startup_s']:.1f}", limit)
    console.print(table)
    roofline = figures["roofline"]
    say(
        f"{figures['size']}, {roofline['model_gflop']:.1f} GFLOP a frame, {figures['threads']} threads; "
        f"matrix products: {roofline['fp32_gflops']:.0f} GFLOP/s in fp32, {roofline['int8_gops']:.0f} GOP/s in int8"
    )


def words(text: str) -> list[str]:
    """The parts of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def parse_size(option: str, text: str) -> tuple[int, int]:
    """Height and width out of HxW.

    Raises:
        ConfigError: naming the option, if it is something else, or nothing that a network can take.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise ConfigError(f"{option} '{text}' is not HxW, such as 384x640")
    height, width = int(found[1]), int(found[2])
    if not (_LEAST <= height <= _MOST and _LEAST <= width <= _MOST):
        raise ConfigError(f"{option} '{text}': both from {_LEAST} to {_MOST} pixels")
    return height, width
