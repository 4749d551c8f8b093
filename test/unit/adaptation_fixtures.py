"""A small vehicle: a real model, a pool of simulated frames with their labels, and rounds of a few steps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from ssada_core.adaptation.cycle import CycleSettings
from ssada_core.adaptation.measurements import Measurements, ModelMeasurement
from ssada_core.adaptation.round import RoundSpec
from ssada_core.adaptation.settings import AdaptationSettings, ScoringEngineSettings
from ssada_core.annotation.check import LabelCheckSettings
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.inference.engine import EngineSettings
from ssada_core.labels import CAMVID
from ssada_core.learning.settings import RoundTrainingSettings
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.pool import Choice, FramePool, PoolSettings
from ssada_core.store.registry import ModelRegistry

REPOSITORY = Path(__file__).resolve().parents[2]
NETWORK = NetworkSettings(input_height=64, input_width=96)
ENGINE = EngineSettings(backend="torch", threads=1)
TRAINING = RoundTrainingSettings(
    iterations=6,
    source_batch=0,
    labelled_batch=1,
    unlabelled_batch=1,
    crop_height=64,
    crop_width=96,
    checkpoint_every=2,
    prefetch=False,
    freeze_batch_norm=True,  # it cannot learn from one image
    # Random weights explode in a round that teaches; with the unlabelled loss from the start they stay where they are.
    threshold=0.0,
    unlabelled_start=0.0,
    class_weights="none",
    trained_share=1.0,
)
POOL = PoolSettings(rate=1000, keep_free_share=0.0, standstill_threshold=0.0, duplicate_threshold=0.0)
SECOND = 10**9
WAIT_S = 240.0
_TEMPLATES = tempfile.TemporaryDirectory(prefix="ssada_registries_")
DRIVE = SimulatedDrive(seed=3, size=(64, 96), rate=1.0)


def manifest(parent: str | None = None) -> ModelManifest:
    return ModelManifest(version="", created="", network=NETWORK, label_space=CAMVID.to_dict(), parent=parent)


def make_registry(root: Path, versions: int = 1) -> ModelRegistry:
    """Versions with random weights; the first is current, and the parent of the others."""
    if root.exists():  # another version in a registry that there is
        _make_registry(root, versions)
        return ModelRegistry(root)
    template = Path(_TEMPLATES.name) / str(versions)
    if not template.exists():  # made once in a test process: it takes most of a second
        _make_registry(template, versions)
    shutil.copytree(template, root)
    return ModelRegistry(root)


def _make_registry(root: Path, versions: int) -> None:
    registry = ModelRegistry(root)
    for number in range(versions):
        torch.manual_seed(number)
        network = build_network(NETWORK, CAMVID.num_classes, pretrained=False)
        version = registry.add(network.state_dict(), manifest(parent="v0001" if number else None))
        if number == 0:
            registry.promote(version)


def open_pool(root: Path) -> FramePool:
    return FramePool(root, POOL, label_space=CAMVID)


def fill_pool(root: Path, *, frames: int = 12, labelled: int = 4, audit: int = 2, domain: str = "night") -> None:
    """Frames 6 s apart; the first are labelled, the audit frames among them last."""
    with open_pool(root) as pool:
        records = []
        for index in range(frames):
            added = pool.add(DRIVE.frame(index, domain)[0], camera="front", stamp_ns=6 * SECOND * index)
            assert added.record is not None, added.reason
            records.append(added.record)
        chosen = [Choice(record.id, 0.0, index >= labelled, "") for index, record in enumerate(records)]
        for index, record in enumerate(pool.query(chosen[: labelled + audit])):
            pool.accept_label(str(record.query_id), DRIVE.frame(index, domain)[1], "test")


def round_spec(root: Path, **changes: object) -> RoundSpec:
    values: dict[str, object] = {
        "pool_dir": str(root / "pool"),
        "registry_dir": str(root / "registry"),
        "champion": "v0001",
        "first": "v0001",
        "low_priority": False,  # on a busy machine an idle process may wait for minutes
        "training": TRAINING,
        "engine": ENGINE,
    }
    return RoundSpec(**{**values, **changes})  # type: ignore[arg-type]


def adaptation_settings(root: Path, **changes: object) -> AdaptationSettings:
    values: dict[str, object] = {
        "pool_dir": str(root / "pool"),
        "registry_dir": str(root / "registry"),
        "rounds_dir": str(root / "rounds"),
        "pool": POOL,
        "engine": ScoringEngineSettings(**ENGINE.model_dump()),
        "training": TRAINING,
        "low_priority": False,
        # Models with random weights contradict every true label.
        "label_check": LabelCheckSettings(max_disagreement=1.0),
        "cycle": CycleSettings(
            budget=6,
            batch=6,
            max_open=6,
            min_frames=8,
            frames_between=1,
            new_labels=6,
            min_audit_labels=1,
            cooldown_s=0,
            retries=0,
        ),
    }
    return AdaptationSettings(**{**values, **changes})  # type: ignore[arg-type]


def worker_command(run_dir: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "ssada_core.adaptation.worker", str(run_dir), *more]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def run_worker(run_dir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = worker_command(run_dir, *more)
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=WAIT_S, check=False)


def wait_until(condition: Callable[[], object], what: str, *, pause: float = 0.005, seconds: float = WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for: {what}"
        time.sleep(pause)


def is_at_work(pid: int) -> bool:
    """Whether the process runs; one that has ended may stay a zombie until somebody asks for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """The processes that this one has started and that still run."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if int(file.read_text().rpartition(")")[2].split()[1]) == pid and is_at_work(int(file.parent.name)):
                found.append(int(file.parent.name))
    return found


def measurements(shares: Sequence[float] = (0.6, 0.9, 0.6), frames: int = 12) -> Measurements:
    """Champion, challenger and first model are right on these shares of every class's pixels, on every frame."""
    return Measurements(np.arange(frames) * 20 * SECOND, *(_measured(share, frames) for share in shares))


def _measured(share: float, frames: int) -> ModelMeasurement:
    classes = CAMVID.num_classes
    right = round(1000 * share)
    matrix = np.eye(classes, dtype=np.int64) * right + np.roll(np.eye(classes, dtype=np.int64), 1, 1) * (1000 - right)
    stack = np.repeat(matrix[None], frames, axis=0)
    return ModelMeasurement(stack, stack[:4], np.asarray(stack.sum((0, 1))), np.full(9, 0.01), True)
