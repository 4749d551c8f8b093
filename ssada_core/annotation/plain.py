"""Masks as files of ids: plain PNGs with a list, and folders as Cityscapes ships them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssada_core.annotation.masks import Item, Mask
from ssada_core.data.encodings import decode_compressed, decode_label, encode_png
from ssada_core.data.samples import Array
from ssada_core.errors import DataError
from ssada_core.labels import IGNORE, LabelSpace
from ssada_core.store.files import make_directory, write_atomic, write_json

MAX_BYTES = 64 << 20


class PlainMasks:
    """``images/<query id>.jpg``, ``labels/<query id>.png`` (class ids, 255 where there is none) and ``list.txt``.

    The list is what ``--data`` takes everywhere. Reads any folder, and what is below it, of ``<query id>.png``.
    """

    def write(self, out: Path, items: Iterable[Item], space: LabelSpace) -> int:
        """Write frames and masks into a folder; returns how many frames.

        Raises:
            StoreError: if the disk refuses.
        """
        lines = []
        make_directory(out / "images")
        make_directory(out / "labels")
        for item in items:
            write_atomic(out / "images" / f"{item.query_id}.jpg", item.jpeg)
            lines.append(f"images/{item.query_id}.jpg")
            if item.label is not None:
                write_atomic(out / "labels" / f"{item.query_id}.png", encode_png(item.label))
                lines[-1] += f" labels/{item.query_id}.png"
        write_atomic(out / "list.txt", "".join(f"{line}\n" for line in lines).encode())
        write_json(out / "label_space.json", space.to_dict())
        return len(lines)

    def read(self, source: Path, space: LabelSpace) -> Iterator[Mask]:
        """The PNGs below a folder, by their names.

        Raises:
            DataError: if there are none.
        """
        for path in _pngs(source):
            yield _mask(path, path.stem, replace(space, id_map={}))


class CityscapesMasks:
    """``leftImg8bit/SPLIT/POOL/*_leftImg8bit.png`` and ``gtFine/…/*_gtFine_{labelIds,labelTrainIds,color}.png``.

    The pool's id stands for the city, the frame's number for the frame. ``labelIds`` has the ids that the label space's
    files have (Cityscapes' own where it is Cityscapes), ``labelTrainIds`` the class ids.
    """

    SPLIT = "train"
    _ENDINGS = ("_gtFine_labelIds", "_gtFine_labelTrainIds")

    def write(self, out: Path, items: Iterable[Item], space: LabelSpace) -> int:
        """Write frames and masks into a folder; returns how many frames.

        Raises:
            StoreError: if the disk refuses.
        """
        count = 0
        raw_ids = _raw_ids(space)
        for item in items:
            pool, _, number = item.query_id.partition("-")
            stem = f"{pool}_000000_{number}"
            images, labels = (out / half / self.SPLIT / pool for half in ("leftImg8bit", "gtFine"))
            make_directory(images)
            write_atomic(images / f"{stem}_leftImg8bit.png", encode_png(decode_compressed(item.jpeg)))
            count += 1
            if item.label is not None:
                make_directory(labels)
                for ending, picture in (
                    ("labelIds", raw_ids[item.label]),
                    ("labelTrainIds", item.label),
                    ("color", space.palette_bgr()[item.label]),
                ):
                    write_atomic(labels / f"{stem}_gtFine_{ending}.png", encode_png(picture))
        return count

    def read(self, source: Path, space: LabelSpace) -> Iterator[Mask]:
        """The ``labelIds`` below a folder, or ``labelTrainIds`` where a frame has only those.

        Raises:
            DataError: if there are none.
        """
        found: dict[str, Path] = {}
        for ending in reversed(self._ENDINGS):
            found |= {path.stem.removesuffix(ending): path for path in _pngs(source) if path.stem.endswith(ending)}
        if not found:
            raise DataError(f"{source} has no *{self._ENDINGS[0]}.png: give the folder that holds gtFine")
        for stem, path in sorted(found.items()):
            city, _, rest = stem.partition("_")
            trained = path.stem.endswith(self._ENDINGS[1])
            yield _mask(path, f"{city}-{rest.rpartition('_')[2]}", replace(space, id_map={}) if trained else space)


def _raw_ids(space: LabelSpace) -> Array:
    """Class id → id in files; 255 → the least id that means no class there (Cityscapes: 0, unlabelled)."""
    table = np.full(256, min(space.ignored_ids - space.id_map.keys(), default=IGNORE), np.uint8)
    for class_id in range(space.num_classes):
        table[class_id] = class_id
    for raw, class_id in space.id_map.items():
        table[class_id] = raw
    return table


def _pngs(source: Path) -> list[Path]:
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() == ".png") if source.is_dir() else []
    if not found:
        raise DataError(f"{source} is no folder with PNG files: give the folder that holds the masks")
    return found


def _mask(path: Path, query_id: str, space: LabelSpace) -> Mask:
    try:
        label = space.decode(decode_label(_read(path)), source=path.name)
    except DataError as error:
        return Mask(path.name, query_id, None, str(error))
    return Mask(path.name, query_id, label)


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise DataError(f"{path.name} is no plain file of at most {MAX_BYTES} bytes")
            return file.read()
    except OSError as error:
        raise DataError(f"{path.name} is a link, or cannot be read ({error.strerror}): give the file itself") from error
