"""Honest rounds: a real round of the real worker on correct labels, judged as on a vehicle, for several seeds.

Every round begins from the same model and pool; the seed decides which frames are asked and how training goes. What
the gate said stands beside what is true on frames that nobody saw.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ssada_core.adaptation.conductor import MOST_ASKED
from ssada_core.adaptation.gate import Decision, GateSettings, Measurements, decide
from ssada_core.adaptation.queries import choose
from ssada_core.adaptation.round import MEASUREMENTS_FILE, RESULT_FILE, RoundSpec, read_result, write_round
from ssada_core.adaptation.scorer import PoolScorer
from ssada_core.adaptation.worker_process import LOCK_TIMEOUT_S
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import Samples, jpeg_of
from ssada_core.data.source_pack import create_pack
from ssada_core.errors import WorkerError
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine
from ssada_core.labels import LabelSpace
from ssada_core.learning.settings import AcquisitionSettings, RoundTrainingSettings
from ssada_core.settings import Settings
from ssada_core.store.models import resolve_model
from ssada_core.store.pool import Choice, FramePool, FrameRecord, PoolSettings
from ssada_core.store.registry import ModelRegistry

_SECOND = 1_000_000_000
_ENGINE = EngineSettings(backend="torch", threads=1)


class HonestRounds(Settings):
    """What is trained and on what."""

    model: str = Field(description="Model to start with.")
    pool: str = Field(description="Labelled frames of the new road, in the drive's order; labels answer queries.")
    validation: str = Field(description="Labelled frames of it that nobody sees: the true gain.")
    source: str = Field(description="Labelled source frames, for the source pack.")
    out: str = Field("out/honest", description="Folder; finished rounds are kept.")
    labels: int = Field(16, ge=2, description="Labels, every fourth to judge by.")
    rate: float = Field(1.0, gt=0, description="Frames of the pool per second.")
    seeds: tuple[int, ...] = Field((0, 1, 2), description="One round each.")
    source_frames: int = Field(96, ge=8, description="Frames of the source pack.")
    training: RoundTrainingSettings = Field(default_factory=RoundTrainingSettings)


def run(bench: HonestRounds, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """Train and judge a round for every seed; one row each.

    Raises:
        SsadaError: if data, model or a round fail.
    """
    return [_Round(bench, seed, log).run() for seed in bench.seeds]


class _Round:
    """One seed's vehicle."""

    def __init__(self, bench: HonestRounds, seed: int, log: Callable[[str], None]) -> None:
        self._bench, self._seed, self._log = bench, seed, log
        self._root = Path(bench.out) / f"seed-{seed}"
        self._registry = ModelRegistry(self._root / "registry")
        if self._registry.current() is None:
            self._registry.promote(self._registry.adopt(resolve_model(bench.model)))
        self._space: LabelSpace = self._registry.manifest(self._registry.versions()[0]).labels()
        self._frames = open_samples(bench.pool, self._space)
        self._pack = self._root / "source_pack.zip"
        if not self._pack.exists():
            source = open_samples(bench.source, self._space)
            create_pack(source, self._space, self._pack, frames=bench.source_frames, seed=seed)

    def run(self) -> dict[str, Any]:
        """Label, train, judge, look once more where the gate asks for it."""
        settings = PoolSettings(rate=1000, keep_free_share=0.0, standstill_threshold=0.0, duplicate_threshold=0.0)
        with FramePool(self._root / "pool", settings, label_space=self._space) as pool:
            if not pool.count(states=["labelled"]):
                self._label(pool, self._choose(pool))
            measured = self._work("round-1", pool)
            challenger = read_result(self._root / "round-1").challenger
            looks = {policy: self._decide(measured, policy) for policy in ("strict", "lenient")}
            needed = looks["strict"].frames_needed
            if looks["strict"].verdict == "undecided" and needed <= MOST_ASKED:
                if not (self._root / "round-2").exists():
                    self._label(pool, self._ask_audit(pool, needed))
                looks["strict, second look"] = self._decide(self._work("round-2", pool, challenger), "strict")
            labels = pool.count(states=["labelled"])
        row = {"seed": self._seed, "labels": labels, **self._truth(challenger)}
        row["verdicts"] = {
            name: {"verdict": each.verdict, "audit_frames": each.audit_frames, "words": each.words}
            for name, each in looks.items()
        }
        verdicts = ", ".join(f"{name}: {each.verdict}" for name, each in looks.items())
        self._log(f"seed {self._seed}: true gain {row['gain']:+.1f} points; {verdicts}")
        return row

    def _choose(self, pool: FramePool) -> list[FrameRecord]:
        scorer = PoolScorer(pool, self._registry, _ENGINE, self._log)
        scorer.use(self._registry.current_or_fail())
        for index in range(len(self._frames)):
            stamp = round(index * _SECOND / self._bench.rate)
            jpeg = jpeg_of(self._frames, index)
            added = pool.add(self._frames.image(index), jpeg=jpeg, camera="front", stamp_ns=stamp)
            if added.record is not None:
                scorer.enqueue(added.record)
        while scorer.score_next():
            pass
        acquisition = AcquisitionSettings()
        chosen = choose(
            pool, scorer.candidates(), version=scorer.version, count=self._bench.labels, iou=None,
            settings=acquisition, seed=self._seed,
        )  # fmt: skip
        scorer.close()
        return chosen

    def _ask_audit(self, pool: FramePool, count: int) -> list[FrameRecord]:
        buffered = pool.frames(states=["buffered"])
        order = np.random.default_rng([self._seed, 2]).permutation(len(buffered))[:count]
        return pool.query([Choice(buffered[index].id, 0.0, audit=True, reason="") for index in order])

    def _label(self, pool: FramePool, records: Sequence[FrameRecord]) -> None:
        for record in records:
            label = self._frames.label(round(record.stamp_ns * self._bench.rate / _SECOND))
            if label is not None:
                pool.accept_label(str(record.query_id), label, "oracle")

    def _work(self, name: str, pool: FramePool, challenger: str = "") -> Measurements:
        run_dir = self._root / name
        if not (run_dir / RESULT_FILE).exists():
            spec = RoundSpec(
                pool_dir=str(pool.root.resolve()),
                registry_dir=str(self._registry.root.resolve()),
                champion=self._registry.current_or_fail(),
                first=self._registry.current_or_fail(),
                source_pack=str(self._pack.resolve()),
                challenger=challenger,
                low_priority=False,
                training=self._bench.training.model_copy(update={"seed": self._seed}),
                engine=_ENGINE,
            )
            write_round(run_dir, spec)
            command = [sys.executable, "-m", "ssada_core.adaptation.worker", str(run_dir)]
            # The worker of a benchmark that was killed may still be writing its checkpoint.
            command += ["--parent", str(os.getpid()), "--wait", str(LOCK_TIMEOUT_S)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise WorkerError(f"the round in {run_dir} failed: {done.stderr.strip().splitlines()[-1:]}")
        return Measurements.load(run_dir / MEASUREMENTS_FILE)

    def _decide(self, measured: Measurements, policy: str) -> Decision:
        return decide(measured, GateSettings.model_validate({"policy": policy}), self._space)

    def _truth(self, challenger: str) -> dict[str, Any]:
        unseen = open_samples(self._bench.validation, self._space)
        before, after = (self._miou(version, unseen) for version in (self._registry.current_or_fail(), challenger))
        return {"before": before, "after": after, "gain": after - before}

    def _miou(self, version: str, samples: Samples) -> float:
        engine = load_engine(self._registry.path(version), _ENGINE)
        value = evaluate(engine, samples, self._space.num_classes).miou
        engine.close()
        return value


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rounds as a table, for ``docs/results/gate.md``."""
    looks = ("lenient", "strict", "strict, second look")
    lines = [
        f"| seed | mIoU before → after on unseen frames | labels | {' | '.join(looks)} |",
        f"| ---: | ---: | ---: | {' | '.join('---' for _ in looks)} |",
    ]
    for row in rows:
        cells = []
        for look in looks:
            found = row["verdicts"].get(look)
            cells.append(f"{found['verdict']} ({found['audit_frames']} audit frames)" if found else "–")
        change = f"{row['before']:.1f} → {row['after']:.1f} ({row['gain']:+.1f})"
        lines.append(f"| {row['seed']} | {change} | {row['labels']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
