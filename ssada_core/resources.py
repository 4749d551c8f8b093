"""Where the files that ship with the package are: models, configuration, launch files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ssada_core.errors import ConfigError

SHARE = Path("share/ssada_ros")


def resource(relative: str) -> Path:
    """Path of a shipped file or folder, such as ``config/demo.yaml``.

    Looks in the source tree (editable installs), in every prefix of ``AMENT_PREFIX_PATH`` (a colcon
    install space) and in the Python prefix (pip).

    Raises:
        ConfigError: if it is nowhere, naming the places.
    """
    places = [Path(__file__).resolve().parent.parent]
    places += [Path(prefix) / SHARE for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    places += [Path(sys.prefix) / SHARE]
    for place in places:
        if (place / relative).exists():
            return place / relative
    raise ConfigError(f"shipped file '{relative}' not found in {', '.join(map(str, places))}: reinstall the package")
