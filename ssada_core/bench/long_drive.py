"""A long simulated drive through changing light and weather: with gate, replay and watch, and without them.

Both arms learn by real rounds of the real worker, from the same model, with as many labels. The guarded one is the
adaptation as it ships. The other one is what is usual: it trains on the road of now alone and swaps unguarded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import Field

from ssada_core.adaptation.adapter import Adapter
from ssada_core.adaptation.cycle import CycleSettings
from ssada_core.adaptation.drift import DriftSettings
from ssada_core.adaptation.gate_settings import GateSettings
from ssada_core.adaptation.settings import AdaptationSettings, ScoringEngineSettings
from ssada_core.adaptation.watch import WatchSettings
from ssada_core.annotation.submit import SubmitResult
from ssada_core.data.samples import Array
from ssada_core.data.simulated_drive import SimulatedDrive, SimulatedSamples
from ssada_core.data.source_pack import create_pack
from ssada_core.errors import WorkerError
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine
from ssada_core.learning.settings import AcquisitionSettings, RoundTrainingSettings
from ssada_core.settings import Settings
from ssada_core.store.models import resolve_model
from ssada_core.store.pool import FrameRecord, PoolSettings
from ssada_core.store.registry import ModelRegistry

ARMS = ("guarded", "unguarded")
DOMAINS = ("day", "night", "rain")
_SECOND = 1_000_000_000
_PAUSE_S = 120
"""Seconds between two phases of the drive."""
_ENGINE = EngineSettings(backend="torch", threads=1)


class LongDrive(Settings):
    """The drive and the rounds."""

    model: str = Field("sim-day", description="Model to start with.")
    out: str = Field("out/long_drive", description="Folder of both arms; finished ones are kept.")
    phases: tuple[str, ...] = Field(("day", "night", "rain", "day", "night"), description="Light and weather.")
    rounds: tuple[int, ...] = Field((1, 2, 2, 1, 2), description="Trained rounds in each phase.")
    frames: int = Field(60, ge=20, description="Frames driven before each round, one a second.")
    labels: int = Field(12, ge=4, description="Labels asked before each round; every third judges.")
    source_frames: int = Field(96, ge=8, description="Frames of the source pack.")
    eval_frames: int = Field(24, ge=1, description="Unseen frames of each road on which both arms are measured.")
    seed: int = Field(0, ge=0, description="Of the street.")
    training: RoundTrainingSettings = Field(
        default_factory=lambda: RoundTrainingSettings(
            iterations=60,
            source_batch=1,
            labelled_batch=2,
            unlabelled_batch=1,
            crop_height=160,
            crop_width=224,
            checkpoint_every=30,
            cache_megabytes=64,
        ),
        description="Of every round.",
    )


class _Street:
    """The drive's frames by their stamps, and an oracle that answers every query from the truth."""

    def __init__(self, seed: int) -> None:
        self._drive = SimulatedDrive(seed=seed, rate=1.0)
        self._index, self._clock = 0, 0
        self._seen: dict[int, tuple[int, str]] = {}
        self.waiting: list[FrameRecord] = []
        self.promoted: list[str] = []

    def pause(self) -> None:
        """Some time passes between two phases."""
        self._clock += _PAUSE_S

    def next(self, domain: str) -> tuple[Array, int]:
        """The next frame and its stamp."""
        stamp = self._clock * _SECOND
        self._seen[stamp] = (self._index, domain)
        image, _ = self._drive.frame(self._index, domain)
        self._index += 1
        self._clock += 1
        return image, stamp

    def on_queries(self, records: Sequence[FrameRecord]) -> None:
        self.waiting += records

    def on_label(self, result: SubmitResult) -> None:
        """Nothing: the oracle makes no mistakes."""

    def on_promoted(self, version: str, reason: str) -> None:
        self.promoted.append(f"{version}: {reason}")

    def answer(self, adapter: Adapter) -> None:
        """Label what was asked."""
        waiting, self.waiting = self.waiting, []
        for record in waiting:
            index, domain = self._seen[record.stamp_ns]
            adapter.submit(str(record.query_id), self._drive.frame(index, domain)[1], "oracle")


