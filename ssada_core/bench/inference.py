"""Every backend on the same frames, in turn, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.bench.children import Child
from ssada_core.bench.machine import machine
from ssada_core.bench.model_at_size import ANYTHING, CALIBRATION_FRAMES, write_at_size
from ssada_core.bench.rows import REFERENCE, Row, limit, rows
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import spread
from ssada_core.errors import EngineError
from ssada_core.inference.export import deploy
from ssada_core.inference.load import read_manifest, read_model
from ssada_core.inference.targets import installed_targets
from ssada_core.networks.cost import flops
from ssada_core.store.model_files import seal

Array = NDArray[np.uint8]
SHOWN_FRAMES = 4
"""Different frames that the engines are timed and compared on, in turn."""
PER_TURN = 3
"""Frames an engine gets before the next has its turn: the first of them finds the caches full of others' data."""
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "tensorrt")


@dataclass(frozen=True)
class InferenceBench:
    """What to measure.

    Attributes:
        model: reference to a model, or ``random:ARCHITECTURE-BACKBONE``.
        size: height and width of the network, and of the frames unless ``frame_size`` says otherwise.
        backends: names; none means all.
        precisions: names; none means all.
        threads: of every engine; 0 means as many as this process may use.
        turns: how often each engine has its turn.
        data: frames to calibrate int8 on and to run.
        frame_size: height and width of the frames.
    """

    model: str
    size: tuple[int, int]
    backends: Sequence[str] = ()
    precisions: Sequence[str] = ()
    threads: int = 0
    turns: int = 20
    data: str = "sim:day"
    frame_size: tuple[int, int] | None = None


@dataclass
class _Measured:
    row: Row
    startup_s: float
    load_s: float
    seconds: list[float] = field(default_factory=list)
    agreement: float = 0.0
    peak_rss_mb: float = 0.0


def measure(
    bench: InferenceBench, *, log: Callable[[str], None], on_turn: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Deploy the model in a folder of its own, and measure every row in turn.

    Args:
        bench: what to measure.
        log: gets a line for what cannot be measured.
        on_turn: called with the turns done and all of them.

    Returns:
        ``results``, ``roofline``, ``skipped`` and how it was measured: what ``--json`` writes.

    Raises:
        SsadaError: if the model cannot be used, or a setting is unknown.
    """
    chosen = rows(bench.backends, bench.precisions)
    threads = bench.threads or len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="ssada-bench-") as name:
        folder = Path(name)
        model = _prepare(bench, folder / "model", folder / "frames.npy")
        gflop = flops(read_model(model)[0], bench.size) / 1e9
        measured, rates, skipped = _in_turn(chosen, folder, threads, bench.turns, on_turn)
    for reason in skipped:
        log(f"{reason['backend']} {reason['precision']}: not measured: {reason['reason']}")
    roofline = {kind: float(np.median([rate[kind] for rate in rates])) for kind in rates[0]}
    results = [_figures(one, bench.size, gflop, roofline) for one in measured]
    return {
        "model": bench.model,
        "size": _words(bench.size),
        "frame_size": _words(bench.frame_size or bench.size),
        "threads": threads,
        "samples": bench.turns * PER_TURN,
        "load_average_before": round(load, 2),
        "machine": machine(),
        "packages": _versions(),
        "roofline": {**{kind: round(rate, 1) for kind, rate in roofline.items()}, "model_gflop": round(gflop, 3)},
        "results": results,
        "skipped": skipped,
    }


def _prepare(bench: InferenceBench, model: Path, frames_file: Path) -> Path:
    """The model at the size asked for, deployed for every backend, and the frames that all get."""
    write_at_size(bench.model, model, bench.size)
    samples = spread(open_samples(bench.data, read_manifest(model).labels()), CALIBRATION_FRAMES)
    height, width = bench.frame_size or bench.size
    frames = [np.asarray(cv2.resize(samples.image(i), (width, height)), np.uint8) for i in range(len(samples))]
    # Accurate or not, it is measured here; the agreement stands beside the speed.
    deploy(model, targets=installed_targets(), frames=frames, quantisation=ANYTHING)
    seal(model, read_manifest(model))
    np.save(frames_file, np.stack(frames[:: max(1, len(frames) // SHOWN_FRAMES)][:SHOWN_FRAMES]))
    return model


def _in_turn(
    chosen: Sequence[Row],
    folder: Path,
    threads: int,
    turns: int,
    on_turn: Callable[[int, int], None] | None,
) -> tuple[list[_Measured], list[dict[str, float]], list[dict[str, str]]]:
    with ExitStack() as stack:
        roof = stack.enter_context(Child("roofline", {"kind": "roofline", "threads": threads}, threads=threads))
        roof.wait_until_ready()
        children: dict[Row, Child] = {}
        measured: list[_Measured] = []
        skipped: list[dict[str, str]] = []
        for row in chosen:
            child = stack.enter_context(Child(row.name, _spec(row, folder, threads), threads=threads))
            try:
                measured.append(_Measured(row, *child.wait_until_ready()))
                children[row] = child
            except EngineError as error:
                skipped.append({"backend": row.backend, "precision": row.precision, "reason": str(error)})
        rates = []
        for turn in range(turns):
            rates.append({kind: float(rate) for kind, rate in roof.ask("run", 1).items()})
            for one in measured:
                one.seconds += children[one.row].ask("run", PER_TURN)["seconds"]
            if on_turn is not None:
                on_turn(turn + 1, turns)
        _compare(measured, children, folder)
    return measured, rates, skipped


def _spec(row: Row, folder: Path, threads: int) -> dict[str, Any]:
    settings = {"backend": row.backend, "precision": row.engine_precision, "threads": threads}
    return {
        "kind": "engine",
        "model": str(folder / "model"),
        "frames": str(folder / "frames.npy"),
        "settings": settings,
        "layout": row.layout,
    }


def _compare(measured: Sequence[_Measured], children: Mapping[Row, Child], folder: Path) -> None:
    """Memory first: what is only needed for the comparison does not count."""
    for one in measured:
        one.peak_rss_mb = float(children[one.row].ask("memory")["peak_rss_mb"])
    labels = {
        one.row: np.load(children[one.row].ask("labels", str(folder / f"{one.row.name}.npy"))["labels"])
        for one in measured
    }
    reference = next((row for row in labels if (row.backend, row.precision) == REFERENCE), None)
    if reference is None:
        raise EngineError("torch fp32 could not be measured, and all others are compared with it: see above")
    for one in measured:
        one.agreement = float(np.mean(labels[one.row] == labels[reference]))


def _figures(one: _Measured, size: tuple[int, int], gflop: float, roofline: Mapping[str, float]) -> dict[str, Any]:
    p50, p90, p99 = np.percentile(np.asarray(one.seconds) * 1e3, [50, 90, 99])
    most = limit(one.row, roofline)
    return {
        "backend": one.row.backend,
        "precision": one.row.precision,
        "size": _words(size),
        "latency_ms": {"p50": round(float(p50), 2), "p90": round(float(p90), 2), "p99": round(float(p99), 2)},
        "fps": round(1 / float(np.mean(one.seconds)), 2),
        "agreement": round(one.agreement, 6),
        "peak_rss_mb": round(one.peak_rss_mb, 1),
        "startup_s": round(one.startup_s, 2),
        "load_s": round(one.load_s, 2),
        "roofline_share": None if most is None else round(gflop / (float(p50) / 1e3) / most, 3),
    }


def _words(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES if find_spec(name) is not None}
