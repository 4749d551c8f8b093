"""Source packs: a class-balanced few hundred labelled frames of the first model's data, in one file.

A vehicle carries one so that every round replays what the model first learned, and the gate can tell forgetting
(ARCHITECTURE, contract 6). The file is a zip without compression: ``pack.json``, ``images/NNNNNN.jpg`` and
``labels/NNNNNN.png`` with class ids. The same frames, seed and quality make the same bytes.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssada_core.data.encodings import decode_compressed, decode_label, encode_jpeg, encode_png
from ssada_core.data.samples import Array, Samples, check_sizes, jpeg_of, mapped_space
from ssada_core.errors import ConfigError, DataError, EncodingError
from ssada_core.labels import LabelSpace

INDEX_FILE = "pack.json"
# Zip entries carry a date; a fixed one keeps equal packs equal.
_DATE = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# Share of one frame that a class is taken to have before any frame is chosen.
_PRIOR = 1e-3
Progress = Callable[[int, int], None]


class PackFrame(BaseModel):
    """One frame of a pack: where it came from and the names of its two entries."""

    model_config = ConfigDict(extra="forbid")

    name: str
    image: str
    label: str


class PackIndex(BaseModel):
    """``pack.json``."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["ssada-source-pack"] = "ssada-source-pack"
    version: Literal[1] = 1
    label_space: dict[str, Any]
    pixels: dict[str, int] = Field(description="Labelled pixels of each class in the pack.")
    source: dict[str, Any] = Field(description="How the frames were chosen: available, seed, quality.")
    frames: list[PackFrame] = Field(min_length=1)


