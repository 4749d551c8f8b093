"""Label spaces: ids, colours, files, and what is said when something does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssada_core.errors import ConfigError, LabelError
from ssada_core.labels import CAMVID, IGNORE, LABEL_SPACES, LabelSpace, load_label_space

TWO = LabelSpace(name="two", classes=("road", "car"), colors=((10, 20, 30), (40, 50, 60)))
MAPPED = LabelSpace(
    name="mapped", classes=("road", "car"), colors=((10, 20, 30), (40, 50, 60)), id_map={7: 0, 26: 1, 27: 1}
)


def test_camvid_is_the_segnet_order():
    assert CAMVID.num_classes == 11
    assert [CAMVID.index(name) for name in ("sky", "road", "pedestrian", "bicyclist")] == [0, 3, 9, 10]
    assert set(CAMVID.safety) <= set(CAMVID.classes)


def test_an_unknown_class_names_the_nearest():
    with pytest.raises(ConfigError, match=r"label space 'two' has no class 'raod' \(did you mean 'road'\?\)"):
        TWO.index("raod")


def test_the_palette_is_bgr_and_black_elsewhere():
    palette = TWO.palette_bgr()
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    assert palette[0].tolist() == [30, 20, 10]
    assert palette[1].tolist() == [60, 50, 40]
    assert not palette[2:].any()


def test_decode_keeps_ids_and_unlabelled_pixels():
    raw = np.array([[0, 1], [255, 1]], np.uint8)
    assert TWO.decode(raw, source="a.png").tolist() == [[0, 1], [IGNORE, 1]]


def test_decode_maps_and_drops_what_is_not_mapped():
    raw = np.array([[7, 26, 27, 3, 255]], np.uint8)
    assert MAPPED.decode(raw, source="a.png").tolist() == [[0, 1, 1, IGNORE, IGNORE]]


def test_decode_takes_camvids_unlabelled_id():
    assert CAMVID.decode(np.array([[10, 11]], np.uint8), source="a.png").tolist() == [[10, IGNORE]]


def test_an_unknown_id_is_named_with_the_file():
    expected = r"a\.png: class id 2 is not in label space 'two' \(0-1, 255 = unlabelled\): relabel it"
    with pytest.raises(LabelError, match=expected):
        TWO.decode(np.array([[0, 9, 2]], np.uint8), source="a.png")


@pytest.mark.parametrize("raw", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint16)])
def test_colours_and_wide_ids_are_no_label(raw: np.ndarray):
    with pytest.raises(LabelError, match=r"single-channel 8-bit image.*save class ids, not colours"):
        TWO.decode(raw, source="a.png")


def test_every_class_needs_a_colour():
    with pytest.raises(ConfigError, match="2 classes but 1 colours: give one each"):
        LabelSpace(name="x", classes=("a", "b"), colors=((0, 0, 0),))


@pytest.mark.parametrize("space", [CAMVID, TWO, MAPPED], ids=lambda space: space.name)
def test_json_round_trip(space: LabelSpace):
    assert LabelSpace.from_dict(json.loads(space.to_json()), source="x") == space


@given(
    names=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=20, unique=True),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_space_survives_the_round_trip_and_decodes_as_a_table_would(names: list[str], seed: int):
    random = np.random.default_rng(seed)
    colors = tuple((int(r), int(g), int(b)) for r, g, b in random.integers(0, 256, (len(names), 3)))
    raws = random.choice(255, size=len(names), replace=False).tolist()
    space = LabelSpace("any", tuple(names), colors, {raw: index for index, raw in enumerate(raws)})
    assert LabelSpace.from_dict(json.loads(space.to_json()), source="x") == space
    label = random.integers(0, 256, (4, 5)).astype(np.uint8)
    expected = [[raws.index(value) if value in raws else IGNORE for value in row] for row in label.tolist()]
    assert space.decode(label, source="x").tolist() == expected


def test_a_file_is_read(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("classes: [road, car]\ncolors: [[10, 20, 30], [40, 50, 60]]\nsafety: [road]\n")
    space = load_label_space(str(path))
    assert (space.name, space.classes, space.safety) == ("custom", ("road", "car"), ("road",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "clases: [road]\ncolors: [[1, 2, 3]]\n",
            r"unknown key 'clases' in a label space \(did you mean 'classes'\?\)",
        ),
        ("classes: [road]\n", "needs 'classes'.*'colors'"),
        ("classes: [road]\ncolors: [[1, 2]]\n", "needs 'classes'.*'colors'"),
        ("- road\n", "expected a mapping"),
        ("classes: [\n", "label space file"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, content: str, words: str):
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_label_space(str(path))
    assert str(path) in str(caught.value)


THREE = "classes: [road, car, tree]\ncolors: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{THREE}id_map: {{1: 1, 2: 2, 3: 3}}", "id_map takes 3 to class 3: classes count from 0, give 0 to 2 or 255"),
        (f"{THREE}id_map: {{1: -1}}", "id_map takes 1 to class -1: classes count from 0"),
        (f"{THREE}id_map: {{300: 0}}", "id 300 cannot be in a file: labels are 8-bit images, give ids from 0 to 255"),
        (f"{THREE}ignored_ids: [300]", "id 300 cannot be in a file"),
        (f"{THREE}ignored_ids: [-1]", "id -1 cannot be in a file"),
        (f"{THREE}ignore: 0", "'ignore' is 0, but unlabelled is always 255: leave it out"),
        (f"{THREE}safety: [raod]", r"safety class 'raod' is none of its classes \(did you mean 'road'\?\)"),
        ("classes: [a, a]\ncolors: [[1, 2, 3], [4, 5, 6]]", "two classes are called 'a': give each a name of its own"),
        ("classes: [a]\ncolors: [[1, 2, 256]]", r"colour \[1, 2, 256\]: give red, green and blue from 0 to 255"),
        ("classes: []\ncolors: []", "0 classes: give 1 to 255"),
        (f"classes: {list(range(256))}\ncolors: {[[1, 2, 3]] * 256}", "256 classes: give 1 to 255"),
    ],
)
def test_values_that_no_label_can_be_read_with_are_refused(tmp_path: Path, content: str, words: str):
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_label_space(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_id_may_be_mapped_to_unlabelled_and_255_classes_have_room(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text(f"{THREE}id_map: {{0: 255, 255: 2, 7: 0}}\nignore: 255")
    space = load_label_space(str(path))
    assert space.decode(np.array([[0, 255, 7]], np.uint8), source="x").tolist() == [[IGNORE, 2, 0]]
    names = tuple(map(str, range(255)))
    assert LabelSpace("full", names, ((1, 2, 3),) * 255).num_classes == 255


def test_unknown_names_and_missing_files():
    assert load_label_space("camvid") is LABEL_SPACES["camvid"]
    with pytest.raises(ConfigError, match=r"unknown label space 'camvdi' \(did you mean 'camvid'\?\)"):
        load_label_space("camvdi")
    with pytest.raises(ConfigError, match=r"label space file nowhere\.yaml"):
        load_label_space("nowhere.yaml")
