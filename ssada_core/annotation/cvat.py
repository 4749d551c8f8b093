"""CVAT's "Segmentation mask 1.1": a zip file of colour masks, and ``labelmap.txt`` that says what the colours mean.

An archive written here holds the frames as well (``JPEGImages``), as CVAT's own do with "save images": imported as a
project's data set it brings frames and masks, uploaded as a task's annotations only the masks.
"""

from __future__ import annotations

import contextlib
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from ssada_core.annotation.masks import Item, Mask
from ssada_core.data.encodings import decode_compressed, decode_label, encode_png
from ssada_core.data.samples import Array
from ssada_core.errors import DataError, EncodingError
from ssada_core.labels import IGNORE, Color, LabelSpace
from ssada_core.settings import nearest
from ssada_core.store.files import beside, store_error

LABEL_MAP = "labelmap.txt"
CLASSES, OBJECTS, IMAGES = "SegmentationClass", "SegmentationObject", "JPEGImages"
SUBSET = "ImageSets/Segmentation/default.txt"
VOID = ("background", "unlabelled", "unlabeled", "void", "ignore")
"""Names that mean "no class", unless the label space has a class of that name; the first free one is written."""
MAX_BYTES, MAX_MASKS = 64 << 20, 100_000
"""Larger files and archives with more masks are refused before memory is taken for them."""
_BROKEN = (zipfile.BadZipFile, RuntimeError, EOFError, OSError, zlib.error, lzma.LZMAError, UnicodeDecodeError)
"""What a corrupt, encrypted or cut archive raises; RuntimeError also for compressions that nobody can read."""
_VOID_COLOURS: tuple[Color, ...] = ((0, 0, 0), (224, 224, 192), (1, 1, 1))


class CvatMasks:
    """Reads and writes the archives; a :class:`~ssada_core.annotation.masks.MaskFormat`."""

    def write(self, out: Path, items: Iterable[Item], space: LabelSpace) -> int:
        """Write frames and masks into one zip file; returns how many frames.

        Raises:
            StoreError: if the disk refuses.
        """
        temporary = beside(out)
        try:
            with zipfile.ZipFile(temporary, "w") as archive:
                count = _write(archive, items, space)
            temporary.replace(out)
        except OSError as error:
            raise store_error("write", out, error) from error
        finally:
            with contextlib.suppress(OSError):  # what hindered the writing may hinder this too
                temporary.unlink(missing_ok=True)
        return count

    def read(self, source: Path, space: LabelSpace) -> Iterator[Mask]:
        """The masks of an archive, by the colours of its own label map.

        Raises:
            DataError: if it is no such archive, or has a label that the label space does not.
        """
        try:
            with zipfile.ZipFile(source) as archive:
                yield from _read(archive, source, space)
        except _BROKEN as error:
            raise DataError(
                f"{source} cannot be read as a zip file ({error}): export 'Segmentation mask 1.1'"
            ) from error


