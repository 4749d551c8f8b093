"""Rounds on wrong labels, by the real worker and the real gate: what gets through, and what it costs.

    python test/end_to_end/poison.py --rounds 5 --out out/poison

Wrong are either the labels that are trained on (``train``) or also those that judge (``judged``). They are put into the
pool past the label check, which would have stopped some of them: the table says how many. The model is the shipped
day model, the road a simulated night; what a promotion costs is measured on frames and exact labels that no part of
the run saw. ``true`` labels are the control: they show that the gate lets something through at all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ssada_core.adaptation.gate import decide
from ssada_core.adaptation.gate_settings import GateSettings
from ssada_core.adaptation.measurements import Measurements
from ssada_core.adaptation.round import MEASUREMENTS_FILE, RoundSpec, read_result, write_round
from ssada_core.annotation.check import LabelCheckSettings, check_label
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import ArraySamples
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.data.source_pack import PackSamples, create_pack
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.deployment import deploy_for
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine, read_model
from ssada_core.labels import CAMVID
from ssada_core.learning.settings import RoundTrainingSettings
from ssada_core.store.models import resolve_model
from ssada_core.store.pool import Choice, FramePool, PoolSettings
from ssada_core.store.registry import ModelRegistry

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = (192, 320)
SECOND = 10**9
TRAINED, AUDIT, UNLABELLED, UNSEEN = 16, 12, 12, 40
ENGINE = EngineSettings(backend="onnxruntime", precision="fp32", threads=1)
POOL = PoolSettings(rate=1000, keep_free_share=0.0, standstill_threshold=0.0, duplicate_threshold=0.0)
TRAINING = RoundTrainingSettings(
    iterations=40,
    learning_rate=0.001,
    source_batch=2,
    labelled_batch=2,
    unlabelled_batch=1,
    crop_height=160,
    crop_width=160,
    checkpoint_every=1000,
    # The round that learns most from bad labels: no step back, no guard by what the model itself believes.
    freeze_batch_norm=True,
    threshold=0.0,
    unlabelled_start=0.0,
    class_weights="none",
    trained_share=1.0,
)
LENIENT = GateSettings(policy="lenient")
"""The policy that lets most through: what it stops, the others stop."""
KINDS = ("true", "shuffled", "constant", "another space", "flipped", "swapped")
ROAD, SIDEWALK, CAR, PEDESTRIAN = (CAMVID.classes.index(name) for name in ("road", "sidewalk", "car", "pedestrian"))


def wrong(label: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """The label that somebody gives instead of this one; uint8 H×W of ids that the space has."""
    rng = np.random.default_rng(seed)
    if kind == "shuffled":
        return rng.permutation(label.ravel()).reshape(label.shape)
    if kind == "constant":
        return np.full_like(label, rng.integers(CAMVID.num_classes))
    if kind == "another space":  # Cityscapes' order; ids that CamVid has not are ignored, as a careless tool would
        table = np.full(256, 255, np.uint8)
        table[: CAMVID.num_classes] = (10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 18)
        mapped = table[label]
        return np.where(mapped < CAMVID.num_classes, mapped, 255).astype(np.uint8)
    if kind == "flipped":  # 30 % of the patches get another class
        grid = rng.random((label.shape[0] // 16, label.shape[1] // 16)) < 0.3
        other = rng.integers(0, CAMVID.num_classes, grid.shape, dtype=np.uint8)
        chosen, classes = (
            cv2.resize(part.astype(np.uint8), label.shape[::-1], interpolation=cv2.INTER_NEAREST)
            for part in (grid, other)
        )
        return np.where((chosen > 0) & (label != 255), classes, label).astype(np.uint8)
    if kind == "swapped":  # one mistake, made always: the worst case for whoever judges by the same labels
        table = np.arange(256, dtype=np.uint8)
        table[[ROAD, SIDEWALK, CAR, PEDESTRIAN]] = (SIDEWALK, ROAD, PEDESTRIAN, CAR)
        return table[label]
    return label


@dataclass
class Case:
    """One kind of wrong labels over some rounds.

    Attributes:
        kind: see :data:`KINDS`.
        judged: the labels that judge are wrong in the same way.
        stopped: labels that the label check would have held or refused.
        labels: of so many.
        verdicts: of the lenient gate, in order; what it promotes is promoted.
        strict: of the strict gate, on the same measurements.
        changes: points of mIoU on exact labels by which each promoted model differs from the one before it.
        source: the same on the road that the model came from.
        first: points by which the last current model differs from the first one, on both roads.
    """

    kind: str
    judged: bool
    stopped: int = 0
    labels: int = 0
    verdicts: list[str] = field(default_factory=list)
    strict: list[str] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    source: list[float] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)


class Vehicle:
    """A registry with the day model, and a pool for each round."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.drive = SimulatedDrive(seed=seed, size=SIZE, rate=1.0)
        self.registry = ModelRegistry(root / "registry")
        self.pack = root / "source_pack.zip"
        day = open_samples("sim:day:100:0-3000:125", CAMVID)
        create_pack(day, CAMVID, self.pack, frames=24, seed=seed)
        network, manifest = read_model(resolve_model("sim-day"))
        shown = PackSamples(self.pack)
        self.registry.add(network.state_dict(), manifest, lambda folder: deploy_for(folder, ENGINE, shown) and None)
        self.registry.promote("v0001")
        self.exact = {name: self._unseen(name) for name in ("night", "day")}
        self._figures: dict[tuple[str, str], float] = {}

    def _unseen(self, domain: str) -> ArraySamples:
        pairs = [self.drive.frame(50_000 + 11 * index, domain) for index in range(UNSEEN)]
        return ArraySamples([image for image, _ in pairs], [label for _, label in pairs])

    def miou(self, version: str, domain: str) -> float:
        """mIoU in percent on exact labels that no round sees."""
        key = version, domain
        if key not in self._figures:
            with closing(load_engine(self.registry.path(version), ENGINE)) as engine:
                self._figures[key] = evaluate(engine, self.exact[domain], CAMVID.num_classes).miou
        return self._figures[key]

    def fill(self, pool_dir: Path, case: Case, number: int) -> None:
        """A pool of night frames with the case's labels; audit frames last among the labelled ones."""
        with (
            FramePool(pool_dir, POOL, label_space=CAMVID) as pool,
            closing(load_engine(self.registry.path(self.registry.current_or_fail()), ENGINE)) as engine,
        ):
            records = {}
            for index in range(TRAINED + AUDIT + UNLABELLED):
                step = 6 * (index + 100 * number)
                record = pool.add(self.drive.frame(step, "night")[0], camera="front", stamp_ns=SECOND * step).record
                assert record is not None
                records[record.id] = step
            ids = list(records)[: TRAINED + AUDIT]
            asked = pool.query([Choice(frame, 0.0, index >= TRAINED, "") for index, frame in enumerate(ids)])
            for record in asked:
                image, truth = self.drive.frame(records[record.id], "night")
                spoilt = case.judged or not record.audit
                label = wrong(truth, case.kind, record.id + 1000 * number) if spoilt else truth
                if spoilt:
                    (prediction,) = engine.infer([image])
                    checked = check_label(
                        label,
                        size=record.size,
                        label_space=CAMVID,
                        prediction=prediction.label,
                        confidence=prediction.confidence,
                        settings=LabelCheckSettings(),
                    )
                    case.labels += 1
                    case.stopped += checked.status != "accepted"
                pool.accept_label(str(record.query_id), label, "poison")

    def round(self, case: Case, number: int) -> None:
        """Fill a pool, train, judge, and promote what the gate lets through."""
        champion = self.registry.current_or_fail()
        pool_dir, run_dir = self.root / f"pool-{number}", self.root / f"round-{number}"
        self.fill(pool_dir, case, number)
        spec = RoundSpec(
            pool_dir=str(pool_dir),
            registry_dir=str(self.registry.root),
            champion=champion,
            first="v0001",
            source_pack=str(self.pack),
            low_priority=False,
            training=TRAINING.model_copy(update={"seed": number}),
            engine=ENGINE,
        )
        write_round(run_dir, spec)
        command = [sys.executable, "-m", "ssada_core.adaptation.worker", str(run_dir)]
        variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=variables, check=True)
        challenger = read_result(run_dir).challenger
        measurements = Measurements.load(run_dir / MEASUREMENTS_FILE)
        decision = decide(measurements, LENIENT, CAMVID)
        case.verdicts.append(decision.verdict)
        case.strict.append(decide(measurements, GateSettings(), CAMVID).verdict)
        if decision.verdict == "promote":
            self.registry.promote(challenger, decision.model_dump(mode="json"))
            case.changes.append(self.miou(challenger, "night") - self.miou(champion, "night"))
            case.source.append(self.miou(challenger, "day") - self.miou(champion, "day"))
        case.first = {name: self._since_first(name) for name in ("night", "day")}

    def _since_first(self, domain: str) -> float:
        return self.miou(self.registry.current_or_fail(), domain) - self.miou("v0001", domain)


