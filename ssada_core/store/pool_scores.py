"""What models said of the pool's frames, as rows."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ssada_core.errors import StoreError
from ssada_core.store.pool_queries import chunks, marks
from ssada_core.store.pool_records import FrameScores
from ssada_core.store.pool_schema import Database

_COLUMNS = "frame_id, scores.model_version, uncertainty, confidence, histogram, features"


def write(database: Database, scores: Mapping[int, FrameScores]) -> None:
    """Keep the newest scores of frames; frames evicted meanwhile are passed over. Inside a transaction.

    Raises:
        StoreError: if a score is not finite.
    """
    for frame_id, score in scores.items():
        if not (math.isfinite(score.uncertainty) and math.isfinite(score.confidence)):
            raise StoreError(f"scores of frame {frame_id} are not finite: check model {score.model_version}")
        if database.row("SELECT 1 FROM frames WHERE id=?", (frame_id,)) is None:
            continue
        histogram = np.asarray(score.histogram, "<i8").tobytes()
        features = None if score.features is None else np.asarray(score.features, "<f4").tobytes()
        database.execute(
            "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?)",
            (frame_id, score.model_version, score.uncertainty, score.confidence, histogram, features),
        )
        database.execute("UPDATE frames SET model_version=? WHERE id=?", (score.model_version, frame_id))


def by_ids(database: Database, frame_ids: Sequence[int]) -> dict[int, FrameScores]:
    """Scores of those frames that have any."""
    rows = [
        row
        for part in chunks(frame_ids)
        for row in database.rows(
            f"SELECT {_COLUMNS} FROM scores WHERE frame_id IN ({marks(part)})",  # noqa: S608  (only question marks)
            part,
        )
    ]
    return {row["frame_id"]: _to_scores(row) for row in rows}


def by_states(database: Database, states: Sequence[str]) -> dict[int, FrameScores]:
    """Scores of the frames in these states that have any, in order of arrival."""
    rows = database.rows(
        f"SELECT {_COLUMNS} FROM scores JOIN frames ON id = frame_id WHERE state IN ({marks(states)}) ORDER BY id",  # noqa: S608
        states,
    )
    return {row["frame_id"]: _to_scores(row) for row in rows}


def _to_scores(row: sqlite3.Row) -> FrameScores:
    features: NDArray[np.float32] | None = None
    if row["features"] is not None:
        features = np.frombuffer(row["features"], "<f4").astype(np.float32)
    histogram = np.frombuffer(row["histogram"], "<i8").tolist()
    return FrameScores(row["model_version"], row["uncertainty"], row["confidence"], histogram, features)