def create_pack(
    samples: Samples,
    label_space: LabelSpace,
    out: Path,
    *,
    frames: int = 200,
    seed: int = 0,
    quality: int = 95,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Choose a class-balanced subset of the labelled frames and write it as one file, atomically.

    Frames that are stored as JPEG go in byte for byte; others are encoded.

    Args:
        samples: labelled frames; those without a label are passed over.
        label_space: of the labels that ``samples`` gives (class ids and 255).
        out: the file, named ``*.zip``; replaced if it exists.
        frames: how many to choose; all, if there are fewer.
        seed: decides between frames that are equally good.
        quality: JPEG quality of frames that are not stored as JPEG.
        progress: called with (done, total) as labels are read.

    Returns:
        ``pack.json`` without its frames, with their number (``frames``), the file's size (``bytes``) and ``path``.

    Raises:
        DataError: if no frame has a label, one cannot be read, or the file cannot be written.
    """
    if frames < 1:
        raise DataError(f"a source pack of {frames} frames is empty: ask for at least 1")
    known, histograms = _histograms(samples, label_space.num_classes, progress)
    if not known:
        raise DataError("no frame has a labelled pixel: a source pack needs labelled frames")
    chosen = choose_balanced(histograms, frames, seed=seed)
    pixels = histograms[chosen].sum(axis=0)
    index = PackIndex(
        label_space=label_space.to_dict(),
        pixels={name: int(count) for name, count in zip(label_space.classes, pixels, strict=True)},
        source={"available": len(known), "seed": seed, "quality": quality},
        frames=[_entry(number, samples.name(known[which])) for number, which in enumerate(chosen)],
    )
    _write(out, index, samples, [known[which] for which in chosen], quality)
    return {
        **index.model_dump(exclude={"frames"}),
        "frames": len(chosen),
        "bytes": out.stat().st_size,
        "path": str(out),
    }


def choose_balanced(histograms: NDArray[np.int64], count: int, *, seed: int) -> list[int]:
    """Choose rows whose classes are as evenly present as can be, in ascending order.

    Greedy: each step adds the frame that most raises ``Σ_c log(share_c)``, where ``share_c`` sums, over the chosen
    frames, the part of each frame that class ``c`` fills; so the rarest classes weigh most. The sum is submodular and
    grows, for which greedy is within 1 - 1/e of the best choice (Nemhauser et al., 1978).

    Args:
        histograms: int64 N×C, labelled pixels of each class in each frame; no row is all zero.
        count: how many to choose; all, if there are fewer.
        seed: decides between equal gains.
    """
    order = np.random.default_rng(seed).permutation(len(histograms))
    shares = histograms[order] / histograms[order].sum(axis=1, keepdims=True)
    total = np.full(histograms.shape[1], _PRIOR)
    free = np.ones(len(order), np.bool_)
    chosen: list[int] = []
    for _ in range(min(count, len(order))):
        gain = np.log1p(shares / total).sum(axis=1)
        best = int(np.argmax(np.where(free, gain, -1.0)))
        free[best] = False
        total += shares[best]
        chosen.append(int(order[best]))
    return sorted(chosen)


class PackSamples:
    """The frames of a source pack.

    Each read opens the file anew, so that threads and forked processes can share one object.

    Attributes:
        label_space: the pack's own.
        index: its ``pack.json``.
    """

    def __init__(self, path: Path) -> None:
        """Check the index and that every entry it names is there.

        Raises:
            DataError: if the file is missing, not a source pack, or cut short.
        """
        self.path = path
        self._entries = _directory(path)
        self.index = _parse_index(path, self._read(INDEX_FILE))
        try:
            self.label_space = LabelSpace.from_dict(self.index.label_space, source=f"{path}: {INDEX_FILE}")
        except ConfigError as error:
            raise DataError(str(error)) from error
        self._ids = mapped_space(self.label_space)
        for frame in self.index.frames:
            self._entry(frame.image)
            self._entry(frame.label)

    def __len__(self) -> int:
        return len(self.index.frames)

    def name(self, index: int) -> str:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self.index.frames[index].name

    def jpeg(self, index: int) -> bytes:
        """See :class:`~ssada_core.data.samples.EncodedSamples`."""
        return self._read(self.index.frames[index].image)

    def image(self, index: int) -> Array:
        """See :class:`~ssada_core.data.samples.Samples`."""
        try:
            return decode_compressed(self.jpeg(index))
        except EncodingError as error:
            raise DataError(f"{self.path}: {self.index.frames[index].image}: {error}") from error

    def label(self, index: int) -> Array:
        """See :class:`~ssada_core.data.samples.Samples`; every frame of a pack has one."""
        entry = self.index.frames[index].label
        try:
            return self._ids.decode(decode_label(self._read(entry)), source=f"{self.path}: {entry}")
        except EncodingError as error:
            raise DataError(f"{self.path}: {entry}: {error}") from error

    def _entry(self, name: str) -> zipfile.ZipInfo:
        info = self._entries.get(name)
        if info is None:
            raise DataError(f"source pack {self.path} lacks {name}: make it again with 'ssada source pack'")
        if info.compress_type != zipfile.ZIP_STORED:
            raise DataError(f"source pack {self.path}: {name} was compressed by another tool: make it again")
        return info

    def _read(self, name: str) -> bytes:
        info = self._entry(name)
        try:
            with self.path.open("rb") as file:
                file.seek(info.header_offset)
                magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
                data = file.read(info.file_size)
        except (OSError, struct.error, ValueError, OverflowError, MemoryError) as error:
            raise DataError(f"source pack {self.path}: {name} cannot be read: {error}") from error
        if magic != b"PK\x03\x04" or len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise DataError(f"source pack {self.path}: {name} is damaged (checksum): copy or make the file again")
        return data


def _directory(path: Path) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as file:
            return {info.filename: info for info in file.infolist()}
    except FileNotFoundError as error:
        raise DataError(f"source pack {path} is not there: make one with 'ssada source pack'") from error
    # A damaged directory of a zip ends in any of these.
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, OverflowError, struct.error) as error:
        raise DataError(f"source pack {path} cannot be read: {error}: copy or make it again") from error


def _parse_index(path: Path, raw: bytes) -> PackIndex:
    try:
        return PackIndex.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = " ".join(first["msg"].split()).lower()
        raise DataError(f"{path}: {INDEX_FILE}: '{where}' {reason}: make the pack again") from error


def _histograms(samples: Samples, num_classes: int, progress: Progress | None) -> tuple[list[int], NDArray[np.int64]]:
    """Indices of the frames with a labelled pixel, and their class histograms, int64 N×C."""
    known: list[int] = []
    rows: list[NDArray[np.int64]] = []
    for index in range(len(samples)):
        label = samples.label(index)
        if label is not None:
            row = np.bincount(label.ravel(), minlength=256)[:num_classes].astype(np.int64)
            if row.any():
                known.append(index)
                rows.append(row)
        if progress is not None:
            progress(index + 1, len(samples))
    return known, np.stack(rows) if rows else np.zeros((0, num_classes), np.int64)


def _entry(number: int, name: str) -> PackFrame:
    return PackFrame(name=name, image=f"images/{number:06d}.jpg", label=f"labels/{number:06d}.png")


def _write(out: Path, index: PackIndex, samples: Samples, chosen: Sequence[int], quality: int) -> None:
    if not out.name:  # "." and "/"
        raise DataError(f"source pack {out} cannot be written: it is a folder: name a file")
    work = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with work.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                _put(archive, INDEX_FILE, index.model_dump_json(indent=1).encode())
                for entry, which in zip(index.frames, chosen, strict=True):
                    image, label = _encoded(samples, which, quality)
                    _put(archive, entry.image, image)
                    _put(archive, entry.label, label)
            file.flush()
            os.fsync(file.fileno())
        work.replace(out)
    except OSError as error:
        raise DataError(f"source pack {out} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # what hindered the writing may hinder this too
            work.unlink(missing_ok=True)


def _encoded(samples: Samples, index: int, quality: int) -> tuple[bytes, bytes]:
    image, label = samples.image(index), samples.label(index)
    check_sizes(samples.name(index), image, label)
    if label is None:
        raise DataError(f"{samples.name(index)}: its label was there and is gone: leave the data alone meanwhile")
    jpeg = jpeg_of(samples, index)
    return jpeg if jpeg is not None else encode_jpeg(image, quality), encode_png(label)


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), data)
