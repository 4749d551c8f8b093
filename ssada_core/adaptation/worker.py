"""The training worker: ``python -m ssada_core.adaptation.worker RUN_DIR`` (ARCHITECTURE contract 5).

Reads ``round.yaml``, trains, registers and deploys the challenger, measures it as deployed, writes
``result.json``. Killed at any instant, the same command goes on where it was: training at its last checkpoint,
registering and measuring from their beginning. It decides nothing.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssada_core.adaptation.expectations import Expectations, expect
from ssada_core.adaptation.measure import measure
from ssada_core.adaptation.roads import REFERENCE_FILE, describe_roads, expected_frames, roads
from ssada_core.adaptation.round import (
    CHALLENGER_FILE,
    MEASUREMENTS_FILE,
    RESULT_FILE,
    RoundResult,
    RoundSpec,
    read_result,
    read_round,
)
from ssada_core.adaptation.round_data import RoundData, gather, watched
from ssada_core.adaptation.sharing import Patience
from ssada_core.adaptation.worker_guards import (
    OUT_OF_MEMORY,
    Heartbeat,
    StopSignal,
    die_first,
    end_with_parent,
    exclusive,
    lower_priority,
    ran_out_of_memory,
)
from ssada_core.adaptation.worker_process import EXIT_STOPPED
from ssada_core.data.resized import ResizedSamples
from ssada_core.data.samples import Samples, spread
from ssada_core.errors import ModelError, SsadaError, WorkerError
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.deployment import INT8_FRAMES, deploy_for
from ssada_core.inference.load import load_engine, read_model
from ssada_core.labels import LabelSpace
from ssada_core.learning.loaders import TrainingData
from ssada_core.learning.trainer import Trainer, TrainingResult
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.store.files import read_json, write_json
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.pool import DATABASE_FILE
from ssada_core.store.pool_reader import PoolReader
from ssada_core.store.pool_schema import Database
from ssada_core.store.registry import ModelRegistry


def run_round(run_dir: Path, should_stop: StopSignal) -> RoundResult | None:
    """Do, or finish, the round in ``run_dir``; None if it was stopped before its end.

    Raises:
        SsadaError: if the round cannot be done; what was done stays for the next attempt.
    """
    if (run_dir / RESULT_FILE).exists():
        return read_result(run_dir)
    spec = read_round(run_dir)
    registry = ModelRegistry(Path(spec.registry_dir), spec.registry)
    beat = Heartbeat(run_dir).beat
    beat()
    data = watched(_gather(run_dir, spec, registry.manifest(spec.champion).labels()), beat)
    if spec.challenger:
        challenger, trained = spec.challenger, None
    else:
        trained = _train(run_dir, spec, registry, data, should_stop)
        if trained.result.stopped:
            return None
        beat()
        challenger = _register(run_dir, spec, registry, data, trained)
    _measure(run_dir, spec, registry, data, challenger)
    result = RoundResult(
        challenger=challenger,
        champion=spec.champion,
        iterations=trained.result.iterations if trained else 0,
        seconds=trained.result.seconds if trained else 0.0,
        losses=trained.result.losses if trained else {},
        class_weights=trained.class_weights if trained else [],
        case_labels=data.case_labels(),
        **_counts(data),
    )
    write_json(run_dir / RESULT_FILE, result.model_dump(mode="json"))
    return result


def bound_resources(spec: RoundSpec) -> None:
    """No more threads, and on a GPU no more memory, than the round may use: the masks need the rest."""
    torch.set_num_threads(spec.training.threads)
    cv2.setNumThreads(spec.training.threads)
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(spec.gpu_memory_share)


def _gather(run_dir: Path, spec: RoundSpec, label_space: LabelSpace) -> RoundData:
    file = Path(spec.pool_dir) / DATABASE_FILE
    if not file.is_file():
        raise WorkerError(f"{run_dir}: there is no frame pool in {spec.pool_dir}: name the pool that the node fills")
    # Only a reader: opening a whole pool cleans up, which the node that owns it has done.
    with closing(Database(file)) as database:
        return gather(PoolReader(file.parent, database), spec, run_dir, label_space)


@dataclass(frozen=True)
class Trained:
    """A trained network with what its manifest needs."""

    network: SegmentationNetwork
    parent: ModelManifest
    result: TrainingResult
    class_weights: list[float]


def _train(
    run_dir: Path, spec: RoundSpec, registry: ModelRegistry, data: RoundData, should_stop: StopSignal
) -> Trained:
    network, parent = read_model(registry.path(spec.champion))
    size = (parent.network.input_height, parent.network.input_width)

    def at_network_size(samples: Samples | None) -> Samples | None:
        return ResizedSamples(samples, size) if samples is not None and len(samples) else None

    trainer = Trainer(
        network,
        TrainingData(
            source=at_network_size(data.source),
            labelled=at_network_size(data.balanced()),
            unlabelled=at_network_size(data.unlabelled),
            sparse=data.balanced_sparse(),
        ),
        spec.training,
        run_dir=run_dir,
        class_iou=_class_iou(spec, registry, data, parent.labels().num_classes),
        device="cuda" if torch.cuda.is_available() else "cpu",
        should_stop=Patience(run_dir.parent, should_stop, Heartbeat(run_dir).beat),
    )
    with should_stop.during_training():
        result = trainer.run()  # returns at once if a killed attempt had already finished training
    return Trained(network, parent, result, trainer.class_weights)


def _class_iou(spec: RoundSpec, registry: ModelRegistry, data: RoundData, classes: int) -> NDArray[np.float64] | None:
    # On frames the model trained on IoU is too kind (METHOD §5): audit frames only.
    if len(data.audit) == 0:
        return None
    with closing(load_engine(registry.path(spec.champion), spec.engine)) as engine:
        return evaluate(engine, data.audit, classes).iou


def _register(run_dir: Path, spec: RoundSpec, registry: ModelRegistry, data: RoundData, trained: Trained) -> str:
    """Enter the challenger with its deployed form; an attempt that was killed in between left it there already."""
    path = run_dir / CHALLENGER_FILE
    if not path.exists():
        weights = trained.network.state_dict()
        version = _registered(registry, spec.champion, weights) or _add(run_dir, spec, registry, data, trained)
        write_json(path, {"version": version})
    return str(read_json(path)["version"])


def _registered(registry: ModelRegistry, champion: str, weights: Mapping[str, Tensor]) -> str | None:
    """The champion's child with exactly these weights: entered by an attempt that was killed before it noted so."""
    for version in reversed(registry.versions()):
        try:
            kept = registry.load_weights(version) if registry.manifest(version).parent == champion else {}
        except ModelError:
            continue  # some other version is damaged: that is not this round's business
        same = kept.keys() == weights.keys()
        if same and all(torch.equal(tensor, weights[name].cpu()) for name, tensor in kept.items()):
            return version
    return None