class _Drive:
    """One arm on its way."""

    def __init__(self, bench: LongDrive, arm: str, log: Callable[[str], None]) -> None:
        self._bench, self._arm, self._log = bench, arm, log
        self._root = Path(bench.out) / arm
        self._street = _Street(bench.seed)
        self._now_s = 0.0
        self.registry = ModelRegistry(self._root / "registry")
        if self.registry.current() is None:
            self.registry.promote(self.registry.adopt(resolve_model(bench.model)))
        self._pack = self._root / "source_pack.zip"
        if not self._pack.exists():
            source = SimulatedSamples(SimulatedDrive(seed=100), "day", range(0, 3000, 25))
            create_pack(source, self._space, self._pack, frames=bench.source_frames, seed=bench.seed)
        self._unseen = {
            domain: SimulatedSamples(SimulatedDrive(seed=bench.seed + 7), domain, range(0, 10 * bench.eval_frames, 10))
            for domain in DOMAINS
        }
        self.rows: list[dict[str, Any]] = []

    def run(self) -> None:
        """Drive through all phases."""
        self._note("start", "", {})
        adapter = None
        for number, (domain, rounds) in enumerate(zip(self._bench.phases, self._bench.rounds, strict=True)):
            if adapter is None or self._arm == "unguarded":
                if adapter is not None:
                    adapter.close()
                adapter = Adapter(self._settings(number), self._street, self._log)
            self._street.pause()
            for _ in range(rounds):
                self._round(adapter, domain)
        if adapter is not None:
            adapter.close()

    def _round(self, adapter: Adapter, domain: str) -> None:
        began = time.monotonic()
        before = self._trained(adapter)
        for _ in range(self._bench.frames):
            self._see(adapter, domain)
        quiet = 0
        while quiet < 4:
            busy = adapter.tick(self._tell_time())
            self._street.answer(adapter)
            status = adapter.status()
            if status["failure"]:
                raise WorkerError(f"{self._arm}: {status['failure']}")
            if status["phase"] == "training":
                time.sleep(0.2)
            elif self._trained(adapter) == before and not busy and not self._street.waiting:
                adapter.adapt(self._now_s)
            idle = status["phase"] == "collecting" and not busy and self._trained(adapter) > before
            quiet = quiet + 1 if idle else 0
        decision = adapter.status()["decision"]
        if self._arm == "unguarded":
            self.registry.promote(decision["version"], {"verdict": "promote", "words": "swapped unguarded"})
            adapter.tick(self._tell_time())
        self._note(domain, str(decision["verdict"]), {"seconds": round(time.monotonic() - began)})

    def _see(self, adapter: Adapter, domain: str) -> None:
        image, stamp_ns = self._street.next(domain)
        adapter.offer(image, jpeg=None, camera="front", stamp_ns=stamp_ns)
        while adapter.tick(self._tell_time()):
            self._street.answer(adapter)
        self._street.answer(adapter)

    def _tell_time(self) -> float:
        self._now_s += 0.6  # every tick steps the cycle
        return self._now_s

    def _trained(self, adapter: Adapter) -> int:
        del adapter
        return len(self.registry.versions()) + self._pruned()

    def _pruned(self) -> int:
        return int(self.registry.versions()[-1].removeprefix("v")) - len(self.registry.versions())

    def _note(self, domain: str, verdict: str, more: Mapping[str, Any]) -> None:
        version = self.registry.current_or_fail()
        engine = load_engine(self.registry.path(version), _ENGINE)
        mious = {name: evaluate(engine, unseen, self._space.num_classes).miou for name, unseen in self._unseen.items()}
        engine.close()
        row = {"phase": domain, "verdict": verdict, "version": version, "miou": mious, **more}
        self.rows.append(row)
        figures = ", ".join(f"{name} {value:.1f}" for name, value in mious.items())
        self._log(f"{self._arm}, after {domain} {verdict}: {version}: {figures}")

    @property
    def _space(self) -> Any:  # noqa: ANN401  (a label space; named where it is made)
        return self.registry.manifest(self.registry.versions()[0]).labels()

    def _settings(self, number: int) -> AdaptationSettings:
        bench = self._bench
        guarded = self._arm == "guarded"
        folder = self._root if guarded else self._root / f"phase-{number}"
        training = bench.training if guarded else bench.training.model_copy(update={"source_batch": 0})
        return AdaptationSettings(
            registry_dir=str(self.registry.root),
            pool_dir=str(folder / "pool"),
            rounds_dir=str(folder / "rounds"),
            source_pack=str(self._pack) if guarded else "",
            pool=PoolSettings(rate=1.0, keep_free_share=0.0),
            cycle=CycleSettings(
                budget=100_000,
                batch=bench.labels,
                max_open=100,
                min_frames=bench.labels,
                frames_between=bench.frames - 10,
                new_labels=bench.labels,
                min_audit_labels=1,
                cooldown_s=0,
            ),
            acquisition=AcquisitionSettings(audit_every=3),
            training=training,
            gate=GateSettings(policy="strict"),
            drift=DriftSettings(enabled=guarded, start_rounds=False),
            watch=WatchSettings(frames=60 if guarded else 0),
            engine=ScoringEngineSettings(backend="torch", threads=1),
            low_priority=False,
        )


