"""Writes deployed models beside the weights, each one compared with torch, or int8 with fp32, before it is kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ssada_core.errors import EngineError
from ssada_core.inference.convert import GraphForm, export_onnx
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.load import GRAPH_FILE, ONNX_FILE, check_deployed, describe, read_manifest, read_model
from ssada_core.inference.onnx_engine import OnnxEngine
from ssada_core.inference.quantise import QuantisationSettings, Verdict, as_input, judge, split
from ssada_core.inference.targets import INT8_TARGETS, TARGETS, Int8Target, installed_targets, known_targets
from ssada_core.inference.torch_engine import TorchEngine
from ssada_core.networks.settings import ONNX_ARCHITECTURE
from ssada_core.store.files import TEMPORARY_SUFFIX, write_json
from ssada_core.store.manifest import ModelManifest

Array = NDArray[np.uint8]

PARITY_FRAMES = 2
"""Frames on which an export is compared with torch, spread over those given."""


@dataclass(frozen=True)
class DeployedTarget:
    """One deployed model.

    Attributes:
        name: such as ``onnx-fp32``.
        folder: where its files are.
        equal: share of pixels with torch's label, over all frames compared; for int8 with fp32's, over held frames.
        seconds: time to convert and compare.
    """

    name: str
    folder: Path
    equal: float
    seconds: float


@dataclass(frozen=True)
class RefusedTarget:
    """A target that was not deployed.

    Attributes:
        name: such as ``openvino-int8``.
        reason: why not, with figures.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class DeployReport:
    """What :func:`deploy` wrote, and what it found not good enough."""

    targets: tuple[DeployedTarget, ...]
    refused: tuple[RefusedTarget, ...] = ()


@dataclass(frozen=True)
class _Job:
    """What every target of one deployment is made from."""

    model_dir: Path
    scratch: Path
    manifest: ModelManifest
    frames: Sequence[Array]
    labels: Sequence[Array] | None

    write: Callable[[Path, GraphForm], None]
    open_reference: Callable[[EngineSettings], Engine]

    def graph(self, form: GraphForm) -> Path:
        """The exported graph, written when it is first asked for."""
        path = self.scratch / f"{form}.onnx"
        if not path.exists():
            self.write(path, form)
        return path

    @property
    def size(self) -> tuple[int, int]:
        return self.manifest.network.input_height, self.manifest.network.input_width


def deploy(
    model_dir: Path,
    *,
    targets: Sequence[str] | None = None,
    frames: Sequence[Array] | None = None,
    labels: Sequence[Array] | None = None,
    quantisation: QuantisationSettings | None = None,
) -> DeployReport:
    """Export a model directory's network and check each export: fp32 against torch, int8 against fp32.

    Args:
        model_dir: holds the manifest and the weights; gets ``deploy/<target>/…``. Hashing the new files into the
            manifest is the caller's part.
        targets: names of :func:`known_targets`; None means those whose packages are installed.
        frames: uint8 BGR frames of any size. int8 is calibrated on a part of them and judged on the rest; without
            frames it is not built, and the others are compared on seeded noise.
        labels: uint8 ground truth of each frame, by which int8 may be accepted as well.
        quantisation: when int8 is good enough.

    Returns:
        What was deployed, and what was refused and why; nothing is left in the folder of a refused target.

    Raises:
        ModelError: if the model cannot be read.
        MissingExtraError: if a target's package is not installed.
        EngineError: if a target is unknown, or fewer than 99.9 % of an fp32 target's labels are torch's; what was
            deployed before stays then.
    """
    chosen = installed_targets() if targets is None else tuple(targets)
    _check_names(chosen)
    refused: list[RefusedTarget] = []
    with _scratch(model_dir / "deploy") as scratch:
        job = _job(model_dir, scratch, list(frames or []), labels)
        done = list(_deploy_exact(job, [name for name in chosen if name in TARGETS]))
        for name in (name for name in chosen if name in INT8_TARGETS):
            outcome = _deploy_int8(job, name, quantisation or QuantisationSettings())
            if isinstance(outcome, DeployedTarget):
                done.append(outcome)
            else:
                refused.append(outcome)
    return DeployReport(tuple(done), tuple(refused))


def _check_names(names: Sequence[str]) -> None:
    known = known_targets()
    for name in names:
        if name not in known:
            raise EngineError(f"unknown deployment target '{name}': there are {', '.join(known)}")


def _engine_settings(precision: Literal["fp32", "int8"], output_size: Literal["network", "frame"]) -> EngineSettings:
    # No more threads than torch was given: a round exports beside the running perception.
    return EngineSettings(precision=precision, output_size=output_size, threads=torch.get_num_threads())


def _job(model_dir: Path, scratch: Path, frames: Sequence[Array], labels: Sequence[Array] | None) -> _Job:
    manifest = read_manifest(model_dir)
    if manifest.network.architecture == ONNX_ARCHITECTURE:
        return _imported_job(model_dir, scratch, manifest, frames, labels)
    network, _ = read_model(model_dir)
    size = manifest.network.input_height, manifest.network.input_width
    return _Job(
        model_dir,
        scratch,
        manifest,
        frames,
        labels,
        write=lambda path, form: export_onnx(network, manifest.network, path, form),
        open_reference=lambda settings: TorchEngine(network, size, settings),
    )


