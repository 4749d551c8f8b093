"""The folder of one run, which the next run of the same kind may replace."""

from __future__ import annotations

import shutil
from pathlib import Path

from ssada_core.errors import ConfigError


def run_folder(out: Path, *, kind: str) -> Path:
    """A folder for one run; what an earlier run of the same kind left there is removed, anything else is refused.

    Args:
        out: the folder.
        kind: such as ``demo``; a hidden file in the folder says so.

    Raises:
        ConfigError: if the folder holds files that no such run wrote.
    """
    marker = f".ssada-{kind}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / marker).exists():
            raise ConfigError(f"--out {out} is not empty and not of an earlier {kind}: give a new folder")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / marker).touch()
    return out.resolve()
