"""The drift score on frames of the model's own road and of another: false alarms, delay, and both distributions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import Field

from ssada_core.adaptation.components import Component, Vectors, describe
from ssada_core.adaptation.drift import DriftSettings, DriftTracker, Frame
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import Samples, spread
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.load import load_engine
from ssada_core.labels import LabelSpace
from ssada_core.settings import Settings
from ssada_core.store.models import resolve_model

_SECOND = 1_000_000_000
ROAD = "source"


class DriftBench(Settings):
    """What is compared."""

    model: str = Field(description="Model reference.")
    source: str = Field(description="Frames that the model was made from.")
    same: tuple[str, ...] = Field(description="Unseen frames of the same road; each is a drive of its own.")
    changed: tuple[str, ...] = Field(description="Frames of other roads; each begins after frames of the same road.")
    described: int = Field(64, ge=16, description="Frames of the source that describe it.")
    rate: float = Field(1.0, gt=0, description="Frames per second.")
    drift: DriftSettings = Field(default_factory=DriftSettings)


def measure(bench: DriftBench, space: LabelSpace) -> dict[str, Any]:
    """Run the model over all frames and follow them.

    Returns:
        Plain figures: false alarms and frames on the same road, for each changed road the frame on which it was found
        (None: never), and the scores of all full windows.

    Raises:
        DataError: if frames cannot be read.
        EngineError: if the model cannot be run.
    """
    engine = load_engine(resolve_model(bench.model), EngineSettings(threads=1))
    road = Component.fit(_vectors(engine, spread(open_samples(bench.source, space), bench.described)), apart=True)
    drives = {name: _vectors(engine, open_samples(name, space)) for name in (*bench.same, *bench.changed)}
    engine.close()
    alarms, scores = 0, {"same": [], "changed": []}  # type: ignore[var-annotated]
    for name in bench.same:
        found, own = _follow(bench, road, drives[name])
        alarms += len(found)
        scores["same"] += own
    delays = {}
    for name in bench.changed:
        before = drives[bench.same[0]][: bench.drift.window]
        found, own = _follow(bench, road, np.concatenate([before, drives[name]]))
        delays[name] = found[0] - len(before) + 1 if found else None
        scores["changed"] += own[len(before) :]
    frames = sum(len(drives[name]) for name in bench.same)
    return {
        "settings": bench.model_dump(mode="json"),
        "frames": frames,
        "false_alarms": alarms,
        "found_after_frames": delays,
        "scores": scores,
    }


def _vectors(engine: Engine, samples: Samples) -> Vectors:
    rows = [describe(engine.infer([samples.image(index)], features=True)[0]) for index in range(len(samples))]
    return np.stack(rows)


def _follow(bench: DriftBench, road: Component, vectors: NDArray[np.float64]) -> tuple[list[int], list[float]]:
    """Frames on which a change was found, and the score of every full window."""
    tracker = DriftTracker({ROAD: road}, bench.drift, domain=ROAD)
    found, scores = [], []
    for index, vector in enumerate(vectors):
        change = tracker.observe(Frame(vector, round(index * _SECOND / bench.rate)))
        if index + 1 >= bench.drift.window:
            scores.append(round(tracker.score, 4))
        if change is not None and change.domain != ROAD:
            found.append(index)
            tracker.name("another")
    return found, scores


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Draw both distributions into a PNG file."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    scores = figures["scores"]
    top = max(max(scores["same"], default=1.0), max(scores["changed"], default=1.0), 1.1)
    bins = np.linspace(0, top, 60).tolist()
    for name, colour, words in (("same", "#30408f", "the model's own road"), ("changed", "#c98500", "another road")):
        axes.hist(scores[name], bins=bins, density=True, alpha=0.65, color=colour, label=words)
    axes.axvline(1.0, color="0.2", linestyle="--", label="bound")
    axes.set(xlabel="drift score of a window", ylabel="density")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
