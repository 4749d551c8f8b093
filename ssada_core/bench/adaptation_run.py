"""One run of the adaptation benchmark, in a process of its own: ``python -m ssada_core.bench.adaptation_run DIR``.

It reads ``DIR/run.json`` and ends with ``DIR/result.json``; killed, the same command goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pydantic import Field

from ssada_core.adaptation.worker_guards import end_with_parent, exclusive
from ssada_core.bench.adaptation_choice import choose
from ssada_core.bench.adaptation_settings import BenchSettings, Recipe, recipe
from ssada_core.data.lists import open_samples
from ssada_core.data.resized import ResizedSamples
from ssada_core.data.samples import Samples, Subset
from ssada_core.errors import ConfigError, SsadaError
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import read_model
from ssada_core.inference.torch_engine import TorchEngine
from ssada_core.labels import LabelSpace, load_label_space
from ssada_core.learning.loaders import TrainingData
from ssada_core.learning.offline import PARTS
from ssada_core.learning.schedule import unlabelled_weight
from ssada_core.learning.settings import TrainingSettings
from ssada_core.learning.trainer import Trainer
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.settings import Settings, parse_settings
from ssada_core.store.files import read_json, write_json
from ssada_core.store.models import resolve_model

RUN_FILE, RESULT_FILE = "run.json", "result.json"


class RunSpec(Settings):
    """``run.json``: everything that decides a run's result."""

    setting: str = Field(..., description="Name of the setting.")
    seed: int = Field(..., ge=0, description="Of choice and training.")
    quick: bool = Field(False, description="A short training.")
    source_model: str = Field(..., description="Model to start from.")
    bench: BenchSettings


