"""Why a version is what it is: its data, labels, figures, regression cases, decision and hashes, on one page.

``ssada models why`` writes it as JSON (schema: ``docs/schemas/dossier.schema.json``) and as HTML.
"""

from __future__ import annotations

from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from pydantic import BaseModel, ConfigDict, Field

from ssada_core.adaptation.round import DATA_FILE, RESULT_FILE, read_round
from ssada_core.errors import ModelError, SsadaError, StoreError
from ssada_core.store.files import read_json, write_atomic
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.pool import DATABASE_FILE
from ssada_core.store.pool_reader import PoolReader
from ssada_core.store.pool_schema import Database
from ssada_core.store.registry import ModelRegistry


class LabelEntry(BaseModel):
    """One label that a version was trained on or judged by."""

    model_config = ConfigDict(extra="forbid")

    query_id: str
    use: str = Field(description="labelled (trained on), audit (judged by) or cases (a regression case).")
    road: str
    camera: str
    stamp_ns: int
    annotator: str
    given: list[str] = Field(description="Every label that was given for it, oldest first: status and file.")


class Dossier(BaseModel):
    """The whole story of one version."""

    model_config = ConfigDict(extra="forbid")

    version: str
    created: str
    parent: str | None
    current: bool
    network: dict[str, Any]
    label_space: str
    data: dict[str, Any] = Field(description="As in the manifest: numbers of frames, pool, source pack.")
    training: dict[str, Any]
    labels: list[LabelEntry]
    missing: list[str] = Field(description="What could not be found any more, in words.")
    decision: dict[str, Any] | None = Field(
        description="The gate's, with its checks and the figures by road and class."
    )
    history: list[dict[str, Any]] = Field(description="Every promotion and rollback that concerns it, oldest first.")
    files: dict[str, str] = Field(description="Relative path → SHA-256.")
    verified: str = Field(description="Whether the files are still those, in words.")


def build_dossier(registry: ModelRegistry, version: str) -> Dossier:
    """Gather everything that is known of a version.

    Raises:
        ModelError: if there is no such version, or its manifest is damaged.
        StoreError: if the registry cannot be read.
    """
    manifest = registry.manifest(version)
    labels, missing = _labels(manifest)
    if manifest.decision is None:
        missing.append("no decision is stored: it was the first model, came from elsewhere, or was not judged yet")
    concerned = [entry for entry in registry.history() if version in (entry.get("version"), entry.get("previous"))]
    try:
        registry.verify(version)
        verified = "every file is as in the manifest"
    except ModelError as error:
        verified = f"damaged: {error}"
    return Dossier(
        version=version,
        created=manifest.created,
        parent=manifest.parent,
        current=registry.current() == version,
        network=manifest.network.model_dump(mode="json"),
        label_space=manifest.labels().name,
        data=manifest.data,
        training=manifest.training,
        labels=labels,
        missing=missing,
        decision=manifest.decision,
        history=[_short(entry) for entry in concerned],
        files=manifest.files,
        verified=verified,
    )


def _short(entry: dict[str, Any]) -> dict[str, Any]:
    decision = entry.get("decision") or {}
    words = decision.get("words") or decision.get("reason") or ""
    return {**{key: entry.get(key) for key in ("action", "version", "previous", "at")}, "words": words}


def _labels(manifest: ModelManifest) -> tuple[list[LabelEntry], list[str]]:
    """The labels of the version's round, from its folder and its pool, where those are still there."""
    command, pool_dir = str(manifest.training.get("command", "")), Path(str(manifest.data.get("pool", "")))
    _, worker, folder = command.partition("adaptation.worker ")
    if not worker:
        return [], ["it was not trained by a round of the adaptation: its labels are not listed"]
    try:
        chosen = read_json(Path(folder) / DATA_FILE)
        read_json(Path(folder) / RESULT_FILE)
        with closing(_open_pool(pool_dir, read_round(Path(folder)).pool)) as database:
            return _entries(PoolReader(pool_dir, database), chosen)
    except SsadaError as error:
        return [], [f"its labels are not listed: {error}"]


def _open_pool(pool_dir: Path, pool: str) -> Database:
    """The round's own pool: every pool numbers its frames from 1, so another one's would pass for them.

    Raises:
        StoreError: if it has gone, or is another one now.
    """
    if not (pool_dir / DATABASE_FILE).exists():
        raise StoreError(f"the pool at {pool_dir} has gone")
    database = Database(pool_dir / DATABASE_FILE)
    found = [row["value"] for row in database.rows("SELECT value FROM meta WHERE key='pool_id'")]
    if pool and found != [pool]:  # a round of an earlier release does not say which it was
        database.close()
        raise StoreError(f"the pool at {pool_dir} is another one now")
    return database


def _entries(pool: PoolReader, chosen: dict[str, list[int]]) -> tuple[list[LabelEntry], list[str]]:
    records = {record.id: record for record in pool.frames(states=["labelled"])}
    entries, gone = [], 0
    for use in ("labelled", "audit", "cases"):
        for frame_id in chosen.get(use, []):
            record = records.get(frame_id)
            if record is None or record.query_id is None:
                gone += 1
                continue
            given = pool.label_history(record.query_id)
            entries.append(
                LabelEntry(
                    query_id=record.query_id,
                    use=use,
                    road=record.domain,
                    camera=record.camera,
                    stamp_ns=record.stamp_ns,
                    annotator=record.annotator or "",
                    given=[f"{each.status} {each.file}" for each in given],
                )
            )
    return entries, [f"{gone} of its labels were purged, rejected or held since"] if gone else []


def render(dossier: Dossier) -> str:
    """The page: one HTML file that needs nothing else."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.1f}"
    source = files("ssada_core.adaptation").joinpath("dossier.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(d=dossier, decision=dossier.decision or {})


def write_page(path: Path, dossier: Dossier) -> None:
    """Write the page, atomically.

    Raises:
        StoreError: if the disk refuses.
    """
    write_atomic(path, render(dossier).encode())