def _write(archive: zipfile.ZipFile, items: Iterable[Item], space: LabelSpace) -> int:
    names = []
    palette = np.zeros((256, 3), np.uint8)
    rows = label_map(space)
    palette[: space.num_classes] = [color for _, color in rows[1:]]
    palette[IGNORE] = rows[0][1]
    for item in items:
        names.append(item.query_id)
        archive.writestr(f"{IMAGES}/{item.query_id}.jpg", item.jpeg)
        if item.label is not None:
            for folder, table in ((CLASSES, palette), (OBJECTS, _object_colours())):
                archive.writestr(f"{folder}/{item.query_id}.png", encode_png(table[:, ::-1][item.label]))
    lines = [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in rows]
    archive.writestr(LABEL_MAP, "\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
    archive.writestr(SUBSET, "".join(f"{name}\n" for name in names))
    return len(names)


def label_map(space: LabelSpace) -> list[tuple[str, Color]]:
    """Label and colour (RGB) of "no class", then of every class."""
    void = next(name for name in VOID if name not in space.classes)
    color = next(color for color in _VOID_COLOURS if color not in space.colors)
    return [(void, color), *zip(space.classes, space.colors, strict=True)]


def _object_colours() -> Array:
    """One object per class, in Pascal VOC's colours: the bits of its number spread over the channels; 255 is black."""
    table = np.zeros((256, 3), np.uint8)
    for index in range(IGNORE):
        number = index + 1
        for shift in range(8):
            for channel in range(3):
                table[index, channel] |= (number >> (3 * shift + channel) & 1) << (7 - shift)
    return table


def _read(archive: zipfile.ZipFile, source: Path, space: LabelSpace) -> Iterator[Mask]:
    members = [info for info in archive.infolist() if PurePosixPath(info.filename).suffix.lower() == ".png"]
    masks = [info for info in members if CLASSES in PurePosixPath(info.filename).parts[:-1]]
    if not masks:
        raise DataError(f"{source} has no {CLASSES}/*.png: export 'Segmentation mask 1.1'")
    if len(masks) > MAX_MASKS:
        raise DataError(f"{source} has {len(masks)} masks, at most {MAX_MASKS} are taken: split it")
    table = _read_label_map(archive, source, space)
    for info in sorted(masks, key=lambda info: info.filename):
        name = PurePosixPath(info.filename).stem
        try:
            yield Mask(info.filename, name, _decode(archive, info, table))
        except DataError as error:
            yield Mask(info.filename, name, None, str(error))


def _read_label_map(archive: zipfile.ZipFile, source: Path, space: LabelSpace) -> Mapping[Color, int]:
    """Colour → class id and 255, in the archive's order."""
    found = [info for info in archive.infolist() if PurePosixPath(info.filename).name == LABEL_MAP]
    if not found:
        raise DataError(f"{source} has no {LABEL_MAP}: nobody can tell what its colours mean, export it again")
    table: dict[Color, int] = {}
    for number, line in enumerate(_member(archive, found[0]).decode("utf-8", "replace").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            where = f"{source}, {LABEL_MAP} line {number}"
            name, color = _parse(line, where)
            class_id = _class_id(name, space, where)
            if table.setdefault(color, class_id) != class_id:
                raise DataError(f"{where}: '{name}' has the colour of another class: give each its own, export again")
    return table


def _parse(line: str, where: str) -> tuple[str, Color]:
    parts = line.strip().rsplit(":", 3)  # a name may hold colons
    try:
        red, green, blue = (int(value) for value in parts[1].split(","))
    except (ValueError, IndexError):
        raise DataError(f"{where}: '{line.strip()}' is not name:red,green,blue::") from None
    return parts[0], (red, green, blue)


def _class_id(name: str, space: LabelSpace, where: str) -> int:
    if name in space.classes:
        return space.classes.index(name)
    if name.lower() in VOID:
        return IGNORE
    raise DataError(f"{where}: label space '{space.name}' has no class '{name}'{nearest(name, list(space.classes))}")


def _decode(archive: zipfile.ZipFile, info: zipfile.ZipInfo, table: Mapping[Color, int]) -> Array:
    data = _member(archive, info)
    try:
        colours = decode_compressed(data)
    except EncodingError as error:
        raise DataError(f"{info.filename}: {error}") from error
    if data[25] == 0:  # a grey PNG: numbers of the label map's rows
        return _by_index(decode_label(data), list(table.values()), info.filename)
    keys = colours[..., 2].astype(np.int32) << 16 | colours[..., 1].astype(np.int32) << 8 | colours[..., 0]
    label = np.full(keys.shape, IGNORE, np.uint8)
    known = np.zeros(keys.shape, np.bool_)
    for (red, green, blue), class_id in table.items():
        here = keys == (red << 16 | green << 8 | blue)
        label[here] = class_id
        known |= here
    if not known.all():
        key = int(keys[~known][0])
        raise DataError(
            f"{info.filename}: colour {key >> 16},{key >> 8 & 255},{key & 255} is not in {LABEL_MAP}: export it again"
        )
    return label


def _by_index(numbers: Array, ids: list[int], name: str) -> Array:
    if numbers.max(initial=0) >= len(ids):
        raise DataError(f"{name}: label number {numbers.max()} is not in {LABEL_MAP}, which has {len(ids)} rows")
    return np.asarray(ids, np.uint8)[numbers]


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A file of the archive, in memory; nothing is ever unpacked to the disk, so that no name can lead anywhere."""
    if info.file_size > MAX_BYTES:
        raise DataError(f"{info.filename} has {info.file_size} bytes, at most {MAX_BYTES} are taken")
    try:
        with archive.open(info) as file:
            data = file.read(MAX_BYTES + 1)
    except _BROKEN as error:
        raise DataError(f"{info.filename} cannot be read ({error}): export it again") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{info.filename} is larger than it says, at most {MAX_BYTES} bytes are taken")
    return data