def run(bench: LongDrive, log: Callable[[str], None]) -> dict[str, Any]:
    """Drive both arms.

    Returns:
        Plain figures: a row for each round of each arm with the mIoU in percent of the version in use on every road,
        and for each arm the change from the first model to the last.

    Raises:
        SsadaError: if a round fails.
    """
    arms: dict[str, Any] = {}
    for arm in ARMS:
        drive = _Drive(bench, arm, log)
        drive.run()
        first, last = drive.rows[0]["miou"], drive.rows[-1]["miou"]
        worst = {name: min(row["miou"][name] for row in drive.rows) - first[name] for name in first}
        change = {name: last[name] - first[name] for name in first}
        arms[arm] = {"rows": drive.rows, "change": change, "worst_change": worst}
    return {"settings": bench.model_dump(mode="json"), "arms": arms}


def markdown(figures: Mapping[str, Any]) -> str:
    """The drive as a table, for ``docs/results/gate.md``."""
    lines = ["| after | verdict | " + " | ".join(f"{arm}: {name}" for arm in ARMS for name in DOMAINS) + " |"]
    lines.append("| --- | --- | " + " | ".join("---:" for _ in range(len(ARMS) * len(DOMAINS))) + " |")
    for guarded, other in zip(*(figures["arms"][arm]["rows"] for arm in ARMS), strict=True):
        values = [row["miou"][name] for row in (guarded, other) for name in DOMAINS]
        numbers = " | ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {guarded['phase']} | {guarded['verdict']} | {numbers} |")
    change = [figures["arms"][arm]["change"][name] for arm in ARMS for name in DOMAINS]
    lines.append(f"| **change** | | {' | '.join(f'{value:+.1f}' for value in change)} |")
    return "\n".join(lines) + "\n"


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Draw both arms into a PNG file."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    colours = dict(zip(DOMAINS, ("#c98500", "#30408f", "#199e70"), strict=True))
    for axes, arm in zip(figure.subplots(1, 2, sharey=True), ARMS, strict=True):
        rows = figures["arms"][arm]["rows"]
        for name in DOMAINS:
            axes.plot([row["miou"][name] for row in rows], marker=".", color=colours[name], label=name)
        axes.set_xticks(range(len(rows)), [row["phase"] for row in rows], fontsize=7)
        axes.set(title=arm)
    figure.axes[0].set_ylabel("mIoU of the version in use, percent")
    figure.axes[1].legend(title="road", fontsize=8)
    figure.savefig(path, dpi=110)
