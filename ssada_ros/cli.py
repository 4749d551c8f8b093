"""The ``ssada`` command: the core's commands, and those that start nodes."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ssada_core.cli import app
from ssada_core.commands.common import console, report, run
from ssada_core.errors import ConfigError, SsadaError, require
from ssada_ros.demo_options import Annotator, DemoOptions


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
    console.print(f"report: {out / 'report.html'} · pictures: {out / 'strip.png'} · figures: {out / 'summary.json'}")


@app.command("up")
def up(
    parameters: Annotated[Path | None, typer.Option(help="ROS parameters file for both nodes.")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the nodes, such as /robot1.")] = "",
    log_dir: Annotated[Path, typer.Option(help="Folder of the nodes' logs.")] = Path("ssada/logs"),
    log_level: Annotated[str, typer.Option(help="debug, info, warn, error or fatal.")] = "",
    use_sim_time: Annotated[bool, typer.Option(help="Take the time from /clock.")] = False,
) -> int:
    """Start both nodes without ``ros2 launch``; Ctrl-C stops everything.

    Example: ssada up --parameters config/ssada.yaml
    """
    _require_ros()
    from ssada_ros.processes import Supervisor, main_nodes

    if parameters is not None and not parameters.is_file():
        raise ConfigError(f"--parameters {parameters}: no such file")
    nodes = main_nodes(parameters_file=parameters, namespace=namespace, log_level=log_level, use_sim_time=use_sim_time)
    # SIGTERM, as systemd sends it, ends like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Supervisor(nodes, log_dir) as supervisor:
        console.print(f"running: {', '.join(node.name for node in nodes)}; logs in {log_dir}; Ctrl-C stops")
        try:
            while True:
                time.sleep(0.5)
                for name, status in supervisor.poll().items():
                    if status is not None:
                        tail = supervisor.log_tail(name, lines=1)
                        raise SsadaError(f"{name} ended with status {status}: {tail}")
        except KeyboardInterrupt:
            console.print("stopping")
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
