"""Frames and labels that lie in files, however the files were found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssada_core.data.encodings import decode_compressed, decode_label, displayed_size, picture_size, sniff
from ssada_core.data.image_files import read_bytes
from ssada_core.data.samples import Array, check_sizes
from ssada_core.errors import DataError, EncodingError
from ssada_core.labels import LabelSpace


@dataclass(frozen=True)
class SampleFile:
    """One frame on disk: its name in the collection, its image and, where there is one, its label."""

    name: str
    image: Path
    label: Path | None


class FileSamples:
    """Frames and labels in files, read each time they are asked for."""

    def __init__(self, files: Sequence[SampleFile], label_space: LabelSpace) -> None:
        """Keep the paths; nothing is read yet."""
        self._files = list(files)
        self.label_space = label_space

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self._files[index].name

    def image(self, index: int) -> Array:
        """See :class:`~ssada_core.data.samples.Samples`."""
        path = self._files[index].image
        try:
            return decode_compressed(read_bytes(path))
        except EncodingError as error:
            raise DataError(f"{path}: {error}") from error

    def jpeg(self, index: int) -> bytes | None:
        """See :class:`~ssada_core.data.samples.EncodedSamples`; half a file is not passed on."""
        path = self._files[index].image
        data = read_bytes(path)
        if sniff(data) != "jpeg":
            return None
        try:
            picture_size(data)
        except EncodingError as error:
            raise DataError(f"{path}: {error}") from error
        return data

    def label(self, index: int) -> Array | None:
        """Class ids in the label space, checked against the frame's size.

        See :class:`~ssada_core.data.samples.Samples`.
        """
        entry, raw = self._files[index], self.raw_label(index)
        if entry.label is None or raw is None:
            return None
        label = self.label_space.decode(raw, source=str(entry.label))
        try:
            size = displayed_size(read_bytes(entry.image))
        except EncodingError as error:
            raise DataError(f"{entry.image}: {error}") from error
        if label.shape != size:
            check_sizes(str(entry.label), self.image(index), label)
        return label

    def raw_label(self, index: int) -> Array | None:
        """The ids that the label's file holds, uint8 H×W, or None where there is none.

        Raises:
            DataError: if it cannot be read.
        """
        path = self._files[index].label
        if path is None:
            return None
        try:
            return self._decode_ids(read_bytes(path))
        except EncodingError as error:
            raise DataError(f"{path}: {error}") from error

    def _decode_ids(self, data: bytes) -> Array:
        return decode_label(data)
