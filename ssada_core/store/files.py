"""Files that are either the old or the new content, never half of one, whatever is killed when."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

from ssada_core.errors import StoreError

TEMPORARY_SUFFIX = ".tmp"
"""What unfinished files end in; whoever owns a folder may delete what a killed process left of them."""

DAMAGED_NPZ: tuple[type[Exception], ...] = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError),  # the last: flags of a zip that flipped
    *(ValueError, KeyError, TypeError, AttributeError),
)
"""What reading an ``.npz`` raises that is cut, flipped or another's; to be turned into one line."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REMEDIES = {
    errno.EROFS: "the disk is mounted read-only: remount it for writing, or choose another folder",
    errno.EACCES: "no permission: give this user write access, or choose another folder",
    errno.EPERM: "no permission: give this user write access, or choose another folder",
    errno.ENOENT: "the folder does not exist: create it first",
}


class DiskFullError(StoreError):
    """Nothing could be written because the disk (or a quota) is full."""


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Replace ``path`` by ``data``; on return it is on the disk, also after a power cut.

    Raises:
        DiskFullError: if there is no room; nothing is left behind and the old content stays.
        StoreError: if the folder is missing, read-only or not ours.
    """
    temporary = beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        raise store_error("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """A new name in the folder of ``path`` for what is to become it once it is finished.

    Raises:
        StoreError: if ``path`` names no file, as ``.`` and ``/`` do not.
    """
    if not path.name:
        raise StoreError(f"cannot write {path}: it is a folder: name a file")
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401  (whatever json can write)
    """Replace ``path`` by ``value`` as indented JSON, atomically.

    Raises:
        StoreError: as :func:`write_atomic`.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read a JSON file.

    Raises:
        StoreError: if it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise store_error("read", path, error) from error
    except ValueError as error:
        raise StoreError(f"cannot read {path}: not JSON ({error}): restore it from a copy, or delete it") from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        StoreError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise store_error("read", path, error) from error
    return digest.hexdigest()


def fsync_directory(path: Path) -> None:
    """Make names created in, or renamed into, ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create a folder and those above it, durably.

    Raises:
        StoreError: if that is not possible.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            fsync_directory(folder.parent)  # each level: a name that is lost takes everything below with it
    except OSError as error:
        raise store_error("create", path, error) from error


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the disk of ``path``.

    Raises:
        StoreError: if the path does not exist.
    """
    return disk_usage(path)[1]


def disk_usage(path: Path) -> tuple[int, int]:
    """Total and free bytes of the disk of ``path``.

    Raises:
        StoreError: if the path does not exist.
    """
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        raise store_error("read", path, error) from error
    return usage.total, usage.free


def store_error(action: str, path: Path, error: OSError) -> StoreError:
    """The one-line error for a failed file operation, with its remedy."""
    if error.errno in _FULL:
        return DiskFullError(f"cannot {action} {path}: the disk is full: free some space, or choose another disk")
    remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    if action == "read" and error.errno == errno.ENOENT:
        remedy = "there is no such file"
    return StoreError(f"cannot {action} {path}: {remedy}")
