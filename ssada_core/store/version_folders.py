"""The folders of a registry: the next one under construction, pruned ones, and the lock between processes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from ssada_core.store import model_files
from ssada_core.store.files import store_error
from ssada_core.store.journal import file_lock

LOCK_FILE = "lock"


def number_of(folder: Path) -> int:
    """The number of a version's folder, finished or not (``.v0003.tmp``); 0 for other folders."""
    return model_files.version_number(folder.name.strip(".").partition(".")[0])


def locked(root: Path) -> contextlib.AbstractContextManager[bool]:
    """Hold the registry against other processes.

    Raises:
        StoreError: if the disk refuses.
    """
    lock = root / LOCK_FILE
    try:
        lock.touch()
    except OSError as error:
        raise store_error("write", lock, error) from error
    return file_lock(lock)


@contextlib.contextmanager
def reserved(root: Path) -> Iterator[tuple[str, Path]]:
    """The next version's name and its folder under construction; building may take minutes, so without the lock.

    Raises:
        StoreError: if the disk refuses.
    """
    with locked(root):
        _remove_leftovers(root)
        version = f"v{max(map(number_of, _folders(root)), default=0) + 1:04d}"
        folder = root / f".{version}.tmp"
        try:
            folder.mkdir()
        except OSError as error:
            raise store_error("create", folder, error) from error
        lock = contextlib.ExitStack()
        lock.enter_context(file_lock(folder))
    with lock:
        try:
            yield version, folder
        except OSError as error:
            raise store_error("write", folder, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove(root: Path, versions: Iterable[str]) -> None:
    """Delete versions, each at once for every reader."""
    for version in versions:
        doomed = root / f".{version}.old"
        (root / version).rename(doomed)  # a name that no reader takes for a version
        shutil.rmtree(doomed, ignore_errors=True)


def _remove_leftovers(root: Path) -> None:
    """Delete what killed processes left: folders under construction that nobody holds, and pruned ones."""
    for folder in _folders(root):
        if folder.name.endswith(".old"):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.name.endswith(".tmp"):
            with file_lock(folder, wait=False) as held:
                if held:
                    shutil.rmtree(folder, ignore_errors=True)


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and number_of(path)]
