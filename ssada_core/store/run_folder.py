"""The folder of one run, which the next run of the same kind may replace."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from ssada_core.errors import ConfigError
from ssada_core.store.files import store_error


def run_folder(out: Path, *, kind: str, inputs: Iterable[str | Path] = ()) -> Path:
    """A folder for one run; what an earlier run of the same kind left there is removed, anything else is refused.

    Args:
        out: the folder, or a link to one.
        kind: such as ``demo``; a hidden file in the folder says so.
        inputs: what the run reads: paths, or references that may hold one, such as ``frames:0-9:list.txt``.

    Raises:
        ConfigError: if the folder holds files that no such run wrote, or something that this run reads.
        StoreError: if it cannot be made or emptied.
    """
    marker = f".ssada-{kind}"
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            if not (out / marker).exists():
                raise ConfigError(f"--out {out} is not empty and not of an earlier {kind}: give a new folder")
            _keep_apart(out, inputs)
            for entry in out.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        out.mkdir(parents=True, exist_ok=True)
        (out / marker).touch()
    except OSError as error:
        raise store_error("write", out, error) from error
    return out.resolve()


def _keep_apart(out: Path, inputs: Iterable[str | Path]) -> None:
    inside = out.resolve()
    for reference in inputs:
        for path in _paths(str(reference)):
            if path.resolve().is_relative_to(inside):
                raise ConfigError(f"--out {out} would be emptied, and holds {path}, which is to be read: give another")


def _paths(reference: str) -> list[Path]:
    """What exists of all that a reference may mean: itself or its end after any colon, with or without ``@VERSION``."""
    words = reference.split(":")
    ends = [":".join(words[start:]) for start in range(len(words))]
    named = [*ends, *(end.rpartition("@")[0] for end in ends)]
    return [path for end in named if end and (path := Path(end)).exists()]
