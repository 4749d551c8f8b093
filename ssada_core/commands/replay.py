"""``ssada replay``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ssada_core.commands.common import JsonOption, console, progress_bar
from ssada_core.config import load_yaml, parse_overrides
from ssada_core.replay.figures import ReplayReport
from ssada_core.replay.run import ReplayOptions, run_replay
from ssada_core.replay.settings import ReplaySettings
from ssada_core.resources import resource
from ssada_core.settings import merge, parse_settings
from ssada_core.store.files import write_json

CONFIG = "config/replay.yaml"


def command(
    bag: Annotated[Path, typer.Argument(help="The recording: a rosbag2 folder, or an .mcap or .db3 file.")],
    model: Annotated[
        list[str], typer.Option("--model", help="Model folder, registry, REGISTRY@VERSION or name; several compare.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/replay"),
    topic: Annotated[list[str] | None, typer.Option("--topic", help="Image topic; all cameras without it.")] = None,
    label_topic: Annotated[str, typer.Option(help="Topic with ground truth; found by its name …/label.")] = "",
    labels: Annotated[Path | None, typer.Option(help="Folder with ground truth, by stamp or in order.")] = None,
    label_by: Annotated[str, typer.Option(help="How that folder is matched: auto, stamp or order.")] = "auto",
    tolerance: Annotated[float, typer.Option(min=0, help="Seconds a label's stamp may differ from its frame's.")] = 0.0,
    start: Annotated[float, typer.Option(min=0, help="Begin so many seconds after the first frame.")] = 0.0,
    end: Annotated[float, typer.Option(min=0, help="End so many seconds after the first frame; 0 is the end.")] = 0.0,
    every: Annotated[int, typer.Option(min=1, help="Every n-th frame.")] = 1,
    backend: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16, int8 or auto.")] = "fp32",
    seed: Annotated[int, typer.Option(min=0, help="Everything random follows from it.")] = 0,
    mask_bag: Annotated[bool, typer.Option("--mask-bag", help="Also write a bag with masks and overlays.")] = False,
    video: Annotated[bool, typer.Option("--video", help="Also write a video of the overlays (H.264).")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration instead of the shipped one.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value over the configuration.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Run a model over a recorded drive, deterministically, and write one page: report.html, report.json beside it.

    Without ground truth (a label topic, or --labels) the page shows what the model says of itself. Several --model are
    compared frame by frame. What is broken in the recording is left out, counted and shown.

    Example: ssada replay drive_bag --model sim-day --video
    """
    given: dict[str, Any] = {
        "recording": {"topics": topic or [], "start_s": start, "end_s": end, "every": every},
        "truth": {
            "topic": label_topic,
            "folder": str(labels) if labels is not None else "",
            "by": label_by,
            "tolerance_s": tolerance,
        },
        "engine": {"backend": backend, "precision": precision},
        "seed": seed,
    }
    settings = load_replay_settings(config, overrides or [], given)
    options = ReplayOptions(
        bag=bag,
        out=out,
        models=tuple(model),
        command=shlex.join(["ssada", *sys.argv[1:]]),
        mask_bag=mask_bag,
        video=video,
    )
    with progress_bar("replaying") as tell:
        report = run_replay(options, settings, log=console.print, on_frame=tell)
    if json_file is not None:
        write_json(json_file, report.model_dump(mode="json"))
    show(report, out)


def load_replay_settings(config: Path | None, overrides: list[str], given: dict[str, Any]) -> ReplaySettings:
    """The configuration with the command line's options and overrides over it.

    Raises:
        ConfigError: if a key or value is wrong.
    """
    path = config or resource(CONFIG)
    values = merge(merge(load_yaml(path), given), parse_overrides(overrides))
    return parse_settings(ReplaySettings, values, source=str(path))


def show(report: ReplayReport, out: Path) -> None:
    """The result in a few lines on standard output."""
    for series in report.series:
        miou = "no ground truth" if series.miou is None else f"mIoU {series.miou:.2f} % on {series.frames} frames"
        sys.stdout.write(f"{series.name}: {miou}\n")
    for comparison in report.comparisons:
        sys.stdout.write(f"{comparison.words}\n")
    for item in report.damage:
        console.print(f"{item.count}x {item.kind} ({item.example})", soft_wrap=True, markup=False)
    console.print(f"report: {out / 'report.html'} · figures: {out / 'report.json'} · frames: {out / 'frames.csv'}")
