"""The public label spaces, against values written down by hand from METHOD §10 and the authors' lists."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ssada_core.labels import IGNORE, LABEL_SPACES, LabelSpace

SIZES = {"camvid": 11, "cityscapes": 19, "gta5": 19, "acdc": 19, "synthia": 16, "crosscity": 13, "bev": 7}


def decoded(name: str, *raw: int) -> list[int]:
    return LABEL_SPACES[name].decode(np.array([raw], np.uint8), source="x")[0].tolist()


def test_all_spaces_of_the_method_are_there():
    assert {name: space.num_classes for name, space in LABEL_SPACES.items()} == SIZES
    assert all(space.name == name for name, space in LABEL_SPACES.items())


@pytest.mark.parametrize("name", ["cityscapes", "gta5", "acdc"])
def test_cityscapes_ids_become_train_ids(name: str):
    raw = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert decoded(name, *raw) == list(range(19))
    void = [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 34, 255]
    assert decoded(name, *void) == [IGNORE] * len(void)
    assert set(raw) | set(void) == LABEL_SPACES[name].known_ids


def test_cityscapes_names_and_official_colours():
    space = LABEL_SPACES["cityscapes"]
    colors = dict(zip(space.classes, space.colors, strict=True))
    assert space.classes[:3] == ("road", "sidewalk", "building")
    assert space.classes[10:14] == ("sky", "person", "rider", "car")
    assert colors["road"] == (128, 64, 128)
    assert colors["sidewalk"] == (244, 35, 232)
    assert colors["vegetation"] == (107, 142, 35)
    assert colors["person"] == (220, 20, 60)
    assert colors["car"] == (0, 0, 142)
    assert colors["bicycle"] == (119, 11, 32)


def test_crosscity_takes_thirteen_cityscapes_ids():
    assert decoded("crosscity", 7, 8, 11, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33) == list(range(13))
    assert decoded("crosscity", 12, 13, 17, 22, 27, 31) == [IGNORE] * 6
    assert LABEL_SPACES["crosscity"].classes[6:10] == ("sky", "person", "rider", "car")


def test_synthia_has_its_own_ids_and_cityscapes_order():
    space = LABEL_SPACES["synthia"]
    assert space.classes == (
        *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
        *("sky", "person", "rider", "car", "bus", "motorcycle", "bicycle"),
    )
    assert decoded("synthia", 3, 4, 2, 21, 5, 7, 15, 9, 6, 1, 10, 17, 8, 19, 12, 11) == list(range(16))
    assert decoded("synthia", 0, 13, 14, 16, 18, 20, 22) == [IGNORE] * 7
    assert space.known_ids == {*range(23), 255}


def test_bev_is_seven_classes_as_they_are():
    assert LABEL_SPACES["bev"].classes == (
        *("background", "parking line", "white line", "yellow line", "zebra crossing", "arrow", "slope"),
    )
    assert decoded("bev", 0, 6, 255) == [0, 6, IGNORE]


@pytest.mark.parametrize("space", LABEL_SPACES.values(), ids=lambda space: space.name)
def test_each_survives_a_manifest_and_watches_classes_it_has(space: LabelSpace):
    assert LabelSpace.from_dict(json.loads(space.to_json()), source="x") == space
    assert len(set(space.colors)) == space.num_classes
    assert set(space.safety) <= set(space.classes)
