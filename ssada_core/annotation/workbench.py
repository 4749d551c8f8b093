"""What the annotation page can do, without the web: list, open, draft, submit, skip, reject."""

from __future__ import annotations

import contextlib
import re
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssada_core.annotation import overview
from ssada_core.annotation.check import LabelCheckSettings
from ssada_core.annotation.desk import Desk, Draft, Who
from ssada_core.annotation.overview import Cache
from ssada_core.annotation.segments import LEVELS, superpixels
from ssada_core.annotation.submit import SubmitResult, submit
from ssada_core.data.encodings import decode_label, encode_png, picture_size
from ssada_core.data.resized import resize_label
from ssada_core.errors import EncodingError, SsadaError, StoreError
from ssada_core.store.pool import FramePool, FrameRecord

QUERY_ID = re.compile(r"[0-9a-f]{6}-\d{6,12}")
PRECOMPUTED = 64
"""Open queries whose superpixels are made before anybody asks."""
MAX_REASON = 300
UNANSWERED = ("queried", "skipped")
"""Others' drafts are offered in these states only."""


class UnknownQueryError(SsadaError):
    """No such question was asked here, or its frame is gone."""


class ConflictError(SsadaError):
    """Somebody answered the query meanwhile."""


@dataclass(frozen=True)
class Source:
    """Where figures come from besides the pool.

    Attributes:
        budget: frames that may be asked for; 0 where that is not known.
        registry: the model registry's folder, or None.
    """

    budget: int = 0
    registry: Path | None = None