CASES = tuple((kind, False) for kind in KINDS) + tuple((kind, True) for kind in KINDS[1:])


def run(out: Path, rounds: int, cases: tuple[tuple[str, bool], ...] = CASES, seed: int = 11) -> list[Case]:
    """Every case, each with a vehicle of its own."""
    done = []
    for kind, judged in cases:
        case = Case(kind, judged)
        vehicle = Vehicle(out / f"{kind.replace(' ', '-')}-{'judged' if judged else 'trained'}", seed)
        for number in range(rounds):
            vehicle.round(case, number)
        done.append(case)
        (vehicle.root / "case.json").write_text(json.dumps(asdict(case), indent=2), encoding="utf-8")
        sys.stdout.write(f"{row(case)}\n")
        sys.stdout.flush()
    return done


HEADER = (
    "| labels | that is | stopped by the label check | rounds | promoted by `lenient` | by `strict` | "
    "worst change at night | at night since the first | by day since the first |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def row(case: Case) -> str:
    """A line of the table."""
    promoted = case.verdicts.count("promote")
    worst = f"{min(case.changes):+.1f}" if case.changes else "–"
    return (
        f"| {case.kind} | {'trained on and judged by' if case.judged else 'trained on'} | "
        f"{case.stopped} of {case.labels} | {len(case.verdicts)} | {promoted} | {case.strict.count('promote')} | "
        f"{worst} | "
        f"{case.first.get('night', 0):+.1f} | {case.first.get('day', 0):+.1f} |"
    )


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/poison"), help="a new folder")
    parser.add_argument("--case", type=int, nargs="*", help=f"0 to {len(CASES) - 1}; by default all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cases = CASES if options.case is None else tuple(CASES[index] for index in options.case)
    sys.stdout.write(f"{HEADER}\n")
    run(options.out, options.rounds, cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
