"""Frames in files: list files, folders, a cache in memory, and one function that opens whatever is named."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from ssada_core.data.bag_samples import BagSamples
from ssada_core.data.file_samples import FileSamples, SampleFile
from ssada_core.data.image_files import IMAGE_SUFFIXES, images_by_stem, read_list
from ssada_core.data.layouts import LAYOUTS, open_layout
from ssada_core.data.samples import Array, Samples, Subset, jpeg_of
from ssada_core.data.simulated_drive import SimulatedDrive, SimulatedSamples
from ssada_core.data.source_pack import PackSamples
from ssada_core.errors import DataError
from ssada_core.labels import CAMVID, LabelSpace

_SIMULATED = re.compile(r"sim:(\w+)(?::(\d+)(?::(\d+)-(\d+)(?::([1-9]\d*))?)?)?")
_STRETCH = re.compile(r"(frames|except):(\d+)-(\d+):(.+)")
_SIMULATED_FRAMES = 200
_DIGITS = 9


class ListSamples(FileSamples):
    """The frames of a text file with lines ``image label`` or ``image``, relative to the file's folder.

    Blank lines and lines that begin with ``#`` are skipped; a path with spaces stands in quotes. A frame's name is
    its image as the line has it.
    """

    def __init__(self, path: Path, label_space: LabelSpace) -> None:
        """Read the list and see that every file in it exists.

        Raises:
            DataError: naming the line, if the list is unreadable, empty, malformed, or names a file that is not there.
        """
        lines = read_list(path)
        super().__init__([_listed(path, *line) for line in lines], label_space)
        self.path = path


class DirectorySamples(FileSamples):
    """Images of a folder in the order of their names, with the labels of the same stem in another folder.

    Names are the stems. With a list file, its lines choose and order the frames: a line's image is looked up by stem in
    the folder, else relative to the list; so is its label, if it names one.
    """

    def __init__(
        self, images: Path, labels: Path | None, label_space: LabelSpace, *, list_file: Path | None = None
    ) -> None:
        """Match the files by stem.

        Raises:
            DataError: if a folder is missing or has no images, two images share a stem, no label matches, or the list
                names a frame that is not there.
        """
        image_of = images_by_stem(images)
        label_of = images_by_stem(labels) if labels is not None else {}
        if list_file is None:
            files = [SampleFile(stem, path, label_of.get(stem)) for stem, path in image_of.items()]
        else:
            lines = read_list(list_file)
            files = [_chosen(list_file, number, words, image_of, label_of) for number, words in lines]
        if labels is not None and not any(entry.label for entry in files):
            raise DataError(f"no label in {labels} has the name of an image in {images}: labels are matched by stem")
        super().__init__(files, label_space)


class CachedSamples:
    """Samples that keep what they decoded, up to a limit, so that it is decoded once.

    Thread-safe. The arrays are shared: do not change them.
    """

    def __init__(self, samples: Samples, limit_bytes: int) -> None:
        """Wrap ``samples``; beyond ``limit_bytes`` of arrays nothing more is kept."""
        self._samples = samples
        self._free = limit_bytes
        self._images: dict[int, Array] = {}
        self._labels: dict[int, Array | None] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self._samples.name(index)

    def jpeg(self, index: int) -> bytes | None:
        """See :class:`~ssada_core.data.samples.EncodedSamples`; not kept."""
        return jpeg_of(self._samples, index)

    def image(self, index: int) -> Array:
        """See :class:`~ssada_core.data.samples.Samples`."""
        image = self._images.get(index)
        if image is None:
            image = self._samples.image(index)
            if self._reserve(image.nbytes):
                self._images[index] = image
        return image

    def label(self, index: int) -> Array | None:
        """See :class:`~ssada_core.data.samples.Samples`."""
        if index in self._labels:
            return self._labels[index]
        label = self._samples.label(index)
        if self._reserve(label.nbytes if label is not None else 0):
            self._labels[index] = label
        return label

    def _reserve(self, size: int) -> bool:
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True


def open_samples(reference: str, label_space: LabelSpace) -> Samples:
    """Open whatever ``reference`` names.

    - a text file: :class:`ListSamples`;
    - a folder with ``images/`` (and ``labels/``), or of images: :class:`DirectorySamples`;
    - a source pack (``.zip``): :class:`~ssada_core.data.source_pack.PackSamples`;
    - a bag (folder with ``metadata.yaml``, ``.mcap``, ``.db3``): :class:`~ssada_core.data.bag_samples.BagSamples`;
    - ``sim:DOMAIN[:SEED[:START-STOP[:STEP]]]``: frames START to STOP - 1 of a simulated drive (first 200 without);
    - ``LAYOUT:FOLDER[:SPLIT]``: a public data set as its authors ship it, such as ``cityscapes:data/cityscapes:val``
      (see :mod:`ssada_core.data.layouts`);
    - ``every:N:REFERENCE``: the first of each N frames of another reference;
    - ``frames:START-STOP:REFERENCE``: frames START to STOP - 1 (from 0) of another reference;
    - ``except:START-STOP:REFERENCE``: all but those.

    Raises:
        DataError: if it is nothing of these, cannot be read, or its labels are in another label space.
        ConfigError: if the simulated drive has no such domain.
    """
    if reference.startswith("sim:"):
        check_simulated(label_space)
        return _simulated(reference)
    kind = reference.partition(":")[0]
    if kind == "every":
        return _every(reference, label_space)
    if kind in {"frames", "except"}:
        return _stretch(reference, label_space)
    if kind in LAYOUTS and ":" in reference:
        return open_layout(reference, label_space)
    return _opened_path(reference, label_space)


def _opened_path(reference: str, label_space: LabelSpace) -> Samples:
    path = Path(reference)
    if path.is_dir():
        return _opened_folder(path, label_space)
    if not path.exists():
        kinds = "a list file, a folder, a source pack, a bag, sim:DOMAIN or LAYOUT:FOLDER"
        raise DataError(f"'{reference}' is not there: name {kinds}")
    if path.suffix == ".zip":
        return _opened_pack(path, label_space)
    if path.suffix in {".mcap", ".db3"}:
        return BagSamples(path, label_space)
    return ListSamples(path, label_space)


def check_simulated(label_space: LabelSpace) -> None:
    """Refuse a label space that the simulated drive's labels are not in.

    Raises:
        DataError: naming both.
    """
    if label_space.classes != CAMVID.classes:
        raise DataError(f"the simulated drive is labelled in label space '{CAMVID.name}', not '{label_space.name}'")


def _every(reference: str, label_space: LabelSpace) -> Samples:
    _, number, inner = (*reference.split(":", 2), "", "")[:3]
    if not number.isdecimal() or int(number) < 1 or not inner:
        raise DataError(f"'{reference}' is not every:N:REFERENCE, such as every:4:cityscapes:data/cityscapes:train")
    samples = open_samples(inner, label_space)
    return Subset(samples, range(0, len(samples), int(number)))


def _stretch(reference: str, label_space: LabelSpace) -> Samples:
    match = _STRETCH.fullmatch(reference)
    if match is None:
        raise DataError(f"'{reference}' is not frames:START-STOP:REFERENCE, such as frames:0-81:data/day.txt")
    kind, start, stop, inner = match.groups()
    samples = open_samples(inner, label_space)
    if not int(start) < int(stop) <= len(samples):
        raise DataError(f"'{reference}': START is below STOP, and STOP at most {len(samples)}, the number of frames")
    inside = range(int(start), int(stop))
    chosen = inside if kind == "frames" else [index for index in range(len(samples)) if index not in inside]
    if not chosen:
        raise DataError(f"'{reference}' leaves no frame")
    return Subset(samples, chosen)


def _opened_folder(path: Path, label_space: LabelSpace) -> Samples:
    if (path / "metadata.yaml").exists() or any(path.glob("*.mcap")) or any(path.glob("*.db3")):
        return BagSamples(path, label_space)
    if (path / "images").is_dir():
        labels = path / "labels"
        return DirectorySamples(path / "images", labels if labels.is_dir() else None, label_space)
    return DirectorySamples(path, None, label_space)


def _opened_pack(path: Path, label_space: LabelSpace) -> PackSamples:
    pack = PackSamples(path)
    if pack.label_space.classes != label_space.classes:
        raise DataError(f"source pack {path} is in label space '{pack.label_space.name}', not '{label_space.name}'")
    return pack


def _simulated(reference: str) -> SimulatedSamples:
    match = _SIMULATED.fullmatch(reference)
    if match is None:
        raise DataError(f"'{reference}' is not sim:DOMAIN[:SEED[:START-STOP[:STEP]]], such as sim:night:0:100-200:5")
    domain, seed, start, stop, step = match.groups()
    if any(len(number or "") > _DIGITS for number in (seed, start, stop, step)):
        raise DataError(f"'{reference}': SEED, START, STOP and STEP have at most {_DIGITS} digits")
    indices = range(int(start or 0), int(stop or _SIMULATED_FRAMES), int(step or 1))
    if not indices:
        raise DataError(f"'{reference}' has no frames: STOP comes after START")
    return SimulatedSamples(SimulatedDrive(seed=int(seed or 0)), domain, indices)


def _listed(path: Path, number: int, words: list[str]) -> SampleFile:
    files = [path.parent / word for word in words]
    for kind, file in zip(("image", "label"), files, strict=False):
        if not file.is_file():
            raise DataError(f"{path}:{number}: {kind} {file} is not there")
    return SampleFile(words[0], files[0], files[1] if len(files) == 2 else None)


def _chosen(
    path: Path, number: int, words: list[str], image_of: dict[str, Path], label_of: dict[str, Path]
) -> SampleFile:
    image = _resolve(path, words[0], image_of)
    if image is None:
        raise DataError(f"{path}:{number}: image '{words[0]}' is neither in the folder of images nor beside the list")
    label = label_of.get(image.stem)
    if label is None and len(words) == 2:
        label = _resolve(path, words[1], label_of)
        if label is None:
            raise DataError(f"{path}:{number}: label '{words[1]}' is not there")
    return SampleFile(image.stem, image, label)


def _resolve(path: Path, word: str, known: dict[str, Path]) -> Path | None:
    # A line may be a bare stem, in which a dot does not begin a suffix.
    name = Path(word)
    stem = name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name
    if stem in known:
        return known[stem]
    return path.parent / word if (path.parent / word).is_file() else None