class Workbench:
    """One pool's open questions and the work on them; safe from several threads."""

    def __init__(self, pool: FramePool, desk: Desk, *, check: LabelCheckSettings, source: Source) -> None:
        self._pool = pool
        self._desk = desk
        self._check = check
        self._source = source
        self._cache = Cache(512)
        self._slow = threading.Lock()  # superpixels are made one frame at a time: a visitor cannot fill all cores

    # What there is

    def overview(self, person: str) -> dict[str, Any]:
        """Everything the list shows.

        Raises:
            StoreError: if the pool cannot be read.
        """
        leases, drafts = self._desk.leases(), self._desk.drafts(person)
        records = [record for record in self._pool.frames(states=overview.SHOWN) if record.query_id is not None]
        return {
            "pool": self._pool.pool_id,
            "label_space": overview.label_space(self._pool.label_space),
            "levels": len(LEVELS),
            "progress": overview.progress(self._pool, self._source.budget),
            "model": overview.model_figures(self._pool, self._source.registry),
            "queries": [
                overview.describe(
                    record,
                    doubt=self._doubts(record),
                    lease=leases.get(str(record.query_id)),
                    person=person,
                    drafted=record.query_id in drafts and (drafts[record.query_id] or record.state in UNANSWERED),
                )
                for record in sorted(records, key=overview.order)
            ],
        }

    def _doubts(self, record: FrameRecord) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            found = self._pool.prediction(record)
            return {} if found is None else overview.doubts(*found, self._pool.label_space.classes)

        return self._cache.get((record.query_id, "doubts", record.model_version), make)

    def thumbnail(self, query_id: str) -> bytes:
        """A small JPEG of the frame."""
        record = self._find(query_id)
        return self._cache.get((query_id, "thumbnail"), lambda: overview.thumbnail(self._pool.image_bytes(record)))

    def image(self, query_id: str) -> bytes:
        """The frame's own JPEG bytes."""
        return self._pool.image_bytes(self._find(query_id))

    def prediction(self, query_id: str) -> bytes | None:
        """Label, then confidence, at the frame's size: 2×H×W bytes; None where no model was asked."""
        record = self._find(query_id)
        found = self._pool.prediction(record)
        if found is None:
            return None
        return np.stack([resize_label(plane, record.size) for plane in found]).tobytes()

    def label(self, query_id: str) -> bytes | None:
        """The newest label that was given, accepted or held, H×W bytes; None where there is none."""
        self._find(query_id)
        history = self._pool.label_history(query_id)
        return self._pool.read_label(history[-1]).tobytes() if history else None

    def superpixels(self, query_id: str, level: int) -> bytes:
        """Patch numbers, uint16 H×W little-endian, zlib-compressed."""
        return self._patches(self._find(query_id))[level]

    def _patches(self, record: FrameRecord) -> list[bytes]:
        """Every level at once; whoever asks for another level meanwhile waits instead of making them again."""
        key = (record.query_id, "superpixels")

        def make() -> list[bytes]:
            return [zlib.compress(level.astype("<u2").tobytes(), 1) for level in superpixels(self._pool.image(record))]

        found: list[bytes] | None = self._cache.peek(key)
        if found is not None:
            return found
        with self._slow:
            return self._cache.get(key, make)

    def precompute(self, stop: threading.Event) -> None:
        """Make the superpixels of open queries before they are asked for; in a thread of its own until ``stop``."""
        while not stop.wait(2.0):
            # The frame was rejected meanwhile, or the disk is away: whoever opens it is told.
            with contextlib.suppress(SsadaError):
                self._precompute_once(stop)

    def _precompute_once(self, stop: threading.Event) -> None:
        open_queries = sorted(self._pool.frames(states=["queried", "held"]), key=overview.order)
        for record in open_queries[:PRECOMPUTED]:
            if stop.is_set():
                return
            self._patches(record)

    # Working on one

    def open(self, query_id: str, who: Who, *, force: bool = False) -> dict[str, Any]:
        """Take a query to edit it.

        Returns:
            Its size, the number of labels given so far, and the draft to go on with, if any: one's own, with the
            number of labels it began from, or another's as long as there is no label.

        Raises:
            UnknownQueryError: if it is none.
            TakenError: if somebody else edits it.
        """
        record = self._find(query_id)
        self._desk.take(query_id, who, force=force)
        history, draft = self._pool.label_history(query_id), self._draft(query_id, who.person)
        return {
            "id": query_id,
            "width": record.width,
            "height": record.height,
            "state": record.state,
            "versions": len(history),
            "history": [
                {"version": entry.version, "status": entry.status, "why": entry.why, "annotator": entry.annotator}
                for entry in history
            ],
            "draft": None
            if draft is None
            else {
                "name": draft.name,
                "own": draft.person == who.person,
                "saved_at": draft.saved_at,
                "versions": draft.versions,
            },
        }

    def _draft(self, query_id: str, person: str) -> Draft | None:
        return self._desk.draft(query_id, person, others=not self._pool.label_history(query_id))

    def keep(self, query_id: str, who: Who) -> None:
        """Say that a query is still being edited."""
        self._find(query_id)
        self._desk.take(query_id, who)

    def close(self, query_id: str, holder: str) -> None:
        """Give a query back, whatever became of it."""
        self._desk.release(query_id, holder)

    def draft(self, query_id: str, person: str) -> bytes | None:
        """The draft to go on with: label, then touched pixels, 2×H×W bytes."""
        record = self._find(query_id)
        draft = self._draft(query_id, person)
        if draft is None:
            return None
        planes = decode_label(draft.png)
        return planes.tobytes() if planes.shape == (2 * record.height, record.width) else None

    def save_draft(self, query_id: str, who: Who, png: bytes, *, versions: int | None = None) -> float:
        """Keep unfinished work: a PNG of label above touched pixels. On return it survives a killed server.

        Args:
            query_id: the question.
            who: its editor.
            png: the draft.
            versions: labels there were when it was begun; None for those there are now.

        Raises:
            TakenError: if somebody else edits the query by now.
            EncodingError: if it is no such PNG.
        """
        record = self._find(query_id)
        if picture_size(png) != (2 * record.height, record.width):
            raise EncodingError(f"a draft of {query_id} is {record.width}x{2 * record.height} pixels: send it so")
        planes = decode_label(png)
        self._desk.take(query_id, who)
        known = len(self._pool.label_history(query_id))
        return self._desk.save(query_id, who, encode_png(planes), known if versions is None else min(versions, known))

    def drop_draft(self, query_id: str, who: Who) -> None:
        """Throw one's own unfinished work away: somebody else's label is to stay."""
        self._find(query_id)
        self._desk.forget(query_id, who.person)

    def submit(self, query_id: str, who: Who, png: bytes, *, versions: int | None, confirmed: bool) -> SubmitResult:
        """Judge and store a label (PNG). Once this returns an accepted label survives a power cut.

        Args:
            query_id: the question.
            who: its editor.
            png: single-channel 8-bit class ids at the frame's size.
            versions: labels there were when it was opened; None to answer whatever came since.
            confirmed: it was held as suspicious, and a human has looked again.

        Raises:
            UnknownQueryError: if there is no such query.
            TakenError: if somebody else edits it.
            ConflictError: if somebody else has answered since it was opened.
            EncodingError: if the PNG cannot hold class ids.
        """
        record = self._find(query_id)
        if picture_size(png) != record.size:
            height, width = picture_size(png)
            raise EncodingError(f"the label is {width}x{height}, its frame {record.width}x{record.height}")
        label = decode_label(png)
        self._desk.take(query_id, who)
        history = self._pool.label_history(query_id)
        if versions is not None and len(history) > versions:
            other = history[-1].annotator or "somebody"
            raise ConflictError(f"{other} answered {query_id} meanwhile: look at that label, then submit to replace it")
        result = submit(self._pool, query_id, label, who.name or "page", settings=self._check, confirmed=confirmed)
        if result.status == "accepted":
            self._finish(query_id, who)
        elif result.status == "held":
            self._desk.answered(query_id, who.person, self.versions(query_id))
        return result

    def versions(self, query_id: str) -> int:
        """How many labels were given for a query so far."""
        return len(self._pool.label_history(query_id))

    def skip(self, query_id: str, who: Who, reason: str) -> None:
        """Say that this one will not be labelled.

        Raises:
            ConflictError: if it is labelled by now.
        """
        self._find_open(query_id)
        self._desk.take(query_id, who)
        self._pool.skip(query_id, _reason(reason))
        self._desk.release(query_id, who.holder)

    def reject(self, query_id: str, who: Who, reason: str) -> None:
        """Delete the frame: it must not be kept.

        Raises:
            ConflictError: if it is labelled by now.
        """
        self._find_open(query_id)
        self._desk.take(query_id, who)
        self._pool.reject(query_id, _reason(reason))
        self._cache.drop(query_id)
        self._desk.forget(query_id)
        self._desk.release(query_id, who.holder)

    def _finish(self, query_id: str, who: Who) -> None:
        self._desk.forget(query_id, who.person)
        self._desk.release(query_id, who.holder)

    def _find_open(self, query_id: str) -> FrameRecord:
        record = self._find(query_id)
        if record.state == "labelled":
            raise ConflictError(f"query {query_id} has a label: correct it instead")
        return record

    def _find(self, query_id: str) -> FrameRecord:
        if not QUERY_ID.fullmatch(query_id):
            raise UnknownQueryError("that is no query's id")
        try:
            record = self._pool.by_query(query_id)
        except StoreError as error:
            raise UnknownQueryError(str(error)) from error
        if record.state == "rejected":
            raise UnknownQueryError(f"query {query_id} was rejected ({record.reason}): its frame is gone")
        return record


def _reason(text: str) -> str:
    words = " ".join(text.split())[:MAX_REASON]
    if not words:
        raise ConflictError("say why, in a few words")
    return words
