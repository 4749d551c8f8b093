"""One round on disk: what the node writes for the worker, and what the worker leaves for the node.

``RUN_DIR/round.yaml`` → ``progress.jsonl``, ``checkpoint.safetensors``, ``data.json``, ``challenger.json``,
``measurements.npz``, ``result.json`` → ``decision.json`` (ARCHITECTURE contract 5).
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssada_core.errors import ConfigError, WorkerError
from ssada_core.inference.engine import EngineSettings
from ssada_core.learning.settings import RoundTrainingSettings
from ssada_core.settings import Settings, parse_settings
from ssada_core.store.files import make_directory, read_json, write_atomic
from ssada_core.store.registry import RegistrySettings

ROUND_FILE = "round.yaml"
PROGRESS_FILE = "progress.jsonl"
CHECKPOINT_FILE = "checkpoint.safetensors"
"""Weights and momentum of a round under way; a decided one needs it no more."""
DATA_FILE = "data.json"
CHALLENGER_FILE = "challenger.json"
MEASUREMENTS_FILE = "measurements.npz"
RESULT_FILE = "result.json"
DECISION_FILE = "decision.json"
WORKER_LOG_FILE = "worker.log"


class RoundSpec(Settings):
    """``round.yaml``: everything the worker needs to know, so that the same command resumes it anywhere."""

    pool_dir: str = Field(description="Frame pool with the labels.")
    pool: str = Field("", description="Id of that pool; empty in a round that does not say so.")
    registry_dir: str = Field(description="Model registry that holds champion and first model.")
    champion: str = Field(description="Version in use; the round starts from its weights.")
    first: str = Field(description="Version the vehicle started with; the gate compares with it too.")
    source_pack: str = Field("", description="Source pack file; empty for a source-free round.")
    reason: str = Field("", description="Why the round was started.")
    target: str = Field("", description="The road that the round adapts to; empty where roads are not told apart.")
    challenger: str = Field(
        "", description="A version that was undecided: it is measured again on more frames; nothing is trained."
    )
    labels: int = Field(0, ge=0, description="Labels of the pool that the round uses up; later ones are new.")
    source_frames_judged: int = Field(96, ge=1, description="Source frames on which the gate looks for forgetting.")
    max_unlabelled: int = Field(400, ge=0, description="Unlabelled frames taken from the pool, newest first.")
    reference_frames: int = Field(64, ge=16, description="Frames of each road that describe it to the drift score.")
    low_priority: bool = Field(True, description="Run under SCHED_IDLE, so that training never costs a mask.")
    gpu_memory_share: float = Field(
        0.5, gt=0, le=1, description="Share of a GPU's memory that training may take; the masks need the rest."
    )
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    training: RoundTrainingSettings = Field(default_factory=RoundTrainingSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)


class RoundResult(BaseModel):
    """``result.json``: what the worker did (schema: ``docs/schemas/result.schema.json``)."""

    model_config = ConfigDict(extra="forbid")

    challenger: str
    champion: str
    iterations: int
    seconds: float
    labelled: int
    audit: int
    unlabelled: int
    source: int
    losses: dict[str, float]
    class_weights: list[float]
    case_labels: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the label of each regression case, by query id."
    )


def write_round(run_dir: Path, spec: RoundSpec) -> None:
    """Create ``run_dir`` with its ``round.yaml``.

    Raises:
        StoreError: if the disk refuses.
    """
    make_directory(run_dir)
    write_atomic(run_dir / ROUND_FILE, yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False).encode())


def read_round(run_dir: Path) -> RoundSpec:
    """Read ``round.yaml``.

    Raises:
        WorkerError: if there is none, or a key is wrong (another release wrote it), with the nearest right one.
    """
    path = run_dir / ROUND_FILE
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise WorkerError(f"{path}: cannot be read ({error}): give a folder with a {ROUND_FILE}") from error
    try:
        return parse_settings(RoundSpec, values if isinstance(values, dict) else {}, source=str(path))
    except ConfigError as error:  # it is stored, no parameter of the process that reads it
        raise WorkerError(str(error)) from error


def read_result(run_dir: Path) -> RoundResult:
    """Read ``result.json``.

    Raises:
        StoreError: if there is none, or it is not JSON.
        WorkerError: if it is something else.
    """
    path = run_dir / RESULT_FILE
    try:
        return RoundResult.model_validate(read_json(path))
    except ValidationError as error:
        raise WorkerError(f"{path}: not a round's result ({error.errors()[0]['msg']}): run the round again") from error