def _imported_job(
    model_dir: Path, scratch: Path, manifest: ModelManifest, frames: Sequence[Array], labels: Sequence[Array] | None
) -> _Job:
    """An imported graph is deployed as it is and compared with itself in ONNX Runtime."""
    graph, size = scratch / "imported.onnx", (manifest.network.input_height, manifest.network.input_width)
    shutil.copyfile(model_dir / ONNX_FILE, graph)  # whose folder is replaced

    def write(path: Path, form: GraphForm) -> None:
        if form == "tensorrt-half":
            raise EngineError("an imported ONNX graph keeps its own arithmetic: choose precision fp32 or int8")
        shutil.copyfile(graph, path)

    return _Job(
        model_dir,
        scratch,
        manifest,
        frames,
        labels,
        write=write,
        open_reference=lambda settings: OnnxEngine(graph, size, settings),
    )


def _deploy_exact(job: _Job, names: Sequence[str]) -> Iterator[DeployedTarget]:
    """Export in fp32, target by target, each compared with torch before it replaces the one before."""
    if not names:
        return
    settings = _engine_settings("fp32", "network")
    probes = _spread(job.frames, PARITY_FRAMES) or _noise(job.size)
    with closing(job.open_reference(settings)) as engine:
        reference = [prediction.label for prediction in engine.infer(probes)]
    for name in names:
        start, target = time.monotonic(), TARGETS[name]
        path = _empty(job.scratch / name) / Path(target.file).name
        target.write(job.graph(target.form), path)
        precision = "fp16" if target.form == "tensorrt-half" else "fp32"
        engine = target.open(path, job.size, settings.model_copy(update={"precision": precision}))
        equal = _compare(name, engine, probes, reference, target.min_equal)
        folder = _install(job, path, target.file, {})
        yield DeployedTarget(name, folder, equal, time.monotonic() - start)


def _deploy_int8(job: _Job, name: str, settings: QuantisationSettings) -> DeployedTarget | RefusedTarget:
    start, target = time.monotonic(), INT8_TARGETS[name]
    folder = (job.model_dir / target.file).parent
    path = _empty(job.scratch / name) / Path(target.file).name
    if not job.frames:
        _drop_if_outdated(folder, job)
        return RefusedTarget(name, "int8 is calibrated on real frames, and none were given")
    try:
        calibration, held = split(len(job.frames), settings)
        frames = [as_input(job.frames[index], job.size) for index in calibration]
        target.write(job.graph(target.form), path, frames, job.manifest.network.backbone)
        verdict = _judge(job, target, path, held, settings)
    except EngineError as error:
        shutil.rmtree(folder, ignore_errors=True)
        return RefusedTarget(name, str(error))
    if not verdict.accepted:
        shutil.rmtree(folder, ignore_errors=True)
        return RefusedTarget(name, verdict.words)
    _install(job, path, target.file, {"accepted": verdict.words})
    return DeployedTarget(name, folder, verdict.equal, time.monotonic() - start)


def _judge(job: _Job, target: Int8Target, path: Path, held: Sequence[int], settings: QuantisationSettings) -> Verdict:
    return judge(
        target.open(path, job.size, _engine_settings("int8", "frame")),
        target.open(job.graph(target.form), job.size, _engine_settings("fp32", "frame")),
        [job.frames[index] for index in held],
        [job.labels[index] for index in held] if job.labels is not None else None,
        num_classes=job.manifest.labels().num_classes,
        settings=settings,
    )


def _install(job: _Job, path: Path, file: str, more: dict[str, str]) -> Path:
    """Describe the new files, and let their folder take the place of the one before."""
    write_json(path.with_name(GRAPH_FILE), describe(job.model_dir, job.manifest) | more)
    folder = (job.model_dir / file).parent
    shutil.rmtree(folder, ignore_errors=True)
    path.parent.replace(folder)
    return folder


def _drop_if_outdated(folder: Path, job: _Job) -> None:
    """Remove an earlier deployment of other weights; one of these weights was accepted and may stay."""
    try:
        check_deployed(job.model_dir, folder / GRAPH_FILE, job.manifest)
    except EngineError:
        shutil.rmtree(folder, ignore_errors=True)


def _compare(name: str, engine: Engine, frames: Sequence[Array], reference: Sequence[Array], least: float) -> float:
    with closing(engine):
        labels = [prediction.label for prediction in engine.infer(frames)]
    equal = float(np.mean([np.mean(ours == theirs) for ours, theirs in zip(labels, reference, strict=True)]))
    if equal < least:
        raise EngineError(
            f"{name}: only {100 * equal:.2f} % of the labels are torch's, {100 * least:.1f} % are needed: "
            "update the backend's package, or run the model with the backend torch"
        )
    return equal


def _spread(frames: Sequence[Array], count: int) -> list[Array]:
    indices = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return [frames[index] for index in indices]


def _noise(size: tuple[int, int], count: int = 2) -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


@contextmanager
def _scratch(deploy: Path) -> Iterator[Path]:
    """A folder on the same disk, gone afterwards; also what a killed export left of it."""
    folder = _empty(deploy / f"export{TEMPORARY_SUFFIX}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
