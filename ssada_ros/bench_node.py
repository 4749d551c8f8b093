"""``ssada bench node``: the real node over DDS — what it adds to the engine, how fast it can go, beside a training.

The node runs as it does in a vehicle; a driver in a process of its own is camera and subscriber. What the node spent
on a frame is in its own words (``~/<camera>/timing``).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssada_core.bench.machine import machine, percentiles
from ssada_core.inference.engine import EngineSettings
from ssada_ros.bench_figures import Drive, figures, latencies_ms
from ssada_ros.bench_round import paused_round
from ssada_ros.bench_stage import BenchStage, NodeUnderTest, running

Size = tuple[int, int]
Log = Callable[[str], None]

TRANSPORT_FRAMES = 300
TRANSPORT_RATE = 15.0
MIN_FRAMES = 20
SETTLE_FRAMES = 15
"""Driven before anything is measured: caches, clocks and the middleware's memory."""


@dataclass(frozen=True)
class NodeBench:
    """What to measure.

    Attributes:
        model: reference to a model, or ``random:ARCHITECTURE-BACKBONE``.
        network_size: height and width of the network.
        sizes: of the frames, height and width.
        rates: Hz, rising; a size ends at the first rate at which frames are dropped.
        seconds: of every rate, and of every turn beside the training.
        turns: how often alone and beside a training take turns; 0 leaves the training out.
        turn_rate: Hz of the frames while a round trains.
        engine: how the node runs the model.
    """

    model: str = "sim-day"
    network_size: Size = (384, 640)
    sizes: Sequence[Size] = ((480, 640), (720, 1280))
    rates: Sequence[float] = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100)
    seconds: float = 6.0
    turns: int = 4
    turn_rate: float = 10.0
    engine: EngineSettings = field(default_factory=lambda: EngineSettings(precision="auto"))


def measure_node(bench: NodeBench, *, log: Log) -> dict[str, Any]:
    """Rising rates for every size, then in turn alone and beside a training round.

    Args:
        bench: what to measure.
        log: gets a line for every drive.

    Returns:
        What ``--json`` writes: ``rates``, ``highest_rate_hz``, ``training`` and how it was measured.

    Raises:
        SsadaError: if the model cannot be used, or a process ended.
    """
    found = _circumstances(bench)
    with tempfile.TemporaryDirectory(prefix="ssada-bench-") as name:
        stage = BenchStage(Path(name), bench.model, bench.network_size, bench.engine)
        log("deploying the model")
        stage.add_versions(1)
        with running(stage) as node:
            rows = [row for size in bench.sizes for row in _rising(node, bench, size, log)]
            found["rates"] = rows
            found["highest_rate_hz"] = {_words(size): _highest(rows, size) for size in bench.sizes}
            if bench.turns:
                found["training"] = _beside_training(node, bench, stage, log)
    return found


def measure_transport(bench: NodeBench, *, log: Log, frames: int = TRANSPORT_FRAMES) -> dict[str, Any]:
    """How many best-effort frames of every size reach the node, as Fast DDS comes and with the shipped profile.

    Arguments, result and errors as for :func:`measure_node`; the figures are under ``transport``.
    """
    found = _circumstances(bench)
    rows = []
    with tempfile.TemporaryDirectory(prefix="ssada-bench-") as name:
        stage = BenchStage(Path(name), bench.model, bench.network_size, bench.engine)
        log("deploying the model")
        stage.add_versions(1)
        for size in bench.sizes:
            for profile in (False, True):
                with running(stage, profile=profile, log=f"logs-{_words(size)}-{profile}") as node:
                    drive = node.drive(size, TRANSPORT_RATE, frames)
                row = {"size": _words(size), "profile": profile, "rate_hz": TRANSPORT_RATE, **figures(drive)}
                with_it = "with the profile" if profile else "without a profile"
                log(f"{_words(size)} {with_it}: {drive.received} of {len(drive.sent)} frames reached the node")
                rows.append(row)
    return {**found, "reliability": "best_effort", "transport": rows}


def _circumstances(bench: NodeBench) -> dict[str, Any]:
    return {
        "model": bench.model,
        "network_size": _words(bench.network_size),
        "engine": bench.engine.model_dump(mode="json"),
        "load_average_before": round(os.getloadavg()[0], 2),
        "machine": machine(),
    }


def _rising(node: NodeUnderTest, bench: NodeBench, size: Size, log: Log) -> list[dict[str, Any]]:
    """One row per rate, up to the first with a frame dropped or lost."""
    rows = []
    node.drive(size, bench.rates[0], SETTLE_FRAMES)
    for rate in bench.rates:
        drive = node.drive(size, rate, max(MIN_FRAMES, round(rate * bench.seconds)))
        row = {"size": _words(size), "rate_hz": rate, **figures(drive)}
        rows.append(row)
        log(
            f"{_words(size)} at {rate:g} Hz: {row['masks']} of {row['frames']} masks, "
            f"latency {row['latency_ms']['p50']} ms, of these {row['overhead_ms']['p50']} not the engine's"
        )
        if drive.lost:
            break
    return rows


def _highest(rows: Sequence[dict[str, Any]], size: Size) -> float | None:
    """The highest rate at which every frame was answered; None if there was none."""
    whole = [row["rate_hz"] for row in rows if row["size"] == _words(size) and row["masks"] == row["frames"]]
    return max(whole, default=None)


def _beside_training(node: NodeUnderTest, bench: NodeBench, stage: BenchStage, log: Log) -> dict[str, Any]:
    size, rate = bench.sizes[0], bench.turn_rate
    frames = max(MIN_FRAMES, round(rate * bench.seconds))
    alone: list[Drive] = []
    beside: list[Drive] = []
    log("starting a training round beside the node")
    with paused_round(stage.folder, stage.registry, bench.network_size, bench.engine) as training:
        started = training.iteration
        for _ in range(bench.turns):
            alone.append(node.drive(size, rate, frames))
            with training.going_on():
                beside.append(node.drive(size, rate, frames))
            log(f"latency {_p50(alone[-1])} ms alone, {_p50(beside[-1])} ms beside the training")
        steps = training.iteration - started
    found = {"alone": _together(alone), "beside": _together(beside)}
    ratios = {
        f"{name}_ratio": round(found["beside"]["latency_ms"][name] / found["alone"]["latency_ms"][name], 3)
        for name in ("p50", "p90", "p99")
    }
    return {"size": _words(size), "rate_hz": rate, "turns": bench.turns, "training_steps": steps, **found, **ratios}


def _p50(drive: Drive) -> float | None:
    return percentiles(latencies_ms(drive)["latency"])["p50"]


def _together(drives: Sequence[Drive]) -> dict[str, Any]:
    latencies = [latency for drive in drives for latency in latencies_ms(drive)["latency"]]
    return {
        "frames": sum(len(drive.sent) for drive in drives),
        "lost": sum(drive.lost for drive in drives),
        "latency_ms": percentiles(latencies),
        "turns_p50_ms": [_p50(drive) for drive in drives],
    }


def _words(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
