"""``ssada bench swap``: what it costs the masks when the model is exchanged again and again under a camera's stream."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssada_core.bench.machine import machine
from ssada_core.inference.engine import EngineSettings
from ssada_ros.bench_figures import swap_figures
from ssada_ros.bench_stage import BenchStage, running

SETTLE_FRAMES = 15
SWAP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class SwapBench:
    """What to measure.

    Attributes:
        model: reference to a model, or ``random:ARCHITECTURE-BACKBONE``; the second version is the same with its
            biases changed a little.
        network_size: height and width of the network.
        size: of the frames, height and width.
        rate: Hz of the camera.
        swaps: how many.
        settle: frames between a swap and the request for the next.
        engine: how the node runs the model.
    """

    model: str = "sim-day"
    network_size: tuple[int, int] = (384, 640)
    size: tuple[int, int] = (480, 640)
    rate: float = 10.0
    swaps: int = 20
    settle: int = 10
    engine: EngineSettings = field(default_factory=lambda: EngineSettings(precision="auto"))


def measure_swaps(bench: SwapBench, *, log: Callable[[str], None]) -> dict[str, Any]:
    """Swap between two versions under a stream.

    Args:
        bench: what to measure.
        log: told what goes on.

    Returns:
        What ``--json`` writes: frames lost, the longest gap between two masks, and how it was measured.

    Raises:
        SsadaError: if the model cannot be used, a process ended, or a swap did not happen.
    """
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory(prefix="ssada-bench-") as name:
        stage = BenchStage(Path(name), bench.model, bench.network_size, bench.engine)
        log("deploying two versions")
        versions = stage.add_versions(2)
        with running(stage) as node:
            node.drive(bench.size, bench.rate, SETTLE_FRAMES)
            log(f"{bench.swaps} swaps under frames at {bench.rate:g} Hz")
            drive = node.swap(
                {
                    "size": bench.size,
                    "rate": bench.rate,
                    "versions": versions,
                    "swaps": bench.swaps,
                    "settle": bench.settle,
                    "timeout_s": SWAP_TIMEOUT_S + bench.swaps * SWAP_TIMEOUT_S / 4,
                }
            )
    return {
        "model": bench.model,
        "network_size": f"{bench.network_size[0]}x{bench.network_size[1]}",
        "size": f"{bench.size[0]}x{bench.size[1]}",
        "rate_hz": bench.rate,
        "engine": bench.engine.model_dump(mode="json"),
        "load_average_before": load,
        "machine": machine(),
        **swap_figures(drive, bench.rate),
    }
