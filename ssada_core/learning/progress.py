"""``progress.jsonl``: one line per iteration, for whoever watches a round."""

from __future__ import annotations

import os
from collections import deque
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from ssada_core.store.files import write_atomic

PROGRESS_FILE = "progress.jsonl"
_RECENT = 100


class Progress(BaseModel):
    """One line of ``progress.jsonl`` (schema: ``docs/schemas/progress.schema.json``).

    Attributes:
        iteration: iterations done, this one included.
        iterations: iterations of the whole round.
        learning_rate: base rate of this iteration.
        figures: ``loss`` and its parts (``loss_source``, ``loss_target``, ``loss_unlabelled``, …), ``confident``
            (share of the pixels with a usable pseudo-label) and ``gradient_norm``.
        seconds: time spent in training so far, over all attempts.
        eta_seconds: what is left at the present rate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iteration: int
    iterations: int
    learning_rate: float
    figures: dict[str, float]
    seconds: float
    eta_seconds: float


def read_progress(path: Path) -> list[Progress]:
    """The complete lines of a progress file; a last one that was cut in half is left out."""
    raw = path.read_bytes().splitlines() if path.exists() else []
    return [line for line in takewhile(lambda line: line is not None, map(_parse, raw)) if line is not None]


def _parse(line: bytes) -> Progress | None:
    try:
        return Progress.model_validate_json(line)
    except ValidationError:
        return None


class ProgressLog:
    """Appends lines; on opening, it forgets those of iterations that will be done again."""

    def __init__(self, path: Path, *, keep: int, silent: bool = False) -> None:
        """Keep the lines of the first ``keep`` iterations; a silent log leaves the file alone.

        Raises:
            StoreError: if the file cannot be written.
        """
        lines = [line for line in read_progress(path) if line.iteration <= keep]
        self._recent = deque(lines, maxlen=_RECENT)
        self._file: BinaryIO | None = None
        if not silent:
            write_atomic(path, b"".join(_encode(line) for line in lines))
            self._file = path.open("ab")

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, line: Progress) -> None:
        """Append a line, visible to other processes at once."""
        self._recent.append(line)
        if self._file is not None:
            self._file.write(_encode(line))
            self._file.flush()

    def recent_losses(self) -> dict[str, float]:
        """The loss and its parts, each the mean over the last tenth of the iterations (100 at most) that have it."""
        if not self._recent:
            return {}
        last = list(self._recent)[-max(1, self._recent[-1].iteration // 10) :]
        found: dict[str, list[float]] = {}
        for name, value in (item for line in last for item in line.figures.items()):
            if name.startswith("loss"):  # one that sets in late is not in every line
                found.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in found.items()}

    def sync(self) -> None:
        """Bring what was written to the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())


def _encode(line: Progress) -> bytes:
    return line.model_dump_json().encode() + b"\n"
