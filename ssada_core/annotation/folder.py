"""Queries and labels by way of two folders: for any labelling tool, a shared drive, or a USB stick.

``queries_dir`` gets ``<query id>.jpg`` and ``<query id>.json`` for every open question. Labels are put
into ``labels_dir`` as ``<query id>.png`` and move on to ``done/``, ``held/`` or ``refused/``, the
latter two with a ``.txt`` that says why.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import time
from pathlib import Path

from ssada_core.annotation.check import LabelCheckSettings, Status
from ssada_core.annotation.submit import SubmitResult, submit
from ssada_core.data.compressed import decode_label
from ssada_core.errors import ConfigError, EncodingError, StoreError
from ssada_core.store.files import make_directory, store_error, write_atomic, write_json
from ssada_core.store.pool import FramePool, FrameRecord

ANNOTATOR = "folder"

_FOLDERS: dict[Status, str] = {"accepted": "done", "held": "held", "refused": "refused"}
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_PNG_END = b"IEND\xaeB\x60\x82"
_QUERY_FILE = re.compile(r"[0-9a-f]{6}-\d{6,}")
_SUFFIXES = frozenset({".jpg", ".json"})
_MAX_BYTES = 64 << 20

_log = logging.getLogger(__name__)


class FolderExchange:
    """Writes questions to one folder and picks labels up from another. Neither is ever left by a link or ``..``."""

    def __init__(
        self,
        pool: FramePool,
        queries_dir: str | Path,
        labels_dir: str | Path,
        *,
        settings: LabelCheckSettings | None = None,
        settle_seconds: float = 5.0,
    ) -> None:
        """Create the folders where they are missing.

        Args:
            pool: where questions come from and labels go.
            queries_dir: for the questions.
            labels_dir: for the labels.
            settings: the limits of the label check.
            settle_seconds: how long a file without a PNG's end must be unchanged to be taken as broken.

        Raises:
            ConfigError: if both are the same folder, or one is inside the pool's.
            StoreError: if a folder cannot be created.
        """
        self._pool = pool
        self._queries = Path(queries_dir)
        self._labels = Path(labels_dir)
        self._settings = settings or LabelCheckSettings()
        self._settle_seconds = settle_seconds
        self._unread: set[str] = set()
        self._shown: dict[str, str] = {}
        self._judged: dict[str, tuple[bytes, SubmitResult]] = {}
        self._waiting: dict[str, str] = {}
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        if any(folder.resolve().is_relative_to(pool.root.resolve()) for folder in (self._queries, self._labels)):
            raise ConfigError(
                f"{self._labels} or {self._queries} is inside the pool's own folder {pool.root}: give another"
            )
        for folder in (self._queries, *(self._labels / name for name in _FOLDERS.values())):
            make_directory(folder)
        if self._queries.resolve() == self._labels.resolve():
            raise ConfigError(f"queries and labels are both in {self._labels}: give each a folder of its own")
        for name in _FOLDERS.values():
            if (self._labels / name).is_symlink():
                raise ConfigError(f"{self._labels / name} is a link: replace it by a folder")

    def write_queries(self) -> list[Path]:
        """Write the open questions that are not there as the pool has them, and take away those no longer open.

        One whose frame cannot be read costs itself alone.

        Returns:
            The images written.

        Raises:
            StoreError: if the disk refuses.
        """
        open_queries = {record.query_id: record for record in self._pool.frames(states=["queried"])}
        path = self._queries
        try:
            there = set(self._queries.iterdir())  # a stick may be pulled at any moment
            for path in there:
                if _QUERY_FILE.fullmatch(path.stem) and path.suffix in _SUFFIXES and path.stem not in open_queries:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise store_error("write", path, error) from error
        written = [
            self._write_query(str(query_id), record)
            for query_id, record in open_queries.items()
            if self._queries / f"{query_id}.jpg" not in there or self._shown.get(str(query_id)) != record.image_file
        ]
        self._shown = {query_id: file for query_id, file in self._shown.items() if query_id in open_queries}
        return [path for path in written if path is not None]

    def _write_query(self, query_id: str, record: FrameRecord) -> Path | None:
        try:
            image = self._pool.image_bytes(record)
        except StoreError as error:
            if query_id not in self._unread:
                self._unread.add(query_id)
                _log.warning("query %s is not asked, its frame cannot be read: %s", query_id, error)
            return None
        path = self._queries / f"{query_id}.jpg"
        is_new = not self._is_there(path, image)  # else it is from before a restart
        if is_new:
            self._write_files(query_id, record, image)
        self._shown[query_id] = record.image_file
        return path if is_new else None

    def _write_files(self, query_id: str, record: FrameRecord, image: bytes) -> None:
        facts = {
            "query_id": query_id,
            "camera": record.camera,
            "stamp_ns": record.stamp_ns,
            "vehicle": record.vehicle,
            "width": record.width,
            "height": record.height,
            "label_space": self._pool.label_space.to_dict(),
        }
        write_json(self._queries / f"{query_id}.json", facts)  # first: whoever sees the image finds the facts
        write_atomic(self._queries / f"{query_id}.jpg", image)

    @staticmethod
    def _is_there(path: Path, image: bytes) -> bool:
        try:
            return path.read_bytes() == image
        except OSError:
            return False

    def poll(self) -> list[SubmitResult]:
        """Take in every label that is completely written. A label that meets a full disk stays for the next time.

        One that was judged but whose file cannot be moved away is not judged again.

        Raises:
            StoreError: if the labels folder cannot be read.
        """
        results = []
        for name in self._candidates():
            try:
                result = self._take(name)
            except StoreError as error:
                self._stays(name, error)
                continue
            if result is not None:
                results.append(result)
        return results

    def _candidates(self) -> list[str]:
        try:
            names = sorted(path.name for path in self._labels.iterdir() if path.is_symlink() or not path.is_dir())
        except OSError as error:
            raise store_error("read", self._labels, error) from error
        wanted = [name for name in names if Path(name).suffix.lower() in _PICTURES and not name.startswith(".")]
        self._seen = {name: seen for name, seen in self._seen.items() if name in wanted}
        self._judged = {name: judged for name, judged in self._judged.items() if name in wanted}
        self._waiting = {name: words for name, words in self._waiting.items() if name in wanted}
        return wanted

    def _stays(self, name: str, error: StoreError) -> None:
        if self._waiting.get(name) != str(error):
            self._waiting[name] = str(error)
            _log.warning("label %s stays where it is: %s", self._labels / name, error)

    def _take(self, name: str) -> SubmitResult | None:
        """Judge a file and move it away; None while it is being written, and where it was judged before."""
        data = self._read(name)
        if data is not None and not data.endswith(_PNG_END) and not self._settled(name, len(data)):
            return None
        digest = hashlib.sha256(data or b"").digest()
        before, result = self._judged.get(name, (None, None))
        is_new = result is None or before != digest
        if result is None or is_new:
            result = self._judge(Path(name).stem, data)
            self._judged[name] = digest, result
        try:
            self._move(name, result)
        except StoreError as error:
            self._stays(name, error)
        return result if is_new else None

    def _judge(self, query_id: str, data: bytes | None) -> SubmitResult:
        if data is None:
            return SubmitResult(query_id, "refused", "it is a link or no plain file: copy the file")
        try:
            label = decode_label(data)
        except EncodingError as error:
            return SubmitResult(query_id, "refused", str(error))
        return submit(self._pool, query_id, label, ANNOTATOR, settings=self._settings)

    def _read(self, name: str) -> bytes | None:
        """The file's bytes; None for links, pipes and files of an absurd size."""
        path = self._labels / name
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES:
                    return file.read()
        return None

    def _settled(self, name: str, size: int) -> bool:
        """Whether an incomplete file has not changed for so long that nobody can still be writing it."""
        now = time.monotonic()
        try:
            mark = (size, (self._labels / name).lstat().st_mtime_ns)
        except OSError as error:
            raise store_error("read", self._labels / name, error) from error
        before, since = self._seen.get(name, (None, now))
        if before != mark:
            since = now
        self._seen[name] = (mark, since)
        return now - since >= self._settle_seconds

    def _move(self, name: str, result: SubmitResult) -> None:
        folder = self._labels / _FOLDERS[result.status]
        make_directory(folder)  # somebody may have cleared it away
        target = self._free_name(folder, name)
        if result.why:
            write_atomic(target.with_name(f"{target.name}.txt"), f"{result.why}\n".encode())
        try:
            (self._labels / name).rename(target)
        except OSError as error:
            raise store_error("write", target, error) from error
        self._judged.pop(name, None)

    @staticmethod
    def _free_name(folder: Path, name: str) -> Path:
        target, number = folder / name, 1
        while target.is_symlink() or target.exists():
            number += 1
            target = folder / f"{Path(name).stem}.{number}{Path(name).suffix}"
        return target
