"""What every source of frames looks like to those who train, evaluate and replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ssada_core.errors import DataError
from ssada_core.labels import IGNORE, LabelSpace

Array = NDArray[np.uint8]


class Samples(Protocol):
    """An ordered collection of frames, with or without labels. Order is the drive's order."""

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def name(self, index: int) -> str:
        """A name that identifies the frame within the collection."""
        ...

    def image(self, index: int) -> Array:
        """The frame, uint8 H×W×3 BGR.

        Raises:
            DataError: if it cannot be read.
        """
        ...

    def label(self, index: int) -> Array | None:
        """Its label, uint8 H×W of class ids and 255, or None where there is none.

        Raises:
            DataError: if it cannot be read or does not fit the frame.
        """
        ...


@runtime_checkable
class EncodedSamples(Protocol):
    """Samples that also know the bytes their frames are stored as, so that those can be passed on unchanged."""

    def jpeg(self, index: int) -> bytes | None:
        """The frame's own JPEG bytes, or None where it is not stored as JPEG.

        Raises:
            DataError: if they cannot be read, or are cut short.
        """
        ...


def jpeg_of(samples: Samples, index: int) -> bytes | None:
    """The frame's own JPEG bytes, or None where ``samples`` has none."""
    return samples.jpeg(index) if isinstance(samples, EncodedSamples) else None


class ArraySamples:
    """Frames and labels held in memory."""

    def __init__(
        self,
        images: Sequence[Array],
        labels: Sequence[Array | None] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Keep references to the arrays.

        Raises:
            DataError: if the lengths differ, or a label's size is not its image's.
        """
        self._images = list(images)
        self._labels: list[Array | None] = list(labels) if labels is not None else [None] * len(self._images)
        self._names = list(names) if names is not None else [f"{index:06d}" for index in range(len(self._images))]
        if not len(self._images) == len(self._labels) == len(self._names):
            raise DataError(
                f"{len(self._images)} images, {len(self._labels)} labels, {len(self._names)} names: give one each"
            )
        for name, image, label in zip(self._names, self._images, self._labels, strict=True):
            check_sizes(name, image, label)

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """See :class:`Samples`."""
        return self._names[index]

    def image(self, index: int) -> Array:
        """See :class:`Samples`."""
        return self._images[index]

    def label(self, index: int) -> Array | None:
        """See :class:`Samples`."""
        return self._labels[index]


def mapped_space(space: LabelSpace) -> LabelSpace:
    """The same classes for labels that hold class ids already (bags, packs), not a data set's raw ids."""
    return replace(space, id_map={}, ignored_ids=frozenset({IGNORE})) if space.id_map else space


class Subset:
    """Some frames of another collection, in the order of ``indices``; nothing is read before it is asked for."""

    def __init__(self, samples: Samples, indices: Sequence[int]) -> None:
        self._samples = samples
        self._indices = list(indices)

    def origin(self, index: int) -> tuple[Samples, int]:
        """The collection that a frame comes from, and its number there."""
        return self._samples, self._indices[index]

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        """See :class:`Samples`."""
        return self._samples.name(self._indices[index])

    def image(self, index: int) -> Array:
        """See :class:`Samples`."""
        return self._samples.image(self._indices[index])

    def label(self, index: int) -> Array | None:
        """See :class:`Samples`."""
        return self._samples.label(self._indices[index])


def spread(samples: Samples, count: int) -> Samples:
    """At most ``count`` frames, spread evenly over a collection from its first to its last."""
    if len(samples) <= count:
        return samples
    return Subset(samples, np.linspace(0, len(samples) - 1, count).round().astype(int).tolist())


def check_sizes(name: str, image: Array, label: Array | None) -> None:
    """Refuse a label whose size is not its frame's.

    Raises:
        DataError: naming both sizes.
    """
    if label is not None and label.shape != image.shape[:2]:
        raise DataError(
            f"{name}: label is {label.shape[1]}x{label.shape[0]} but the image is {image.shape[1]}x{image.shape[0]}: "
            "export the label at the image's size"
        )
