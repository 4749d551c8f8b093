"""One engine, or the roofline, in a process of its own: ``python -m ssada_core.bench.inference_child``.

A line of JSON on standard input is a job, a line on standard output its answer. So every backend has the machine's
memory to itself, and the parent decides whose turn it is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssada_core.errors import SsadaError
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.load import load_engine

Answer = dict[str, Any]
DEFAULT_LAYOUT = "default"
"""Torch's own order of axes; anything else is how :class:`TorchEngine` runs in the product (``channels_last``)."""


class EngineRunner:
    """Answers the parent's questions about one engine."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """Load the engine and answer the first frame.

        Raises:
            SsadaError: if the engine cannot be loaded.
        """
        self._frames = list(np.load(spec["frames"], allow_pickle=False))
        settings = EngineSettings.model_validate(spec["settings"])
        start = time.perf_counter()
        self._engine = _open(Path(spec["model"]), settings, spec["layout"])
        self._engine.infer(self._frames[:1])
        self.load_s = time.perf_counter() - start
        self._next = 0

    def run(self, count: int) -> Answer:
        """Seconds of so many frames, one after another, as a camera would bring them."""
        seconds = []
        for _ in range(count):
            frame = self._frames[self._next % len(self._frames)]
            self._next += 1
            start = time.perf_counter()
            self._engine.infer([frame])
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def labels(self, path: str) -> Answer:
        """Write the labels of all frames, uint8 [N,H,W]."""
        np.save(path, np.stack([prediction.label for prediction in self._engine.infer(self._frames)]))
        return {"labels": path}


class RooflineRunner:
    """Answers with the rates of matrix products."""

    load_s = 0.0

    def __init__(self, spec: Mapping[str, Any]) -> None:
        from ssada_core.bench.roofline import Roofline

        self._roofline = Roofline(int(spec["threads"]))

    def run(self, _: int) -> Answer:
        """One sample of each kind of product."""
        return dict(self._roofline.sample())


def main() -> int:
    """Serve the parent until it closes standard input."""
    spec = json.loads(sys.stdin.readline())
    try:
        runner = RooflineRunner(spec) if spec["kind"] == "roofline" else EngineRunner(spec)
    except SsadaError as error:
        _say({"error": str(error)})
        return 1
    _say({"ready": True, "load_s": runner.load_s})
    jobs: dict[str, Callable[[Any], Answer]] = {"run": runner.run, "memory": lambda _: {"peak_rss_mb": peak_rss_mb()}}
    if isinstance(runner, EngineRunner):
        jobs["labels"] = runner.labels
    for line in sys.stdin:
        (name, value), *_ = json.loads(line).items()
        _say(jobs[name](value))
    return 0


def peak_rss_mb() -> float:
    """Most memory that this process ever had in RAM, in 10⁶ bytes.

    From /proc and not ``getrusage``, whose figure a child inherits from the process that started it.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _open(model_dir: Path, settings: EngineSettings, layout: str) -> Engine:
    if layout != DEFAULT_LAYOUT:
        return load_engine(model_dir, settings)
    from ssada_core.inference.load import read_model
    from ssada_core.inference.torch_engine import TorchEngine

    network, manifest = read_model(model_dir)
    size = manifest.network.input_height, manifest.network.input_width
    return TorchEngine(network, size, settings, channels_last=False)


def _say(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
