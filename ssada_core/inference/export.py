"""Writes deployed models beside the weights, each one compared with torch, or int8 with fp32, before it is kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ssada_core.errors import EngineError
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.export_job import ExportJob, open_job
from ssada_core.inference.load import GRAPH_FILE, check_deployed, describe
from ssada_core.inference.quantise import QuantisationSettings, Verdict, as_input, judge, split
from ssada_core.inference.targets import INT8_TARGETS, TARGETS, Int8Target, installed_targets, known_targets
from ssada_core.store.files import TEMPORARY_SUFFIX, write_json

Array = NDArray[np.uint8]

PARITY_FRAMES = 2
"""Frames on which an export is compared with torch, spread over those given."""
_SCRATCH = f"deploy/export{TEMPORARY_SUFFIX}"


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
class _Form:
    """One target, ready in the scratch folder or refused, before anything is in its place.

    Attributes:
        outcome: for the report.
        place: its folder in the model.
        new: the folder that goes there; None leaves nothing there.
        stays: what is there stays.
    """

    outcome: DeployedTarget | RefusedTarget
    place: Path
    new: Path | None
    stays: bool = False

    def install(self) -> None:
        if self.stays:
            return
        shutil.rmtree(self.place, ignore_errors=True)
        if self.new is not None:
            self.new.replace(self.place)


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
    chosen = installed_targets() if targets is None else tuple(dict.fromkeys(targets))
    _check_names(chosen)
    with _scratch(model_dir / _SCRATCH) as scratch:
        job = open_job(model_dir, scratch, list(frames or []), labels)
        forms = list(_build_exact(job, [name for name in chosen if name in TARGETS]))
        int8 = [name for name in chosen if name in INT8_TARGETS]
        forms += [_build_int8(job, name, quantisation or QuantisationSettings()) for name in int8]
        for form in forms:  # only now: an export that fails leaves the model as its manifest lists it
            form.install()
    outcomes = [form.outcome for form in forms]
    return DeployReport(
        tuple(outcome for outcome in outcomes if isinstance(outcome, DeployedTarget)),
        tuple(outcome for outcome in outcomes if isinstance(outcome, RefusedTarget)),
    )


def rebuilt_folders(targets: Sequence[str] | None, *, frames: bool) -> frozenset[str]:
    """The model's subfolders that :func:`deploy` builds anew or empties; without frames int8 stays as it is."""
    chosen = installed_targets() if targets is None else targets
    files = [form.file for name, form in TARGETS.items() if name in chosen]
    files += [form.file for name, form in INT8_TARGETS.items() if name in chosen and frames]
    return frozenset({_SCRATCH, *(file.rpartition("/")[0] for file in files)})


def _check_names(names: Sequence[str]) -> None:
    known = known_targets()
    for name in names:
        if name not in known:
            raise EngineError(f"unknown deployment target '{name}': there are {', '.join(known)}")


def _engine_settings(precision: Literal["fp32", "int8"], output_size: Literal["network", "frame"]) -> EngineSettings:
    # No more threads than torch was given: a round exports beside the running perception.
    return EngineSettings(precision=precision, output_size=output_size, threads=torch.get_num_threads())


def _build_exact(job: ExportJob, names: Sequence[str]) -> Iterator[_Form]:
    """Export in fp32, target by target, each compared with torch."""
    if not names:
        return
    settings = _engine_settings("fp32", "network")
    probes = _spread(job.frames, PARITY_FRAMES) or _noise(job.size)
    with closing(job.open_reference(settings)) as engine:
        reference = [prediction.label for prediction in engine.infer(probes)]
    for name in names:
        start, target = time.monotonic(), TARGETS[name]
        path, place = _empty(job.scratch / name) / Path(target.file).name, (job.model_dir / target.file).parent
        target.write(job.graph(target.form), path)
        precision = "fp16" if target.form == "tensorrt-half" else "fp32"
        engine = target.open(path, job.size, settings.model_copy(update={"precision": precision}))
        equal = _compare(name, engine, probes, reference, target.min_equal)
        _describe(job, path, {})
        yield _Form(DeployedTarget(name, place, equal, time.monotonic() - start), place, path.parent)


def _build_int8(job: ExportJob, name: str, settings: QuantisationSettings) -> _Form:
    start, target = time.monotonic(), INT8_TARGETS[name]
    path, place = _empty(job.scratch / name) / Path(target.file).name, (job.model_dir / target.file).parent
    if not job.frames:
        refused = RefusedTarget(name, "int8 is calibrated on real frames, and none were given")
        return _Form(refused, place, None, stays=_is_of_these_weights(place, job))
    try:
        calibration, held = split(len(job.frames), settings)
        frames = [as_input(job.frames[index], job.size) for index in calibration]
        target.write(job.graph(target.form), path, frames, job.manifest.network.backbone)
        verdict = _judge(job, target, path, held, settings)
    except EngineError as error:
        return _Form(RefusedTarget(name, str(error)), place, None)
    if not verdict.accepted:
        return _Form(RefusedTarget(name, verdict.words), place, None)
    _describe(job, path, {"accepted": verdict.words})
    return _Form(DeployedTarget(name, place, verdict.equal, time.monotonic() - start), place, path.parent)


def _judge(
    job: ExportJob, target: Int8Target, path: Path, held: Sequence[int], settings: QuantisationSettings
) -> Verdict:
    return judge(
        target.open(path, job.size, _engine_settings("int8", "frame")),
        target.open(job.graph(target.form), job.size, _engine_settings("fp32", "frame")),
        [job.frames[index] for index in held],
        [job.labels[index] for index in held] if job.labels is not None else None,
        num_classes=job.manifest.labels().num_classes,
        settings=settings,
    )


def _describe(job: ExportJob, path: Path, more: dict[str, str]) -> None:
    write_json(path.with_name(GRAPH_FILE), describe(job.model_dir, job.manifest) | more)


def _is_of_these_weights(folder: Path, job: ExportJob) -> bool:
    """Whether an earlier deployment is of these weights: then it was accepted and may stay."""
    try:
        check_deployed(job.model_dir, folder / GRAPH_FILE, job.manifest)
    except EngineError:
        return False
    return True


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
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder on the same disk, gone afterwards; also what a killed export left of it."""
    _empty(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
