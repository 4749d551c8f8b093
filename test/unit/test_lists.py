from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssada_core.data.bags import create_bag
from ssada_core.data.encodings import encode_jpeg, encode_png
from ssada_core.data.lists import CachedSamples, DirectorySamples, ListSamples, open_samples
from ssada_core.data.samples import ArraySamples, Samples, jpeg_of
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.data.source_pack import create_pack
from ssada_core.errors import DataError, LabelError, SsadaError
from ssada_core.labels import CAMVID, LabelSpace

RNG = np.random.default_rng(3)


def frame(value: int) -> np.ndarray:
    return np.full((6, 8, 3), value, np.uint8)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Three PNG frames 0, 1, 2 of value 10 × index with labels of id index (frame 1 has 11, unlabelled, too)."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for index in (2, 0, 1):
        (tmp_path / f"images/f{index}.png").write_bytes(encode_png(frame(10 * index)))
        label = np.full((6, 8), index, np.uint8)
        label[0, 0] = 11
        (tmp_path / f"labels/f{index}.png").write_bytes(encode_png(label))
    return tmp_path


def write_list(folder: Path, text: str) -> Path:
    path = folder / "list.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_list_keeps_its_order_and_maps_ids(drive: Path) -> None:
    text = "\ufeff# a comment\n\nimages/f2.png labels/f2.png\nimages/f0.png\r\n  images/f1.png   labels/f1.png  \n"
    samples: Samples = ListSamples(write_list(drive, text), CAMVID)
    assert len(samples) == 3
    assert [samples.name(i) for i in range(3)] == ["images/f2.png", "images/f0.png", "images/f1.png"]
    assert [int(samples.image(i)[3, 3, 0]) for i in range(3)] == [20, 0, 10]
    assert samples.label(1) is None
    expected = np.full((6, 8), 2, np.uint8)
    expected[0, 0] = 255  # CamVid's 11
    np.testing.assert_array_equal(samples.label(0), expected)


