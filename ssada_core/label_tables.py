"""Tables of the public label spaces (METHOD §10): names, colours and the ids that their authors' files hold.

Plain values only; :mod:`ssada_core.labels` makes label spaces of them and ``data.layouts`` reads files by them. Names
are Cityscapes' wherever two data sets mean the same thing: it is by names that one data set's labels are read in
another's label space.
"""

from __future__ import annotations

from collections.abc import Mapping

Color = tuple[int, int, int]

CITYSCAPES: tuple[tuple[str, int, Color], ...] = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
"""Cityscapes' 19 evaluated classes in the order of their train ids: name, id in ``*_labelIds.png``, official colour."""

CITYSCAPES_VOID: frozenset[int] = frozenset(range(35)) - {raw for _, raw, _ in CITYSCAPES} | {255}
"""Ids that Cityscapes, ACDC and GTA5 files hold and that are not evaluated (34 is GTA5's licence plate)."""

SYNTHIA_IDS: Mapping[str, int] = {
    "sky": 1,
    "building": 2,
    "road": 3,
    "sidewalk": 4,
    "fence": 5,
    "vegetation": 6,
    "pole": 7,
    "car": 8,
    "traffic sign": 9,
    "person": 10,
    "bicycle": 11,
    "motorcycle": 12,
    "traffic light": 15,
    "terrain": 16,
    "rider": 17,
    "truck": 18,
    "bus": 19,
    "train": 20,
    "wall": 21,
}
"""SYNTHIA-RAND-CITYSCAPES' ids of the classes that Cityscapes has too."""

SYNTHIA_VOID: frozenset[int] = frozenset({0, 13, 14, 22, 255})
"""Void, parking slot, road work and lane marking: SYNTHIA's ids without a Cityscapes class."""

SYNTHIA_WITHOUT: frozenset[str] = frozenset({"terrain", "truck", "train"})
"""Cityscapes' classes outside the 16 of SYNTHIA→Cityscapes."""

CROSSCITY_IDS: tuple[int, ...] = (7, 8, 11, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33)
"""Cityscapes ids of the 13 classes of the cross-city data (Chen et al. 2017), in the order of their class ids."""

CAMVID: tuple[tuple[str, Color], ...] = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("sidewalk", (0, 0, 192)),
    ("tree", (128, 128, 0)),
    ("sign", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)
"""CamVid's 11 classes in the SegNet tutorial's order."""

BEV: tuple[tuple[str, Color], ...] = (
    ("background", (0, 0, 0)),
    ("parking line", (255, 0, 0)),
    ("white line", (255, 255, 255)),
    ("yellow line", (255, 255, 0)),
    ("zebra crossing", (0, 255, 255)),
    ("arrow", (0, 255, 0)),
    ("slope", (255, 0, 255)),
)
"""SS-ADA's bird's-eye parking data; the colours are ours."""
