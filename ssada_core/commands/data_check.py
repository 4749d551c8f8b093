"""``ssada data``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from ssada_core.commands.common import (
    EXIT_FAILED,
    JsonOption,
    LabelsOption,
    console,
    make_app,
    progress_bar,
    report,
    say,
)
from ssada_core.config import load_settings
from ssada_core.data.check import DataReport, check_data
from ssada_core.data.lists import open_samples
from ssada_core.errors import ConfigError, DataError
from ssada_core.labels import LabelSpace, load_label_space
from ssada_core.learning.offline import PARTS, OfflineSettings
from ssada_core.learning.separate_heads import source_space

app = make_app("Look into data sets before they are trained on.")


@app.callback()
def _group() -> None:
    """Keep ``check`` a command of its own, though it is the only one."""


@dataclass(frozen=True)
class _Part:
    role: str
    reference: str
    space: LabelSpace
    needs_labels: bool


@app.command("check")
def check(
    data: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE|CONFIG",
            help="Frames as --data of evaluate takes them, or a training configuration (YAML): all data it trains on.",
        ),
    ],
    label_space: LabelsOption = "camvid",
    json_file: JsonOption = None,
) -> int:
    """Read every frame and label: missing files, sizes, ids, classes; exit status 1 if something must be mended.

    Example: ssada data check cityscapes:data/cityscapes:val --label-space cityscapes
    """
    parts = _parts(data, label_space)
    space = parts[-1].space
    results: dict[str, dict[str, object]] = {}
    count = 0
    for part in parts:
        found = _check_part(part)
        count += found.problem_count
        _show(part, found)
        results[part.role] = {"reference": part.reference, **found.to_dict(part.space)}
    say(f"{data}: {count} problem{'' if count == 1 else 's'}")
    report({"data": data, "label_space": space.name, "problem_count": count, "parts": results}, json_file)
    return EXIT_FAILED if count else 0


def _parts(data: str, label_space: str) -> list[_Part]:
    """What to check in which label space; the target's last.

    Raises:
        ConfigError: if a configuration cannot be read, names no data, or the label space is unknown.
    """
    if Path(data).suffix not in {".yaml", ".yml"}:
        return [_Part("data", data, load_label_space(label_space), needs_labels=False)]
    settings = load_settings(OfflineSettings, Path(data))
    parts = list(_configured(settings))
    if not parts:
        raise ConfigError(f"{data} names no data: set data.source, or check a reference instead")
    return parts


def _configured(settings: OfflineSettings) -> Iterator[_Part]:
    revealed = settings.data.budget > 0
    target = load_label_space(settings.label_space)
    for role in ("source", "labelled", "unlabelled", "validation"):
        reference = getattr(settings.data, role)
        if reference and (role in PARTS[settings.mode] or role == "validation"):
            space = source_space(settings, target) if role == "source" else target
            yield _Part(role, reference, space, needs_labels=role != "unlabelled" or revealed)


def _check_part(part: _Part) -> DataReport:
    try:
        samples = open_samples(part.reference, part.space)
    except DataError as error:
        failed = DataReport(0, np.zeros(part.space.num_classes, np.int64))
        failed.problem(str(error))
        return failed
    with progress_bar(f"checking {part.role}") as tell:
        return check_data(samples, part.space, needs_labels=part.needs_labels, on_progress=tell)


def _show(part: _Part, found: DataReport) -> None:
    say(
        f"{part.role} {part.reference}: {found.frames} frames, {found.labelled} labelled, "
        f"sizes {', '.join(found.sizes) or '-'}"
    )
    if found.pixels.any():
        table = Table("class", "pixels %")
        for name, share in zip(part.space.classes, 100 * found.pixels / found.pixels.sum(), strict=True):
            table.add_row(name, f"{share:.2f}")
        console.print(table)
    for words in found.problems:
        say(words, alarm="problem")
    if found.problem_count > len(found.problems):
        say(f"… and {found.problem_count - len(found.problems)} more problems")
    for words in found.notes:
        say(f"note: {words}")
