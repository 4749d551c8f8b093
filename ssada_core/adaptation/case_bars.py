"""The bars of the regression cases: no flagged moment falls behind the best that a promoted model reached on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ssada_core.errors import StoreError
from ssada_core.store.files import read_json, write_json

CASES_FILE = "cases.json"


class Bar(BaseModel):
    """The bar of one case.

    Attributes:
        miou: best mIoU of a promoted model, percent.
        label: SHA-256 of the label that it was measured against; empty in a file of an earlier release.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    miou: float
    label: str = ""

    def holds(self, label: str) -> bool:
        """Whether it says something about this label: a correction makes it void."""
        return not self.label or not label or self.label == label


class CaseBars:
    """``cases.json`` beside the rounds."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CASES_FILE

    def read(self) -> dict[str, Bar]:
        """All bars, by query id.

        Raises:
            StoreError: if the file cannot be read, or is something else.
        """
        values = read_json(self._path) if self._path.exists() else {}
        try:
            plain = {
                str(case): {"miou": value} if not isinstance(value, dict) else value for case, value in values.items()
            }
            return {case: Bar.model_validate(value) for case, value in plain.items()}
        except (AttributeError, ValidationError) as error:
            raise StoreError(
                f"{self._path} does not list regression cases: delete it, and today's models set the bars"
            ) from error

    def holding(self, labels: Mapping[str, str]) -> dict[str, float]:
        """The mIoU in percent by query id, of the bars that hold for these labels (SHA-256 by query id).

        Raises:
            StoreError: if the file cannot be read, or is something else.
        """
        return {case: bar.miou for case, bar in self.read().items() if bar.holds(labels.get(case, ""))}

    def lift(self, cases: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> None:
        """A version was promoted: what it reached on a case, where that is more, is the bar from now on.

        Args:
            cases: mIoU of each model by query id, as the decision has them.
            labels: SHA-256 of the labels they were measured against.

        Raises:
            StoreError: if the disk refuses, or the file is something else.
        """
        bars = self.read()
        for case, figures in cases.items():
            reached, label = figures.get("challenger"), labels.get(case, "")
            if reached is None:
                continue
            before = bars.get(case)
            best = max(before.miou, reached) if before is not None and before.holds(label) else reached
            bars[case] = Bar(miou=best, label=label)
        if bars:
            write_json(self._path, {case: bar.model_dump() for case, bar in bars.items()})
