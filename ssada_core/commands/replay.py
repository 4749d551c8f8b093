"""``ssada replay``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ssada_core.commands.common import JsonOption, progress_bar, say
from ssada_core.config import load_yaml, parse_overrides
from ssada_core.errors import ConfigError
from ssada_core.replay.driver import OpenRos
from ssada_core.replay.figures import AdaptationFigures, ReplayReport
from ssada_core.replay.run import ReplayOptions, run_replay
from ssada_core.replay.settings import ReplaySettings
from ssada_core.resources import resource
from ssada_core.settings import merge, parse_settings
from ssada_core.store.files import write_json

CONFIG = "config/replay.yaml"
open_ros: Callable[[], OpenRos] | None = None
"""Brings the driver over ROS; set by ``ssada_ros``, because this package knows no ROS."""


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
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Play the whole adaptation through, in the recording's time.")
    ] = False,
    adapt_until: Annotated[str, typer.Option(help="Adapt up to a share of the drive (0.5) or a stamp in ns.")] = "",
    evaluation: Annotated[str, typer.Option("--eval", help="With --adapt: unseen labelled frames, list or bag.")] = "",
    source_data: Annotated[str, typer.Option(help="With --adapt: what the model was trained on.")] = "",
    answers: Annotated[str, typer.Option(help="Who answers queries: truth, none, or a folder.")] = "truth",
    budget: Annotated[int | None, typer.Option(min=1, help="Frames that may be asked for.")] = None,
    round_seconds: Annotated[float | None, typer.Option(min=0, help="Seconds of the drive that a round takes.")] = None,
    through_ros: Annotated[
        bool, typer.Option("--through-ros", help="Play the bag onto topics; the real nodes answer over DDS.")
    ] = False,
    speed: Annotated[float, typer.Option(min=0.01, help="With --through-ros: times the recording's pace.")] = 1.0,
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="With --through-ros: subscribe as to a camera; reliable without it.")
    ] = False,
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

    With --adapt the live node's adaptation runs in the recording's time: queries, labels, rounds, gate, swaps. A round
    takes --round-seconds of the drive, so the same seed gives the same figures anywhere. With --through-ros as well the
    real nodes adapt while the drive is played: a round takes what it takes, and the swaps' gaps are measured.

    Example: ssada replay drive_bag --model sim-day --video
    """
    given: dict[str, Any] = {
        "recording": {"topics": topic or [], "start_s": start, "end_s": end, "every": every},
        "truth": {
            **{"topic": label_topic, "folder": str(labels or ""), "by": label_by},
            "tolerance_s": tolerance,
        },
        "engine": {"backend": backend, "precision": precision},
        **{"seed": seed, "adapt_until": adapt_until, "answers": answers},
        **_adaptation_given(round_seconds, budget),
    }
    ros = _opener() if through_ros else None  # first of all: ROS's wheels begin the program anew when it is imported
    settings = load_replay_settings(config, overrides or [], given)
    options = ReplayOptions(
        bag=bag,
        out=out,
        models=tuple(model),
        command=shlex.join(["ssada", *sys.argv[1:]]),
        adapt=adapt,
        speed=speed,
        reliability="best_effort" if best_effort else "reliable",
        evaluation=evaluation,
        source_data=source_data,
        mask_bag=mask_bag,
        video=video,
        config=config,
    )
    with progress_bar("replaying") as tell:
        report = run_replay(options, settings, log=say, on_frame=tell, ros=ros)
    if json_file is not None:
        write_json(json_file, report.model_dump(mode="json"))
    show(report, out)


def _adaptation_given(round_seconds: float | None, budget: int | None) -> dict[str, Any]:
    """What was said of the adaptation; what was not keeps the configuration's value."""
    given: dict[str, Any] = {}
    if round_seconds is not None:
        given["round_seconds"] = round_seconds
    if budget is not None:
        given["adaptation"] = {"cycle": {"budget": budget, "new_labels": budget}}
    return given


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
    for comparison in report.comparisons if report.adaptation is None else ():
        sys.stdout.write(f"{comparison.words}\n")
    if report.adaptation is not None:
        show_adaptation(report.adaptation)
    if report.ros is not None:
        sys.stdout.write(f"over ROS: {report.ros.published} published, {report.ros.dropped} dropped\n")
    for gap in report.timing.swap_gaps_s:
        sys.stdout.write(f"without a mask at a swap: {gap:.2f} s\n")
    for item in report.damage:
        say(f"{item.count}x {item.kind} ({item.example})")
    say(f"report: {out / 'report.html'} · figures: {out / 'report.json'} · frames: {out / 'frames.csv'}")


def _opener() -> OpenRos:
    if open_ros is None:
        raise ConfigError("--through-ros starts nodes, which this command cannot: run 'ssada replay' of ssada_ros")
    return open_ros()


def show_adaptation(adaptation: AdaptationFigures) -> None:
    """What was asked, learned and decided, on standard output."""
    asked, labels = len(adaptation.queries), adaptation.labels
    sys.stdout.write(f"{asked} frames asked for, {labels} labels, {adaptation.audit_labels} of them only judge\n")
    for one in adaptation.rounds:
        sys.stdout.write(f"round from {one.started_s:.1f} to {one.ended_s:.1f} s: {one.verdict}: {one.words}\n")
    if adaptation.unseen is not None:
        before, after = adaptation.unseen.before.miou, adaptation.unseen.after.miou
        if before is not None and after is not None:
            sys.stdout.write(f"unseen frames: mIoU {before:.2f} → {after:.2f} % ({after - before:+.2f})\n")
    if adaptation.unfinished:
        sys.stdout.write(f"{adaptation.unfinished}\n")
