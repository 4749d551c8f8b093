"""Curves of a training for TensorBoard (``ssada train``, setting ``tensorboard``)."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from ssada_core.errors import require
from ssada_core.learning.progress import Progress

TENSORBOARD_FOLDER = "tensorboard"


class TensorBoardLog:
    """Writes every figure of every iteration; a resumed training hides what it does again."""

    def __init__(self, folder: Path) -> None:
        """Prepare to write to ``folder``; files appear with the first line.

        Raises:
            MissingExtraError: if TensorBoard is not installed.
        """
        require("tensorboard", extra="tensorboard", purpose="tensorboard: true")
        self._module = require("torch.utils.tensorboard", extra="tensorboard", purpose="tensorboard: true")
        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, line: Progress) -> None:
        """Add one iteration's figures and learning rate."""
        if self._writer is None:
            self._writer = self._module.SummaryWriter(str(self._folder), purge_step=line.iteration)
        for name, value in {**line.figures, "learning_rate": line.learning_rate}.items():
            self._writer.add_scalar(name, value, line.iteration)