def test_paths_with_spaces_stand_in_quotes(drive: Path) -> None:
    (drive / "images/f0.png").rename(drive / "images/f 0.png")
    samples = ListSamples(write_list(drive, '"images/f 0.png" labels/f0.png\n'), CAMVID)
    assert samples.label(0) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no frames"),
        ("# nothing\n\n", "names no frames"),
        ("images/f0.png\nimages/f9.png\n", r"list.txt:2: image .*f9.png is not there"),
        ("\n\nimages/f0.png labels/f9.png\n", r"list.txt:3: label .*f9.png is not there"),
        ("images/f0.png labels/f0.png extra\n", r"list.txt:1: 3 paths"),
        ("'images/f0.png\n", r"list.txt:1: no closing quotation"),
        ("images labels\n", r"list.txt:1: image .* is not there"),
    ],
)
def test_list_errors_name_the_line(drive: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        ListSamples(write_list(drive, text), CAMVID)
    assert "\n" not in str(caught.value)


def test_unreadable_lists(drive: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        ListSamples(drive / "none.txt", CAMVID)
    (drive / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        ListSamples(drive / "binary.txt", CAMVID)


def test_wrong_files_are_named(drive: Path) -> None:
    (drive / "labels/f0.png").write_bytes(encode_png(np.zeros((5, 8), np.uint8)))
    (drive / "labels/f1.png").write_bytes(encode_jpeg(frame(0)))
    (drive / "labels/f2.png").write_bytes(encode_png(np.full((6, 8), 12, np.uint8)))
    samples = DirectorySamples(drive / "images", drive / "labels", CAMVID)
    with pytest.raises(DataError, match=r"f0.png: label is 8x5 but the image is 8x6"):
        samples.label(0)
    with pytest.raises(DataError, match=r"f1.png: .*JPEG never carries class ids"):
        samples.label(1)
    with pytest.raises(LabelError, match=r"f2.png: class id 12"):
        samples.label(2)
    (drive / "images/f0.png").write_bytes(b"")
    (drive / "images/f1.png").unlink()
    with pytest.raises(DataError, match=r"f0.png: 0 bytes"):
        samples.image(0)
    with pytest.raises(DataError, match=r"f1.png cannot be read"):
        samples.image(1)


def test_directory_in_name_order_with_labels_by_stem(drive: Path) -> None:
    (drive / "labels/f1.png").unlink()
    (drive / "images/notes.txt").write_text("not an image")
    samples = DirectorySamples(drive / "images", drive / "labels", CAMVID)
    assert [samples.name(i) for i in range(len(samples))] == ["f0", "f1", "f2"]
    assert [int(samples.image(i)[0, 0, 0]) for i in range(3)] == [0, 10, 20]
    assert samples.label(1) is None
    assert samples.label(2)[3, 3] == 2
    assert DirectorySamples(drive / "images", None, CAMVID).label(0) is None


@pytest.mark.parametrize("line", ["f2", "f2.png", "images/f2.png", "images/f2.png labels/f2.png"])
def test_directory_with_a_list(drive: Path, line: str) -> None:
    path = write_list(drive, f"{line}\nf0\n")
    samples = DirectorySamples(drive / "images", drive / "labels", CAMVID, list_file=path)
    assert [samples.name(i) for i in range(len(samples))] == ["f2", "f0"]
    assert samples.label(0)[3, 3] == 2


def test_a_list_may_bring_its_own_labels(drive: Path) -> None:
    path = write_list(drive, "images/f2.png labels/f2.png\n")
    samples = DirectorySamples(drive / "images", None, CAMVID, list_file=path)
    assert samples.label(0)[3, 3] == 2


def test_stems_with_dots(drive: Path) -> None:
    (drive / "images/f0.png").rename(drive / "images/1.25.png")
    samples = DirectorySamples(drive / "images", None, CAMVID, list_file=write_list(drive, "1.25\n"))
    assert samples.name(0) == "1.25"


def test_directory_errors(drive: Path) -> None:
    images = drive / "images"
    with pytest.raises(DataError, match="cannot be read"):
        DirectorySamples(drive / "none", None, CAMVID)
    (drive / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        DirectorySamples(drive / "empty", None, CAMVID)
    (drive / "other").mkdir()
    (drive / "other/x.png").write_bytes(encode_png(np.zeros((6, 8), np.uint8)))
    with pytest.raises(DataError, match="matched by stem"):
        DirectorySamples(images, drive / "other", CAMVID)
    with pytest.raises(DataError, match=r"list.txt:1: image 'f7'"):
        DirectorySamples(images, None, CAMVID, list_file=write_list(drive, "f7\n"))
    with pytest.raises(DataError, match=r"list.txt:1: label 'f7.png'"):
        DirectorySamples(images, None, CAMVID, list_file=write_list(drive, "f1 f7.png\n"))
    (images / "f1.jpg").write_bytes(encode_jpeg(frame(1)))
    with pytest.raises(DataError, match=r"f1.jpg and f1.png"):
        DirectorySamples(images, None, CAMVID)


def test_jpeg_bytes_are_the_files_own(drive: Path) -> None:
    data = encode_jpeg(frame(77), 60)
    (drive / "images/f0.png").unlink()
    (drive / "images/f0.jpg").write_bytes(data)
    samples = DirectorySamples(drive / "images", None, CAMVID)
    assert jpeg_of(samples, 0) == data
    assert jpeg_of(samples, 1) is None  # a PNG
    assert jpeg_of(CachedSamples(samples, 0), 0) == data
    assert jpeg_of(ArraySamples([frame(1)]), 0) is None


def test_half_a_jpeg_is_not_passed_on(drive: Path) -> None:
    data = encode_jpeg(frame(77), 60)
    (drive / "images/f0.png").unlink()
    (drive / "images/f0.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"f0\.jpg: JPEG of \d+ bytes has no end marker"):
        jpeg_of(DirectorySamples(drive / "images", None, CAMVID), 0)


def test_label_of_a_picture_turned_by_exif(drive: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(frame(9)).save(drive / "turned.jpg", exif=exif)
    (drive / "turned.png").write_bytes(encode_png(np.ones((8, 6), np.uint8)))
    samples = ListSamples(write_list(drive, "turned.jpg turned.png\n"), CAMVID)
    assert samples.image(0).shape == (8, 6, 3)
    assert samples.label(0).shape == (8, 6)
    (drive / "turned.png").write_bytes(encode_png(np.ones((6, 8), np.uint8)))
    with pytest.raises(DataError, match=r"turned\.png"):  # it fits what is stored, not what is seen
        samples.label(0)


class Counting(ArraySamples):
    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.reads: list[str] = []

    def image(self, index: int):
        self.reads.append(f"image {index}")
        return super().image(index)

    def label(self, index: int):
        self.reads.append(f"label {index}")
        return super().label(index)


def test_cache_reads_once_up_to_its_limit() -> None:
    images = [frame(0), frame(1), frame(2)]  # 144 bytes each, labels 48
    inner = Counting(images, [np.zeros((6, 8), np.uint8), None, np.zeros((6, 8), np.uint8)])
    samples = CachedSamples(inner, 144 * 2 + 48)
    for _ in range(2):
        for index in range(3):
            assert samples.image(index) is images[index]
    for _ in range(2):
        assert samples.label(1) is None
        samples.label(0)
        samples.label(2)
    assert inner.reads == [
        *("image 0", "image 1", "image 2", "image 2"),
        *("label 1", "label 0", "label 2", "label 2"),
    ]
    assert (len(samples), samples.name(1)) == (3, "000001")


@pytest.mark.shared_data
def test_real_list(camvid: Path) -> None:
    samples = ListSamples(camvid / "dusk_val.txt", CAMVID)
    assert len(samples) == 62
    assert samples.image(0).shape == (360, 480, 3)
    label = samples.label(0)
    raw = np.asarray(Image.open(camvid / "labels" / Path(samples.name(0)).with_suffix(".png").name))
    np.testing.assert_array_equal(label, np.where(raw == 11, 255, raw))


def test_open_what_is_named(drive: Path) -> None:
    path = write_list(drive, "images/f1.png labels/f1.png\n")
    assert len(open_samples(str(path), CAMVID)) == 1
    both = open_samples(str(drive), CAMVID)
    assert len(both) == 3
    assert both.label(0) is not None
    assert open_samples(str(drive / "images"), CAMVID).label(0) is None
    create_pack(both, CAMVID, drive / "pack.zip", frames=2, seed=0)
    assert len(open_samples(str(drive / "pack.zip"), CAMVID)) == 2
    create_bag(both, drive / "bag")
    for name in ("bag", "bag/bag.mcap"):
        bag = open_samples(str(drive / name), CAMVID)
        assert len(bag) == 3
        np.testing.assert_array_equal(bag.label(2), both.label(2))


def test_open_simulated_drive() -> None:
    samples = open_samples("sim:night:3:10-20:4", CAMVID)
    image, label = SimulatedDrive(seed=3).frame(14, "night")
    assert len(samples) == 3
    np.testing.assert_array_equal(samples.image(1), image)
    np.testing.assert_array_equal(samples.label(1), label)
    assert len(open_samples("sim:day", CAMVID)) == 200


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("none", "'none' is not there"),
        ("sim:day:x", "is not sim:DOMAIN"),
        ("sim:day:0:20-10", "has no frames"),
        ("sim:day:0:0-99999999999999999999", "at most 9 digits"),
        (f"sim:day:{'9' * 5000}", "at most 9 digits"),
        ("sim:nigth", "did you mean 'night'"),
    ],
)
def test_open_what_cannot_be(reference: str, message: str) -> None:
    with pytest.raises(SsadaError, match=message):
        open_samples(reference, CAMVID)


def test_open_in_another_label_space(drive: Path) -> None:
    other = LabelSpace("two", ("road", "rest"), ((0, 0, 0), (1, 1, 1)))
    create_pack(open_samples(str(drive), CAMVID), CAMVID, drive / "pack.zip", frames=2, seed=0)
    for reference in (str(drive / "pack.zip"), "sim:day"):
        with pytest.raises(DataError, match="label space 'camvid', not 'two'"):
            open_samples(reference, other)


def test_a_stretch_and_its_rest_divide_a_collection() -> None:
    inside = open_samples("frames:3-5:sim:day:0:0-8", CAMVID)
    outside = open_samples("except:3-5:sim:day:0:0-8", CAMVID)
    whole = open_samples("sim:day:0:0-8", CAMVID)
    assert [inside.name(i) for i in range(len(inside))] == [whole.name(3), whole.name(4)]
    assert [outside.name(i) for i in range(len(outside))] == [whole.name(i) for i in (0, 1, 2, 5, 6, 7)]


@pytest.mark.parametrize("reference", ["frames:3:sim:day", "frames:5-3:sim:day", "except:0-9:sim:day:0:0-8"])
def test_a_stretch_that_is_none_says_what_is_wrong(reference: str) -> None:
    with pytest.raises(DataError, match=r"frames:START-STOP|STOP at most"):
        open_samples(reference, CAMVID)


def test_a_rest_without_frames_is_refused() -> None:
    with pytest.raises(DataError, match="leaves no frame"):
        open_samples("except:0-8:sim:day:0:0-8", CAMVID)
