"""The demo's stage: folders, registry, source pack and the processes, set up before the curtain rises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssada_core.data.frame_sources import open_source
from ssada_core.data.lists import open_samples
from ssada_core.data.source_pack import PackSamples, create_pack
from ssada_core.errors import ConfigError
from ssada_core.inference.deployment import enter_model
from ssada_core.labels import LabelSpace
from ssada_core.settings import Settings
from ssada_core.store.model_files import read_manifest
from ssada_core.store.models import resolve_model
from ssada_core.store.registry import ModelRegistry, RegistrySettings
from ssada_core.store.run_folder import run_folder
from ssada_ros.camera_settings import CameraSettings
from ssada_ros.demo_options import DemoOptions
from ssada_ros.demo_settings import SOURCE_EVAL_SEED, SOURCE_SEED, DemoSettings, simulated
from ssada_ros.oracle_node import OracleSettings
from ssada_ros.parameters import write_parameters_file
from ssada_ros.processes import ProcessDescription

CAMERA, ORACLE, SEGMENTATION, ADAPTATION = "camera_node", "oracle_node", "segmentation_node", "adaptation_node"


@dataclass(frozen=True)
class Stage:
    """Where everything of one run lies."""

    out: Path
    settings: DemoSettings
    options: DemoOptions
    label_space: LabelSpace
    source_data: str
    evaluation: str
    source_evaluation: str

    @property
    def registry(self) -> Path:
        """Model versions of the run."""
        return self.out / "registry"

    @property
    def pool(self) -> Path:
        """Frames, queries and labels of the run."""
        return self.out / "pool"

    @property
    def source_pack(self) -> Path:
        """Source frames that are replayed in every batch."""
        return self.out / "source_pack.zip"

    @property
    def rounds(self) -> Path:
        """Training rounds of the run."""
        return self.out / "rounds"

    @property
    def simulated(self) -> bool:
        """Whether the camera is the simulated drive, whose world can be turned to another domain."""
        return self.options.camera.partition(":")[0] == "sim"


def prepare(options: DemoOptions, settings: DemoSettings, evaluation: str, log: Callable[[str], None]) -> Stage:
    """Make the folders, enter the model into a registry and pack the source data.

    Raises:
        ConfigError: if the output folder holds something else.
        ModelError: if the model is missing.
        DataError: if the source data cannot be read.
    """
    model_dir = resolve_model(settings.model)
    manifest = read_manifest(model_dir)
    drive = settings.drive
    # Other seeds than the drive's: the source is what the model knew before, not where it drives now.
    simulated_source = simulated(drive.source_domain, options.seed + SOURCE_SEED, drive.source_frames)
    simulated_check = simulated(drive.source_domain, options.seed + SOURCE_EVAL_SEED, drive.source_eval_frames)
    source_data = settings.source_data or simulated_source
    stage = Stage(
        out=run_folder(
            options.out,
            kind="demo",
            inputs=[model_dir, options.camera, source_data, evaluation, options.config or ""],
        ),
        settings=settings,
        options=options,
        label_space=manifest.labels(),
        source_data=source_data,
        evaluation=evaluation,
        source_evaluation=settings.source_data or simulated_check,
    )
    _check_camera(stage)
    log(f"packing {drive.source_frames} source frames from {source_data}")
    samples = open_samples(source_data, stage.label_space)
    create_pack(samples, stage.label_space, stage.source_pack, frames=drive.source_frames, seed=options.seed)
    log(f"deploying {settings.model}")
    registry = ModelRegistry(stage.registry, RegistrySettings())
    enter_model(registry, model_dir, settings.segmentation.engine, PackSamples(stage.source_pack))
    return stage


def _check_camera(stage: Stage) -> None:
    """Open the camera once, before anything is started: a wrong name should not take a minute to show.

    Raises:
        ConfigError: if the oracle is asked of a camera without ground truth.
        DataError: if the camera cannot be opened.
    """
    drive, options = stage.settings.drive, stage.options
    source = open_source(
        options.camera,
        loop=True,
        seed=options.seed,
        size=(drive.height, drive.width),
        rate=drive.rate,
        label_space=stage.label_space,
    )
    has_labels = source.has_labels
    source.close()
    if options.annotator == "oracle" and not has_labels:
        raise ConfigError(
            f"camera '{options.camera}' has no ground truth for the oracle: "
            "use --annotator folder (a human labels) or --annotator none"
        )


def processes(stage: Stage) -> list[ProcessDescription]:
    """The nodes of the run, camera last: it starts when everybody listens."""
    parameters = stage.out / "parameters.yaml"
    write_parameters_file(parameters, _parameters(stage))
    names = [SEGMENTATION, ADAPTATION, CAMERA]
    if stage.options.annotator == "oracle":
        names.insert(0, ORACLE)
    return [ProcessDescription(name, f"ssada_ros.{name}", parameters_file=parameters) for name in names]


def _parameters(stage: Stage) -> dict[str, Settings]:
    drive, settings = stage.settings.drive, stage.settings
    compressed = drive.compressed
    cameras = {"cameras": ["camera/image/compressed" if compressed else "camera/image"], "camera_names": ["camera"]}
    budget = settings.adaptation.cycle.budget
    return {
        CAMERA: CameraSettings(
            source=stage.options.camera,
            rate=drive.rate,
            domain=drive.source_domain if stage.simulated else "",
            seed=stage.options.seed,
            width=drive.width,
            height=drive.height,
            label_space=stage.label_space.name,
            compressed=compressed,
            wait_for_subscribers=2,  # segmentation and adaptation: the first frame counts, too
        ),
        ORACLE: OracleSettings(answers=budget),
        SEGMENTATION: settings.segmentation.model_copy(update={"model": str(stage.registry), **cameras}),
        ADAPTATION: settings.adaptation.model_copy(
            update={
                "registry_dir": str(stage.registry),
                "pool_dir": str(stage.pool),
                "rounds_dir": str(stage.rounds),
                "source_pack": str(stage.source_pack),
                "start_paused": True,
                **cameras,
                **(_exchange_folders(stage) if stage.options.annotator == "folder" else {}),
            }
        ),
    }


def _exchange_folders(stage: Stage) -> dict[str, str]:
    return {"queries_dir": str(stage.out / "queries"), "labels_dir": str(stage.out / "labels")}
