"""Small parts of the registry: a lock between processes, and a log of what was decided."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ssada_core.store.files import store_error


def utc_now() -> str:
    """The wall clock as ISO 8601, UTC, in whole seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on an existing file or folder; the kernel frees it when the process dies.

    Yields:
        Whether it is held; always true with ``wait``.

    Raises:
        StoreError: if the path cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise store_error("read", path, error) from error
    try:
        yield _flock(descriptor, wait=wait)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


class Journal:
    """A file of JSON lines that only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line; on return it is on the disk.

        Raises:
            StoreError: if the disk refuses.
        """
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False)
        try:
            with self._path.open("ab+") as file:
                start = "\n" if self._is_torn() else ""
                file.write(f"{start}{line}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise store_error("write", self._path, error) from error

    def read(self) -> list[dict[str, Any]]:
        """All lines, oldest first; one that was cut short by a kill is passed over.

        Raises:
            StoreError: if it cannot be read.
        """
        try:
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        except OSError as error:
            raise store_error("read", self._path, error) from error
        return [entry for entry in map(_parse, lines) if entry is not None]

    def _is_torn(self) -> bool:
        data = self._path.read_bytes() if self._path.exists() else b""
        return bool(data) and not data.endswith(b"\n")


def replay(history: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The content of ``current`` after these promotions and rollbacks; None before the first."""
    earlier: list[str] = []
    version = at = ""
    for entry in history:
        if entry.get("action") == "rollback":
            earlier = earlier[:-1]
        else:
            earlier = [name for name in (*earlier, version) if name not in ("", entry.get("version"))]
        version, at = str(entry.get("version", "")), str(entry.get("at", ""))
    if not version:
        return None
    return {"version": version, "previous": earlier[-1] if earlier else None, "earlier": earlier, "promoted_at": at}


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