def run(run_dir: Path) -> dict[str, Any]:
    """Choose labels, train, measure.

    Returns:
        What ``result.json`` holds: mIoU on validation and held-out source frames in percent, labels used, seconds,
        network passes (images forward) of the training; with TUFL the share of validation pixels whose class changed.

    Raises:
        SsadaError: if data, model or training fail.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    spec = parse_settings(RunSpec, read_json(run_dir / RUN_FILE), source=str(run_dir / RUN_FILE))
    bench, chosen = spec.bench, recipe(spec.setting)
    space = load_label_space(bench.label_space)
    network, manifest = read_model(resolve_model(spec.source_model))
    if manifest.label_space["classes"] != list(space.classes):
        raise ConfigError(f"{spec.source_model} has other classes than label space '{bench.label_space}': name its own")
    size = (manifest.network.input_height, manifest.network.input_width)
    pool = open_samples(bench.data.pool, space)
    before = _labels(network, size, bench.data.validation, space) if chosen.mode == "tufl" else None
    began, cpu = time.monotonic(), time.process_time()
    result: dict[str, Any] = {"setting": spec.setting, "seed": spec.seed, "labels": 0, "passes": 0, "iterations": 0}
    if chosen.mode is not None:
        result |= _adapt(network, size, pool, space, spec, chosen, run_dir)
    result["seconds"] = round(time.monotonic() - began + result.pop("earlier_seconds", 0.0), 1)
    result["cpu_seconds"] = round(time.process_time() - cpu, 1)
    result |= _measure(network, size, bench, space)
    if before is not None:
        after = _labels(network, size, bench.data.validation, space)
        result["changed_share"] = float(np.mean([np.mean(a != b) for a, b in zip(before, after, strict=True)]))
    write_json(run_dir / RESULT_FILE, result)
    return result


def _adapt(
    network: SegmentationNetwork,
    size: tuple[int, int],
    pool: Samples,
    space: LabelSpace,
    spec: RunSpec,
    chosen: Recipe,
    run_dir: Path,
) -> dict[str, Any]:
    bench = spec.bench
    training, tufl = bench.training_of(chosen, seed=spec.seed, quick=spec.quick)
    with_engine = TorchEngine(network, size, EngineSettings(backend="torch"))
    labelled, known = choose(pool, chosen, with_engine, space.num_classes, bench.acquisition, seed=spec.seed)
    data = training_data(bench, chosen, pool, labelled, size, space)
    own = {name: getattr(tufl, name) for name in ("iterations", "learning_rate", "weight_decay", "freeze_batch_norm")}
    trainer = Trainer(
        network,
        data,
        training.model_copy(update=own) if chosen.mode == "tufl" else training,
        run_dir=run_dir,
        class_iou=known,
        device="cuda" if torch.cuda.is_available() else "cpu",
        tufl=tufl if chosen.mode == "tufl" else None,
    )
    began = time.monotonic()
    result = trainer.run()
    this_attempt = time.monotonic() - began
    return {
        "labels": len(labelled),
        "labelled": [pool.name(index) for index in labelled],
        "iterations": result.iterations,
        "passes": sum(passes(chosen, training, iteration) for iteration in range(result.iterations)),
        "earlier_seconds": max(result.seconds - this_attempt, 0.0),
        "losses": result.losses,
    }


def passes(chosen: Recipe, training: TrainingSettings, iteration: int = 0) -> int:
    """Images that go through the network forward and backward in one step, at most; 0 without a training.

    An unlabelled frame of SS-ADA counts four times: weak, two strong views, and the second batch's weak view (forward
    only), and not at all before the unlabelled loss begins; one of TUFL twice.
    """
    parts = PARTS[chosen.mode] if chosen.mode is not None else frozenset()
    if chosen.mode == "ssada" and unlabelled_weight(iteration, training) == 0 and training.mixing.mode == "none":
        parts -= {"unlabelled"}
    per_frame = {"source": 1, "labelled": 1, "unlabelled": 2 if chosen.mode == "tufl" else 4}
    mixed = training.mixing.mode if chosen.mode in {"ssada", "tufl"} else "none"
    extra = {"none": 0, "single": 1, "dual_soft": 2}[mixed] * training.unlabelled_batch
    return sum(per_frame[part] * int(getattr(training, f"{part}_batch")) for part in parts) + extra


def training_data(
    bench: BenchSettings, chosen: Recipe, pool: Samples, labelled: list[int], size: tuple[int, int], space: LabelSpace
) -> TrainingData:
    """What a run trains on: of each part what the setting's mode uses, resized to the network's ``size`` (h, w).

    Frames with a label are not among the unlabelled ones, as on a vehicle.
    """
    parts = PARTS[chosen.mode] if chosen.mode is not None else frozenset()
    rest = [index for index in range(len(pool)) if index not in labelled]
    return TrainingData(
        source=ResizedSamples(open_samples(bench.data.source, space), size) if "source" in parts else None,
        labelled=ResizedSamples(Subset(pool, labelled), size) if "labelled" in parts else None,
        unlabelled=ResizedSamples(Subset(pool, rest), size) if "unlabelled" in parts and rest else None,
    )


def _measure(
    network: SegmentationNetwork, size: tuple[int, int], bench: BenchSettings, space: LabelSpace
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for prefix, reference in (("", bench.data.validation), ("day_", bench.data.held_out)):
        if reference:
            engine = TorchEngine(network, size, EngineSettings(backend="torch"))
            summary = evaluate(engine, open_samples(reference, space), space.num_classes).summary(space)
            figures |= {f"{prefix}miou": summary["miou"], f"{prefix}iou": summary["iou"]}
    return figures


def _labels(network: SegmentationNetwork, size: tuple[int, int], reference: str, space: LabelSpace) -> list[Any]:
    engine = TorchEngine(network, size, EngineSettings(backend="torch", output_size="network"))
    samples = open_samples(reference, space)
    return [engine.infer([samples.image(index)])[0].label for index in range(len(samples))]


def main(arguments: list[str] | None = None) -> int:
    """Run the folder named on the command line, and no other process beside this one; errors are one line."""
    parser = argparse.ArgumentParser(prog="python -m ssada_core.bench.adaptation_run", description=__doc__)
    parser.add_argument("run_dir", type=Path, help=f"folder with {RUN_FILE}")
    parser.add_argument("--parent", type=int, help="process id of the starting process: end when it dies")
    options = parser.parse_args(arguments)
    try:
        if options.parent is not None:
            end_with_parent(options.parent)
        with exclusive(options.run_dir):
            run(options.run_dir)
    except SsadaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
