"""``ssada bench`` with ``node`` and ``swap``; nothing here imports ROS until it is needed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ssada_core.commands.bench import app, parse_size, words
from ssada_core.commands.common import JsonOption, report, say
from ssada_core.errors import ConfigError, require
from ssada_core.inference.engine import EngineSettings
from ssada_core.settings import parse_settings

ModelOption = Annotated[str, typer.Option(help="Model reference, or random:ARCHITECTURE-BACKBONE.")]
NetworkSizeOption = Annotated[str, typer.Option(help="Height and width of the network, HxW.")]
BackendOption = Annotated[str, typer.Option(help="As engine.backend of the node.")]
PrecisionOption = Annotated[str, typer.Option(help="As engine.precision of the node.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="CPU threads of the engine; 0 leaves it to the backend.")]


@app.command("node")
def node(
    model: ModelOption = "sim-day",
    network_size: NetworkSizeOption = "384x640",
    sizes: Annotated[str, typer.Option(help="Height and width of the frames; 480x640,720x1280 and …")] = "",
    rates: Annotated[str, typer.Option(help="Frames per second, rising.")] = "5,10,15,20,25,30,40,50,60,80,100",
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of every measurement.")] = 6.0,
    turns: Annotated[int, typer.Option(min=0, help="Turns alone and beside a training round; 0: no training.")] = 4,
    turn_rate: Annotated[float, typer.Option(min=0.1, help="Frames per second beside the training.")] = 10.0,
    transport: Annotated[
        bool, typer.Option("--transport", help="Only count what arrives, without and with the Fast DDS profile.")
    ] = False,
    frames: Annotated[int, typer.Option(min=1, help="Frames of every count of --transport.")] = 300,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = 0,
    json_file: JsonOption = None,
) -> None:
    """Run the real node over DDS at rising rates: latency, what is added to the engine's own, the highest rate.

    Then, in turn, alone and beside a training round. With --transport: how many best-effort frames reach the node.

    Example: ssada bench node --model sim-day --json node.json
    """
    _require_ros()
    from ssada_ros.bench_node import NodeBench, measure_node, measure_transport

    default = "480x640,720x1280,1080x1920" if transport else "480x640,720x1280"
    bench = NodeBench(
        model=model,
        network_size=parse_size("--network-size", network_size),
        sizes=[parse_size("--sizes", size) for size in words(sizes or default)],
        rates=_rates(rates),
        seconds=seconds,
        turns=turns,
        turn_rate=turn_rate,
        engine=_engine(backend, precision, threads),
    )
    found = measure_transport(bench, log=_say, frames=frames) if transport else measure_node(bench, log=_say)
    report(found, json_file)


@app.command("swap")
def swap(
    model: ModelOption = "sim-day",
    network_size: NetworkSizeOption = "384x640",
    size: Annotated[str, typer.Option(help="Height and width of the frames, HxW.")] = "480x640",
    rate: Annotated[float, typer.Option(min=0.1, help="Frames per second.")] = 10.0,
    swaps: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    settle: Annotated[int, typer.Option(min=1, help="Frames between a swap and the request for the next.")] = 10,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = 0,
    json_file: JsonOption = None,
) -> None:
    """Swap between two model versions under a stream of frames: frames lost, and the longest gap between two masks.

    Example: ssada bench swap --model sim-day --swaps 20 --rate 10 --json swap.json
    """
    _require_ros()
    from ssada_ros.bench_swap import SwapBench, measure_swaps

    bench = SwapBench(
        model=model,
        network_size=parse_size("--network-size", network_size),
        size=parse_size("--size", size),
        rate=rate,
        swaps=swaps,
        settle=settle,
        engine=_engine(backend, precision, threads),
    )
    report(measure_swaps(bench, log=_say), json_file)


def _engine(backend: str, precision: str, threads: int) -> EngineSettings:
    values: dict[str, Any] = {"backend": backend, "precision": precision, "threads": threads}
    return parse_settings(EngineSettings, values, source="--backend, --precision")


def _rates(text: str) -> list[float]:
    try:
        found = [float(word) for word in words(text)]
    except ValueError as error:
        raise ConfigError(f"--rates '{text}': give numbers, such as 5,10,15") from error
    if not found or found[0] <= 0 or found != sorted(set(found)):
        raise ConfigError(f"--rates '{text}': give rising rates above 0, such as 5,10,15")
    return found


def _say(line: str) -> None:
    say(line)


def _require_ros() -> None:
    require("rclpy", extra="ros", purpose="this command starts ROS 2 nodes and")
