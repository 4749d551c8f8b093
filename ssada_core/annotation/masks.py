"""Frames and masks on their way to and from other tools, whatever the format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ssada_core.data.samples import Array
from ssada_core.labels import LabelSpace


@dataclass(frozen=True)
class Item:
    """A frame that leaves the pool.

    Attributes:
        query_id: its question, ``<pool id>-<frame number>``.
        jpeg: the frame as it is stored.
        label: uint8 H×W class ids and 255 (the label, or the model's prediction); None where there is neither.
    """

    query_id: str
    jpeg: bytes
    label: Array | None


@dataclass(frozen=True)
class Mask:
    """A label that came in, not yet checked.

    Attributes:
        name: the file it came in.
        query_id: the question that its name answers.
        label: class ids and 255 as far as the format can tell; None where the file cannot be read.
        why: why it cannot be read; empty where it can.
    """

    name: str
    query_id: str
    label: Array | None
    why: str = ""


class MaskFormat(Protocol):
    """One way of writing frames and masks down."""

    def write(self, out: Path, items: Iterable[Item], space: LabelSpace) -> int:
        """Write frames and masks; returns how many frames.

        Raises:
            StoreError: if the disk refuses.
        """
        ...

    def read(self, source: Path, space: LabelSpace) -> Iterator[Mask]:
        """The masks in ``source``. One that cannot be read comes with the reason; the others come all the same.

        Raises:
            DataError: if ``source`` is not of this format at all.
        """
        ...
