"""Where a chaos run takes place: a small disk of its own, a vehicle's stores on it, and the real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ssada_core.data.lists import open_samples
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.data.source_pack import PackSamples, create_pack
from ssada_core.inference.engine import EngineSettings
from ssada_core.labels import CAMVID
from ssada_core.store.models import resolve_model
from ssada_core.store.pool import FramePool, PoolSettings
from ssada_core.store.registry import ModelRegistry, RegistrySettings
from ssada_ros.adaptation_settings import AdaptationNodeSettings
from ssada_ros.camera_settings import CameraSettings
from ssada_ros.demo_settings import simulated
from ssada_ros.demo_stage import enter_model
from ssada_ros.parameters import write_parameters_file
from ssada_ros.processes import ProcessDescription, main_nodes
from ssada_ros.segmentation_settings import SegmentationSettings

CAMERA, SEGMENTATION, ADAPTATION, ANNOTATE, WORKER = (
    "camera_node",
    "segmentation_node",
    "adaptation_node",
    "annotate",
    "worker",
)
SIZE = (192, 320)
RATE = 5.0
DISK_MB = 700
HUNG_AFTER_S = 45.0
POOL = PoolSettings(rate=2.0, keep_free_share=0.02, standstill_threshold=0.0, duplicate_threshold=0.0, max_frames=4000)
REGISTRY = RegistrySettings(keep=3)
ENGINE = EngineSettings(backend="onnxruntime", precision="fp32", threads=1)
MARKER = ".ssada-chaos"


@dataclass
class Stage:
    """Folders and addresses of one run.

    Attributes:
        out: of the run.
        disk: where registry, pool, rounds and logs are.
        mounted: the disk is a file system of its own, which can be filled.
        seed: of the drive and of everything random.
        port: of the annotation page.
    """

    out: Path
    disk: Path
    mounted: bool
    seed: int
    port: int

    @property
    def registry(self) -> Path:
        return self.disk / "registry"

    @property
    def pool(self) -> Path:
        return self.disk / "pool"

    @property
    def rounds(self) -> Path:
        return self.disk / "rounds"

    @property
    def logs(self) -> Path:
        return self.disk / "logs"

    @property
    def pack(self) -> Path:
        return self.out / "source_pack.zip"

    def drive(self) -> SimulatedDrive:
        """The road that the camera shows."""
        return SimulatedDrive(seed=self.seed, size=SIZE, rate=RATE)

    def open_pool(self) -> FramePool:
        return FramePool(self.pool, POOL, label_space=CAMVID)

    def open_registry(self) -> ModelRegistry:
        return ModelRegistry(self.registry, REGISTRY)

    def fill_disk(self) -> None:
        """Take every block that is left; returns with the disk full."""
        with suppress(OSError), (self.disk / "ballast").open("wb", buffering=0) as ballast:
            block = bytes(1 << 20)
            while True:
                ballast.write(block)
        with suppress(OSError), (self.disk / "ballast").open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    def free_disk(self) -> None:
        (self.disk / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what is of interest, and give the disk back."""
        shutil.copytree(self.logs, self.out / "logs", dirs_exist_ok=True)
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.disk)], check=True)


def open_stage(out: Path, seed: int) -> Stage:
    """Make everything that a vehicle has before its first drive.

    Raises:
        SystemExit: if ``out`` holds something that no chaos run wrote.
    """
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).exists():
            raise SystemExit(f"--out {out} is not empty and not of an earlier run: give a new folder")
        shutil.rmtree(out)
    disk = out / "disk"
    disk.mkdir(parents=True)
    (out / MARKER).touch()
    stage = Stage(out.resolve(), disk.resolve(), _mount(disk), seed, _free_port())
    try:
        _furnish(stage)
    except BaseException:
        stage.close()
        raise
    return stage


def _furnish(stage: Stage) -> None:
    stage.logs.mkdir()
    day = open_samples(simulated("day", stage.seed + 1000, 24), CAMVID)
    create_pack(day, CAMVID, stage.pack, frames=24, seed=stage.seed)
    enter_model(stage.open_registry(), resolve_model("sim-day"), ENGINE, PackSamples(stage.pack))
    stage.open_pool().close()  # so that the annotation page finds one
    write_parameters_file(stage.out / "parameters.yaml", _parameters(stage))


def _mount(disk: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)]
    return (
        shutil.which("mount") is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _parameters(stage: Stage) -> dict[str, object]:
    adaptation = {
        "registry_dir": str(stage.registry),
        "pool_dir": str(stage.pool),
        "rounds_dir": str(stage.rounds),
        "source_pack": str(stage.pack),
        "seed": stage.seed,
        "worker_hung_after_s": HUNG_AFTER_S,
        "pool": POOL.model_dump(),
        "registry": REGISTRY.model_dump(),
        "cycle": {
            "budget": 2000,
            "batch": 4,
            "max_open": 8,
            "min_frames": 8,
            "frames_between": 2,
            "new_labels": 8,
            "min_audit_labels": 2,
            "cooldown_s": 2.0,
        },
        "acquisition": {"audit_every": 3},
        "training": {
            "iterations": 12,
            "source_batch": 1,
            "labelled_batch": 2,
            "unlabelled_batch": 1,
            "crop_height": 128,
            "crop_width": 128,
            "checkpoint_every": 2,
        },
        # Few audit frames, and the margins of the strict policy: what matters here is that nothing worse gets in.
        "gate": {"policy": "lenient", "domain_margin": 2.0, "source_margin": 3.0, "safety_margin": 3.0},
        "engine": ENGINE.model_dump(),
    }
    return {
        CAMERA: CameraSettings(source="sim:night", rate=RATE, seed=stage.seed, height=SIZE[0], width=SIZE[1]),
        SEGMENTATION: SegmentationSettings.model_validate(
            {"model": str(stage.registry), "engine": ENGINE.model_dump()}
        ),
        ADAPTATION: AdaptationNodeSettings.model_validate(adaptation),
    }


def processes(stage: Stage) -> list[ProcessDescription]:
    """What a vehicle runs, as ``ssada up`` describes it, with a page for the annotator and a camera."""
    parameters = stage.out / "parameters.yaml"
    page = ["annotate", "--pool", str(stage.pool), "--port", str(stage.port), "--registry", str(stage.registry)]
    return [
        *main_nodes(parameters_file=parameters),
        ProcessDescription(ANNOTATE, "ssada_core.cli", arguments=page, ros=False, essential=False),
        ProcessDescription(CAMERA, f"ssada_ros.{CAMERA}", parameters_file=parameters, essential=False),
    ]


def running(stage: Stage) -> Iterator[tuple[int, str]]:
    """Process ids and command lines of everything that this run has started and that still runs."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in ours:
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(stage.out) in line:
                    yield int(entry.name), line


def worker(stage: Stage) -> int | None:
    """Process id of the training worker, or None while nothing is trained."""
    return next((pid for pid, line in running(stage) if "ssada_core.adaptation.worker" in line), None)


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False if the process has ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
