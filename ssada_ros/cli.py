"""The ``ssada`` command: the core's commands, and those that start nodes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ssada_core.cli import COMMANDS, app
from ssada_core.commands.common import console, report, run, say
from ssada_core.commands.lazy import add_lazily
from ssada_core.errors import ConfigError, require
from ssada_ros.demo_options import Annotator, DemoOptions

# The core's commands that can do more where there is ROS.
add_lazily(app, "replay", "ssada_ros.replay_command:command", COMMANDS["replay"][1])
add_lazily(app, "bench", "ssada_ros.bench_commands:app", COMMANDS["bench"][1])


@app.command("demo")
def demo(
    camera: Annotated[str, typer.Option(help="sim, images:DIR, video:FILE, bag:PATH or device:N.")] = "sim",
    model: Annotated[str | None, typer.Option(help="Model to start with: folder, registry, or shipped name.")] = None,
    source_data: Annotated[str | None, typer.Option(help="What that model was trained on.")] = None,
    evaluation: Annotated[
        str | None, typer.Option("--eval", help="Unseen labelled frames: list, its name beside the source data, bag.")
    ] = None,
    annotator: Annotated[str, typer.Option(help="oracle (ground truth), folder (a human) or none.")] = "oracle",
    budget: Annotated[int | None, typer.Option(min=1, help="Frames that may be asked for.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Frames per second.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Everything random follows from it.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/demo"),
    no_view: Annotated[bool, typer.Option("--no-view", help="Plain lines instead of the live view.")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration instead of the shipped one.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value over the configuration.")] = None,
) -> None:
    """Drive by day, then by night, ask for a few labels, learn, let the gate decide, swap — with real nodes over DDS.

    Example: ssada demo --out out/demo --seed 1
    """
    _require_ros()
    from ssada_ros.demo import run_demo

    options = DemoOptions(
        camera=camera,
        model=model,
        source_data=source_data,
        evaluation=evaluation,
        annotator=_annotator(annotator),
        budget=budget,
        rate=rate,
        seed=seed,
        out=out,
        view=not no_view,
        config=config,
        overrides=tuple(overrides or ()),
        command=shlex.join(["ssada", *sys.argv[1:]]),
    )
    summary = run_demo(options, console)
    report(summary, None)
    say(f"report: {out / 'report.html'} · pictures: {out / 'strip.png'} · figures: {out / 'summary.json'}")


@app.command("up")
def up(
    parameters: Annotated[Path | None, typer.Option(help="ROS parameters file for both nodes.")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the nodes, such as /robot1.")] = "",
    camera: Annotated[
        list[str] | None, typer.Option(help="Image topic, or NAME=TOPIC; once for each camera, in place of the file's.")
    ] = None,
    log_dir: Annotated[str, typer.Option(help="Folder of the nodes' logs; '-' for the terminal.")] = "ssada/logs",
    log_level: Annotated[str, typer.Option(help="debug, info, warn, error or fatal.")] = "",
    use_sim_time: Annotated[bool, typer.Option("--use-sim-time", help="Take the time from /clock.")] = False,
    foxglove: Annotated[
        bool, typer.Option("--foxglove", help="Also serve the topics to Foxglove, at ws://localhost:8765.")
    ] = False,
    restarts: Annotated[
        int, typer.Option(min=0, help="Restarts in a row of a node that ends; 0: stop everything at its first end.")
    ] = 5,
) -> int:
    """Start both nodes without ``ros2 launch`` and keep them running; Ctrl-C stops everything.

    Example: ssada up --parameters vehicle.yaml --namespace /robot1 --camera front=/front/image_raw
    """
    _require_ros()
    from ssada_ros.up import UpOptions, run_up

    options = UpOptions(
        parameters=parameters,
        namespace=namespace,
        cameras=tuple(camera or ()),
        log_dir=None if log_dir == "-" else Path(log_dir),
        log_level=log_level,
        use_sim_time=use_sim_time,
        restarts=restarts,
        foxglove=foxglove,
    )
    run_up(options, say)
    return 0


def main() -> int:
    """Run the command line; returns the exit status."""
    return run(app)


def _require_ros() -> None:
    require("rclpy", extra="ros", purpose="this command starts ROS 2 nodes and")


def _annotator(name: str) -> Annotator:
    for known in ("oracle", "folder", "none"):
        if name == known:
            return known
    raise ConfigError(f"--annotator '{name}': oracle, folder or none")


if __name__ == "__main__":
    raise SystemExit(main())
