"""The kinds of road a vehicle has met, known again by how their pictures look, whatever the model.

A model's features change with every version; brightness, colour and contrast of the picture do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ssada_core.adaptation.components import MIN_FRAMES, Component, Vectors
from ssada_core.data.samples import Array
from ssada_core.errors import StoreError
from ssada_core.store.files import read_json, write_json

DOMAINS_FILE = "domains.json"
SOURCE = "source"
"""Name of the road that the source pack shows."""

_SIZE = (24, 16)
_BANDS = 4
_LENGTH = 6 * _BANDS
_RATE = 0.001
_KEPT = 120
"""Descriptions kept of each road: enough for its spread."""


def picture(image: Array) -> Vectors:
    """Brightness, colour and contrast of a frame (uint8 H×W×3 BGR) in horizontal bands, float64 ``[24]``."""
    small = cv2.resize(image, _SIZE, interpolation=cv2.INTER_AREA)
    bands = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2Lab), np.float64).reshape(_BANDS, -1, 3)
    return np.concatenate([bands.mean(axis=1).ravel(), np.log1p(bands.std(axis=1)).ravel()])


def _are_pictures(rows: object) -> bool:
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == _LENGTH for row in rows):
        return False
    return all(isinstance(value, (int, float)) and math.isfinite(value) for row in rows for value in row)


class DomainBook:
    """Names and pictures of the roads, in one small file."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one.

        Raises:
            StoreError: if it cannot be read, or is something else.
        """
        self._path = path
        values = read_json(path) if path.exists() else {}
        if not isinstance(values, dict) or not all(_are_pictures(rows) for rows in values.values()):
            raise StoreError(f"{path} does not list roads: delete it, and they are met anew")
        self._pictures: dict[str, list[list[float]]] = values

    def names(self) -> list[str]:
        """All roads, in the order they were met."""
        return list(self._pictures)

    def recognise(self, pictures: Sequence[Vectors], *, but: str = "") -> str | None:
        """The known road that a stretch of pictures shows; None if it is none of them.

        Args:
            pictures: of neighbouring frames.
            but: a road it is not.
        """
        scores: dict[str, float] = {}
        for name, rows in self._pictures.items():
            if name != but and len(rows) >= MIN_FRAMES:
                component = Component.fit(np.asarray(rows))
                bound = component.scores.upper(rate=_RATE, independent=2.0)
                scores[name] = float(component.score(np.stack(list(pictures))).mean()) / bound
        best = min(scores, key=lambda name: scores[name], default=None)
        return best if best is not None and scores[best] <= 1.0 else None

    def new_name(self) -> str:
        """A name that no road has yet."""
        return f"domain-{1 + sum(name.startswith('domain-') for name in self._pictures)}"

    def add(self, name: str, pictures: Sequence[Vectors]) -> None:
        """Keep how a road looks; of one with many pictures, every second goes when there are too many.

        Raises:
            StoreError: if the disk refuses.
        """
        rows = self._pictures.setdefault(name, [])
        rows += [np.round(picture, 3).tolist() for picture in pictures]
        while len(rows) > _KEPT:
            del rows[::2]
        write_json(self._path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(self._pictures)
