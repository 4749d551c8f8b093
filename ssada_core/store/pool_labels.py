"""Labels of the pool: every version is kept, and what was acknowledged is on the disk."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Literal

from ssada_core.data.compressed import encode_png
from ssada_core.data.samples import Array
from ssada_core.errors import LabelError, StoreError
from ssada_core.store.files import make_directory, store_error, write_atomic
from ssada_core.store.pool_queries import by_query
from ssada_core.store.pool_records import FrameRecord, LabelVersion
from ssada_core.store.pool_schema import Database

LABELS = "labels"
_ACCEPTED = "labels_accepted"
"""Key of the counter in the table ``meta``."""
_DAMAGED = ("its label file is damaged: label it again",)


class LabelStore:
    """Writes and lists label versions: ``labels/<query id>.v<n>.png`` and a row for each."""

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root

    def accept(self, query_id: str, label: Array, annotator: str) -> None:
        """Make ``label`` the query's label. The same label again changes nothing.

        Raises:
            StoreError: if the query is unknown or rejected, or the disk refuses.
            LabelError: if the label is not uint8 of the frame's size.
        """
        data = encode_png(label)
        with self._database.transaction(durable=True):
            frame = self._frame(query_id, label)
            if frame.state == "labelled" and self._is_current(frame, data):
                return
            file = self._write(frame, data, status="accepted", why="", annotator=annotator)
            self._set_label(frame, file, annotator)

    def hold(self, query_id: str, label: Array, annotator: str, why: str) -> None:
        """Keep a suspicious label for a second look. A label accepted earlier stays the query's label.

        The newest label again, if it is held, is not stored again.

        Raises:
            StoreError: if the query is unknown or rejected, or the disk refuses.
            LabelError: if the label is not uint8 of the frame's size.
        """
        data = encode_png(label)
        with self._database.transaction(durable=True):
            frame = self._frame(query_id, label)
            if not self._is_held(frame, data):
                self._write(frame, data, status="held", why=why, annotator=annotator)
            if frame.state != "labelled":
                self._database.execute("UPDATE frames SET state='held', reason=? WHERE id=?", (why, frame.id))

    def accept_held(self, query_id: str, annotator: str) -> None:
        """A second look found the newest held label right: it becomes the query's label.

        Raises:
            StoreError: if the query is unknown or rejected, or no label of it is held.
        """
        with self._database.transaction(durable=True):
            frame = self._find(query_id)
            row = self._database.row(
                "SELECT version, file FROM labels WHERE frame_id=? AND status='held' ORDER BY version DESC",
                (frame.id,),
            )
            if row is None:
                raise StoreError(f"query '{query_id}' has no held label: submit one")
            self._database.execute(
                "UPDATE labels SET status='accepted' WHERE frame_id=? AND version=?", (frame.id, row["version"])
            )
            self._set_label(frame, row["file"], annotator)

    def accepted(self) -> int:
        """How many queries ever got their label; a pool of an earlier release counts from those it has."""
        found = self._database.row("SELECT value FROM meta WHERE key=?", (_ACCEPTED,))
        if found is not None:
            return int(found["value"])
        return int(self._database.rows("SELECT COUNT(*) FROM frames WHERE state='labelled'")[0][0])

    def history(self, query_id: str) -> list[LabelVersion]:
        """All labels ever given for a query, oldest first.

        Raises:
            StoreError: if the query is unknown.
        """
        frame = self._find(query_id, rejected=True)
        rows = self._database.rows(
            "SELECT version, status, why, file, annotator, given_at FROM labels WHERE frame_id=? ORDER BY version",
            (frame.id,),
        )
        return [LabelVersion(**dict(row)) for row in rows]

    def read(self, file: str) -> bytes:
        """The bytes of a label file that is listed.

        Raises:
            StoreError: if it has gone, or its content is not what was acknowledged.
        """
        path = self._root / file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise store_error("read", path, error) from error
        row = self._database.row(
            "SELECT sha256 FROM labels WHERE file=? AND frame_id=(SELECT id FROM frames WHERE query_id=?)",
            (file, path.name.partition(".")[0]),
        )
        if row is None or row["sha256"] != _sha256(data):
            raise StoreError(f"{path} is not the label that was stored: restore it from a copy, or label it again")
        return data

    def set_aside_damaged(self) -> list[str]:
        """Hold accepted labels whose file has gone or changed, so that nobody learns from them; one line for each.

        Those that are as they were again count again. Inside a transaction.
        """
        held = self._database.rows(
            "SELECT id, query_id, label_file FROM frames WHERE state='held' AND reason=?", _DAMAGED
        )
        mended = [row for row in held if not self._damage(row["label_file"])]
        self._database.execute_many(
            "UPDATE frames SET state='labelled', reason='' WHERE id=?", [(row["id"],) for row in mended]
        )
        rows = self._database.rows("SELECT id, query_id, label_file FROM frames WHERE state='labelled'")
        damaged = [(row, why) for row in rows if (why := self._damage(row["label_file"]))]
        self._database.execute_many(
            "UPDATE frames SET state='held', reason=? WHERE id=?", [(*_DAMAGED, row["id"]) for row, _ in damaged]
        )
        back = [f"query {row['query_id']} is labelled again: {row['label_file']} is as it was" for row in mended]
        return back + [f"query {row['query_id']} is held: {why}" for row, why in damaged]

    def _damage(self, file: str) -> str:
        try:
            self.read(file)
        except StoreError as error:
            return str(error)
        return ""

    def twin(self, query_id: str, label: Array) -> str | None:
        """Another query that has exactly this label in its history; None if there is none."""
        row = self._database.row(
            "SELECT query_id FROM frames JOIN labels ON labels.frame_id=frames.id WHERE sha256=? AND query_id!=?",
            (_sha256(encode_png(label)), query_id),
        )
        return None if row is None else str(row["query_id"])

    def _find(self, query_id: str, *, rejected: bool = False) -> FrameRecord:
        frame = by_query(self._database, query_id)
        if frame.state == "rejected" and not rejected:
            raise StoreError(f"query '{query_id}' was rejected ({frame.reason}): its frame is gone, skip it")
        return frame

    def _frame(self, query_id: str, label: Array) -> FrameRecord:
        frame = self._find(query_id)
        if label.shape != frame.size:
            raise LabelError(
                f"label of '{query_id}' has shape {label.shape}, its frame is {frame.height}x{frame.width} "
                "(height x width): send the label at the frame's size"
            )
        return frame

    def _is_current(self, frame: FrameRecord, data: bytes) -> bool:
        newest = self._database.row(
            "SELECT sha256 FROM labels WHERE frame_id=? AND file=?", (frame.id, frame.label_file)
        )
        return newest is not None and newest["sha256"] == _sha256(data)

    def _is_held(self, frame: FrameRecord, data: bytes) -> bool:
        newest = self._database.row(
            "SELECT sha256, status FROM labels WHERE frame_id=? ORDER BY version DESC", (frame.id,)
        )
        return newest is not None and newest["status"] == "held" and newest["sha256"] == _sha256(data)

    def _write(
        self, frame: FrameRecord, data: bytes, *, status: Literal["accepted", "held"], why: str, annotator: str
    ) -> str:
        found = self._database.row("SELECT MAX(version) AS newest FROM labels WHERE frame_id=?", (frame.id,))
        version = 1 + int((found and found["newest"]) or 0)
        file = f"{LABELS}/{frame.query_id}.v{version}.png"
        make_directory(self._root / LABELS)
        self._database.entering(self._root / file)
        write_atomic(self._root / file, data)
        self._database.execute(
            "INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (frame.id, version, status, why, file, annotator, time.time_ns(), _sha256(data), len(data)),
        )
        return file

    def _set_label(self, frame: FrameRecord, file: str, annotator: str) -> None:
        if frame.state != "labelled":  # a correction is no further label
            self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_ACCEPTED, str(self.accepted() + 1)))
        self._database.execute(
            "UPDATE frames SET state='labelled', label_file=?, annotator=?, labelled_at=? WHERE id=?",
            (file, annotator, time.time_ns(), frame.id),
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
