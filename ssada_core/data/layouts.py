"""Public data sets in the folders that their authors ship (METHOD §10).

A reference is ``LAYOUT:FOLDER[:SPLIT]``, such as ``cityscapes:data/cityscapes:val``, ``acdc:data/acdc:night/val`` or
``crosscity:data/NTHU:Rio/Test``; :data:`LAYOUTS` says which there are. A layout knows the ids that its files hold by
the classes' names. So any label space can be read from any of them that has its classes: Cityscapes in SYNTHIA's 16
or the cross-city data's 13, for example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ssada_core import label_tables
from ssada_core.data.encodings import decode_wide_label
from ssada_core.data.file_samples import FileSamples, SampleFile
from ssada_core.data.image_files import images_below
from ssada_core.data.samples import Array
from ssada_core.errors import DataError
from ssada_core.labels import LabelSpace
from ssada_core.settings import nearest

Finder = Callable[[Path, str], list[SampleFile]]
"""From the data set's folder and a split to its frames, in the order of their names."""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk.

    Attributes:
        find: finds the frames of a split.
        splits: what may stand after the folder, for messages; empty if the data set has no splits.
        ids: id in the files → class name; None if files hold the ids of the label space they are opened with.
        void: ids in the files that mean no class.
        wide: labels are 16-bit PNGs with the class in the first channel.
    """

    find: Finder
    splits: str
    ids: Mapping[int, str] | None = None
    void: frozenset[int] = frozenset()
    wide: bool = False


class LayoutSamples(FileSamples):
    """The frames of a public data set; names are paths relative to its folder of images, without suffix."""

    def __init__(self, files: list[SampleFile], label_space: LabelSpace, *, wide: bool) -> None:
        """Keep the paths; nothing is read yet."""
        super().__init__(files, label_space)
        self._wide = wide

    def _decode_ids(self, data: bytes) -> Array:
        return decode_wide_label(data) if self._wide else super()._decode_ids(data)


def open_layout(reference: str, label_space: LabelSpace) -> LayoutSamples:
    """Open ``LAYOUT:FOLDER[:SPLIT]`` in ``label_space``.

    Raises:
        DataError: if there is no such layout or folder, the split is missing or wrong, one half of the data set is not
            there, or the label space has other classes than the data set.
    """
    name, _, rest = reference.partition(":")
    layout = LAYOUTS.get(name)
    if layout is None:
        raise DataError(f"'{reference}': no layout '{name}'{nearest(name, list(LAYOUTS))}")
    folder, _, split = rest.partition(":")
    if bool(split) != bool(layout.splits):
        wanted = f"name a split: {name}:FOLDER:SPLIT with {layout.splits}" if layout.splits else "it has no splits"
        raise DataError(f"'{reference}': {wanted}")
    if not folder or not Path(folder).is_dir():
        raise DataError(f"'{reference}': there is no folder '{folder}': give the folder that the data was unpacked in")
    space = _space_for(name, layout, label_space)
    return LayoutSamples(layout.find(Path(folder), split), space, wide=layout.wide)


def _space_for(name: str, layout: Layout, label_space: LabelSpace) -> LabelSpace:
    """``label_space`` with the ids of this layout's files.

    One set of names must hold the other: a model with fewer classes ignores the rest, and a data set with fewer says
    nothing of the rest. Sets that merely overlap, such as CamVid's and Cityscapes', would drop classes unseen.
    """
    if layout.ids is None:
        return label_space
    there, wanted = set(layout.ids.values()), set(label_space.classes)
    if not (there <= wanted or wanted <= there):
        lacking = sorted(wanted - there)[0]
        raise DataError(
            f"layout '{name}' has no class '{lacking}' of label space '{label_space.name}': "
            "open it with cityscapes, synthia, crosscity, or a YAML label space with its class names"
        )
    id_map = {raw: label_space.index(word) for raw, word in layout.ids.items() if word in wanted}
    return replace(label_space, id_map=id_map, ignored_ids=layout.void | layout.ids.keys() - id_map.keys())


def _cityscapes(root: Path, split: str) -> list[SampleFile]:
    """``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``."""
    _choose(split, ("train", "val", "test"))
    images, labels = _half(root, "leftImg8bit", split), _half(root, "gtFine", split)
    return _paired(images, labels, "_leftImg8bit", "_gtFine_labelIds")


def _acdc(root: Path, split: str) -> list[SampleFile]:
    """``rgb_anon/CONDITION/SPLIT/SEQUENCE/*_rgb_anon.png`` and ``gt/…/*_gt_labelIds.png``; test has no labels."""
    condition, _, part = split.rpartition("/")
    _choose(part, ("train", "val", "test"))
    conditions = ("fog", "night", "rain", "snow")
    if condition:
        _choose(condition, conditions)
    files: list[SampleFile] = []
    for word in [condition] if condition else conditions:
        images = _half(root, "rgb_anon", word, part)
        labels = _half(root, "gt", word, part) if part != "test" else None
        found = _paired(images, labels, "_rgb_anon", "_gt_labelIds")
        files += [replace(entry, name=f"{word}/{part}/{entry.name}") for entry in found]
    return files


def _gta5(root: Path, _split: str) -> list[SampleFile]:
    """``images/*.png`` and ``labels/*.png`` (palette files) of the same names."""
    return _paired(_half(root, "images"), _half(root, "labels"))


def _synthia(root: Path, _split: str) -> list[SampleFile]:
    """``RGB/*.png`` and ``GT/LABELS/*.png`` of SYNTHIA-RAND-CITYSCAPES, in the folder itself or one of that name."""
    inner = root / "RAND_CITYSCAPES"
    root = inner if inner.is_dir() else root
    return _paired(_half(root, "RGB"), _half(root, "GT", "LABELS"))


def _crosscity(root: Path, split: str) -> list[SampleFile]:
    """``CITY/Images/Test/*`` and ``CITY/Labels/Test/*_eval.png``; ``Train`` has no labels."""
    city, _, part = split.partition("/")
    _choose(city, ("Rio", "Rome", "Taipei", "Tokyo"))
    _choose(part, ("Train", "Test"))
    images = _half(root, city, "Images", part)
    labels = _half(root, city, "Labels", part) if part == "Test" else None
    return _paired(images, labels, "", "_eval")


def _camvid(root: Path, split: str) -> list[SampleFile]:
    """``SPLIT/*.png`` and ``SPLITannot/*.png`` of the SegNet tutorial."""
    _choose(split, ("train", "val", "test"))
    return _paired(_half(root, split), _half(root, f"{split}annot"))


def _split_folders(root: Path, split: str) -> list[SampleFile]:
    """``image/SPLIT/*`` and ``label/SPLIT/*`` of the same names (SS-ADA's own data)."""
    return _paired(_half(root, "image", split), _half(root, "label", split))


def _half(root: Path, *parts: str) -> Path:
    folder = root.joinpath(*parts)
    if not folder.is_dir():
        raise DataError(f"{root} has no folder {'/'.join(parts)}: unpack images and labels into the same folder")
    return folder


def _choose(word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        raise DataError(f"split '{word}' is not one of {', '.join(words)}")


def _paired(images: Path, labels: Path | None, ending: str = "", label_ending: str = "") -> list[SampleFile]:
    """Images below a folder whose stems end with ``ending``, each with the label of the same relative name."""
    files: list[SampleFile] = []
    for path in images_below(images):
        if path.stem.endswith(ending):
            name = path.relative_to(images).with_suffix("").as_posix()
            name = name[: len(name) - len(ending)]
            label = labels / f"{name}{label_ending}.png" if labels is not None else None
            files.append(SampleFile(name, path, label if label is not None and label.is_file() else None))
    if not files:
        raise DataError(f"{images} has no images{f' named *{ending}.png' if ending else ''}: unpack them there")
    if labels is not None and not any(entry.label for entry in files):
        expected = f"{files[0].name}{label_ending}.png"
        raise DataError(f"{labels} has no label for any image in {images}: expected names such as {expected}")
    return files


_CITYSCAPES_IDS = {raw: name for name, raw, _ in label_tables.CITYSCAPES}
_CROSSCITY_IDS = {raw: _CITYSCAPES_IDS[raw] for raw in label_tables.CROSSCITY_IDS}
_CROSSCITY_VOID = label_tables.CITYSCAPES_VOID | _CITYSCAPES_IDS.keys() - _CROSSCITY_IDS.keys()

LAYOUTS: Mapping[str, Layout] = {
    "cityscapes": Layout(_cityscapes, "train, val or test", _CITYSCAPES_IDS, label_tables.CITYSCAPES_VOID),
    "gta5": Layout(_gta5, "", _CITYSCAPES_IDS, label_tables.CITYSCAPES_VOID),
    "synthia": Layout(
        _synthia,
        "",
        {raw: name for name, raw in label_tables.SYNTHIA_IDS.items()},
        label_tables.SYNTHIA_VOID,
        wide=True,
    ),
    "acdc": Layout(
        _acdc, "train, val, test or CONDITION/SPLIT, such as night/val", _CITYSCAPES_IDS, label_tables.CITYSCAPES_VOID
    ),
    "crosscity": Layout(_crosscity, "CITY/Train or CITY/Test, such as Rio/Test", _CROSSCITY_IDS, _CROSSCITY_VOID),
    "camvid": Layout(
        _camvid,
        "train, val or test",
        {index: name for index, (name, _) in enumerate(label_tables.CAMVID)},
        frozenset({11, 255}),
    ),
    "bev": Layout(
        _split_folders,
        "train or val",
        {index: name for index, (name, _) in enumerate(label_tables.BEV)},
        frozenset({255}),
    ),
    "splits": Layout(_split_folders, "the name of a subfolder of image/ and label/"),
}
"""Layouts by name: ``bev`` is bev2023 and bev2024; ``splits`` is the same folders with classes of your own, as
FisheyeCampus-like sets have."""