def _add(run_dir: Path, spec: RoundSpec, registry: ModelRegistry, data: RoundData, trained: Trained) -> str:
    manifest = ModelManifest(
        version="",
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        network=trained.parent.network,
        label_space=trained.parent.label_space,
        parent=spec.champion,
        data={**_counts(data), "pool": spec.pool_dir, "source_pack": spec.source_pack},
        training={
            "command": f"python -m ssada_core.adaptation.worker {run_dir}",
            "reason": spec.reason,
            "settings": spec.training.model_dump(mode="json"),
            "iterations": trained.result.iterations,
            "seconds": round(trained.result.seconds, 1),
            "losses": trained.result.losses,
        },
    )
    weights = trained.network.state_dict()
    return registry.add(weights, manifest, deploy=lambda model_dir: _deploy(model_dir, spec, data))


def _deploy(model_dir: Path, spec: RoundSpec, data: RoundData) -> None:
    """Build what will run, and describe the roads it was made for by what it answers on them."""
    frames = data.unlabelled if len(data.unlabelled) >= INT8_FRAMES else data.labelled
    for refused in deploy_for(model_dir, spec.engine, frames).refused:
        sys.stderr.write(f"{refused.name} is not deployed: {refused.reason}\n")
    with closing(load_engine(model_dir, spec.engine)) as engine:
        describe_roads(engine, roads(data), spec.reference_frames).save(model_dir / REFERENCE_FILE)


def _measure(run_dir: Path, spec: RoundSpec, registry: ModelRegistry, data: RoundData, challenger: str) -> None:
    versions = {"champion": spec.champion, "challenger": challenger, "first": spec.first}
    classes = registry.manifest(challenger).labels().num_classes
    engines = {version: load_engine(registry.path(version), spec.engine) for version in set(versions.values())}
    try:
        measurements = measure(
            {role: engines[version] for role, version in versions.items()},
            audit=data.audit,
            stamps_ns=data.audit_stamps_ns,
            source=spread(data.source, spec.source_frames_judged) if data.source is not None else None,
            labelled=data.labelled,
            num_classes=classes,
            domains=data.audit_domains,
            target=spec.target,
            cases=data.cases,
            case_ids=data.case_ids,
        )
        expected = expect(engines[challenger], engines[spec.champion], expected_frames(data), classes)
    finally:
        for engine in engines.values():
            engine.close()
    measurements.save(run_dir / MEASUREMENTS_FILE)
    Expectations(candidate=challenger, before=spec.champion, domains=expected).save(run_dir)


def _counts(data: RoundData) -> dict[str, int]:
    return {
        "labelled": len(data.labelled),
        "audit": len(data.audit),
        "unlabelled": len(data.unlabelled),
        "source": len(data.source) if data.source is not None else 0,
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status: 0 done, 1 failed, 3 stopped (resume by the same command)."""
    parser = argparse.ArgumentParser(prog="python -m ssada_core.adaptation.worker", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="folder with round.yaml")
    parser.add_argument("--parent", type=int, help="process id of the starting process: stop when it dies")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for another worker on the same folder")
    options = parser.parse_args(arguments)
    should_stop = StopSignal()
    try:
        should_stop.listen()
        result = _work(options.run_dir, options.parent, options.wait, should_stop)
    except KeyboardInterrupt:
        return EXIT_STOPPED
    except (SsadaError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        sys.stderr.write(f"not enough memory for the round: {OUT_OF_MEMORY}\n")
        return 1
    return EXIT_STOPPED if result is None else 0


def _work(run_dir: Path, parent: int | None, wait_s: float, should_stop: StopSignal) -> RoundResult | None:
    if parent is not None:
        end_with_parent(parent)
    spec = read_round(run_dir)
    if spec.low_priority:
        lower_priority()
    die_first()
    bound_resources(spec)
    with exclusive(run_dir, wait_s=wait_s):
        return run_round(run_dir, should_stop)


if __name__ == "__main__":
    raise SystemExit(main())
