"""The command line of ``ssada demo``, apart from the settings that need ROS to be imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Annotator = Literal["oracle", "folder", "none"]


@dataclass(frozen=True)
class DemoOptions:
    """What was asked for; None takes the configuration's value."""

    camera: str = "sim"
    model: str | None = None
    source_data: str | None = None
    evaluation: str | None = None
    annotator: Annotator = "oracle"
    budget: int | None = None
    rate: float | None = None
    seed: int = 0
    out: Path = Path("out/demo")
    view: bool = True
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    command: str = "ssada demo"
