"""Frames and predictions out, masks in: CVAT, Cityscapes-style and plain PNG, all through the one label check."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ssada_core.annotation.exchange import export_pool, import_masks
from ssada_core.annotation.plain import CityscapesMasks
from ssada_core.data.encodings import decode_compressed, decode_label, encode_png
from ssada_core.data.lists import open_samples
from ssada_core.errors import ConfigError, DataError, StoreError
from ssada_core.labels import BEV, CAMVID, CITYSCAPES, LabelSpace
from ssada_core.store.pool import Choice, FramePool, PoolSettings

SIZE = (48, 64)
CVAT_ARCHIVE = Path(__file__).resolve().parents[1] / "data" / "cvat_segmentation_mask.zip"
"""Written by Datumaro 1.13, the library that CVAT exports with, as 'Segmentation mask 1.1' of two frames."""


def street(classes: int = 11) -> np.ndarray:
    label = np.full(SIZE, 3, np.uint8)
    label[:20] = 0
    label[30:40, 10:30] = classes - 1
    label[44:, :8] = 255
    return label


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator:
    opened = []

    def make(space: LabelSpace = CAMVID, frames: int = 2) -> FramePool:
        pool = FramePool(tmp_path / f"pool{len(opened)}", PoolSettings(keep_free_share=0.0), label_space=space)
        opened.append(pool)
        rng = np.random.default_rng(0)
        for index in range(frames):
            image = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            pool.add(image, camera="front", stamp_ns=index * 10**9)
        records = pool.query([Choice(record.id, 0.5, False, "") for record in pool.frames()])
        for record in records:  # at the network's size
            pool.set_prediction(record.id, np.full((24, 32), 1, np.uint8), np.full((24, 32), 100, np.uint8))
        return pool

    yield make
    for pool in opened:
        assert pool.verify() == []
        pool.close()


def ids(pool: FramePool) -> list[str]:
    return [str(record.query_id) for record in pool.frames() if record.query_id]


def label_of(pool: FramePool, query_id: str) -> np.ndarray:
    return pool.label(pool.by_query(query_id))


def from_cvat(source: Path, out: Path, names: dict[str, str], **changed: bytes) -> Path:
    """An archive with its files renamed, as CVAT names them after the frames, and some replaced."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(out, "w") as copy:
        for info in archive.infolist():
            name, data = info.filename, archive.read(info)
            for old, new in names.items():
                name, data = name.replace(old, new), data.replace(old.encode(), new.encode())
            copy.writestr(name, changed.get(Path(name).name, data))
    return out


def test_what_cvat_exports_comes_in_pixel_by_pixel(make_pool, tmp_path):
    pool = make_pool()
    first, second = ids(pool)
    archive = from_cvat(
        CVAT_ARCHIVE, tmp_path / "job.zip", {"abcdef-000001": first, "abcdef-000002": f"frames/{second}"}
    )
    results = import_masks(pool, archive, format_name="cvat", annotator="Ada")
    assert [(result.query_id, result.status) for result in results] == [(first, "accepted"), (second, "held")]
    assert f"a label of {first}" in results[1].why  # both frames of the archive have the same mask
    expected = np.full(SIZE, 3, np.uint8)  # as it was drawn when the archive was made
    expected[:20] = 0
    expected[30:40, 10:30] = 8
    expected[5:25, 50:52] = 2
    expected[40:, :8] = 255
    assert np.array_equal(label_of(pool, first), expected)
    assert pool.by_query(first).annotator == "Ada"


@pytest.mark.parametrize("space", [CAMVID, CITYSCAPES, BEV], ids=lambda space: space.name)
@pytest.mark.parametrize("name", ["png", "cvat", "cityscapes"])
def test_a_round_trip_changes_no_pixel(make_pool, tmp_path, name, space):
    pool = make_pool(space)
    first, second = ids(pool)
    out = tmp_path / ("out.zip" if name == "cvat" else "out")
    given = street(space.num_classes)
    pool.accept_label(first, given, "Ada")
    assert export_pool(pool, out, format_name=name, content="labelled") == 1
    pool.accept_label(first, np.roll(given, 5), "Bob")
    (result,) = import_masks(pool, out, format_name=name, annotator="import")
    assert (result.query_id, result.status) == (first, "accepted")
    assert np.array_equal(label_of(pool, first), given)
    assert [entry.annotator for entry in pool.label_history(first)] == ["Ada", "Bob", "import"]
    assert pool.by_query(second).state == "queried"


def test_open_questions_leave_with_frames_and_predictions_as_masks(make_pool, tmp_path):
    pool = make_pool()
    assert export_pool(pool, tmp_path / "out.zip", format_name="cvat", content="open") == 2
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = archive.namelist()
        for query_id in ids(pool):
            assert f"JPEGImages/{query_id}.jpg" in names
            assert archive.read(f"JPEGImages/{query_id}.jpg") == pool.image_bytes(pool.by_query(query_id))
            mask = np.array(Image.open(io.BytesIO(archive.read(f"SegmentationClass/{query_id}.png"))))
            assert mask.shape == (*SIZE, 3)
            assert np.unique(mask.reshape(-1, 3), axis=0).tolist() == [[128, 0, 0]]  # building, in RGB
            assert f"SegmentationObject/{query_id}.png" in names
        assert archive.read("ImageSets/Segmentation/default.txt").decode().split() == ids(pool)
        assert archive.read("labelmap.txt").decode().splitlines()[:3] == [
            "# label:color_rgb:parts:actions",
            "background:0,0,0::",
            "sky:128,128,128::",
        ]


@pytest.mark.parametrize("name", ["cvat", "png", "cityscapes"])
def test_a_frame_that_cannot_be_read_is_left_out_and_named(make_pool, tmp_path, caplog, name):
    pool = make_pool(frames=3)
    lost, *rest = ids(pool)
    image = pool.root / pool.by_query(lost).image_file
    kept = image.read_bytes()
    image.unlink()
    assert export_pool(pool, tmp_path / "out", format_name=name, content="open") == 2
    assert caplog.text.count("is left out") == 1
    assert f"query {lost} is left out" in caplog.text
    others = [pool.root / pool.by_query(query).image_file for query in rest]
    contents = [other.read_bytes() for other in others]
    for other in others:
        other.unlink()
    with pytest.raises(DataError, match=r"none of the 3 frames .* can be read: see `ssada pool verify`"):
        export_pool(pool, tmp_path / "nothing", format_name=name, content="open")
    for path, content in zip([image, *others], [kept, *contents], strict=True):
        path.write_bytes(content)


def test_a_prediction_that_nobody_changed_is_held(make_pool, tmp_path):
    pool = make_pool()
    export_pool(pool, tmp_path / "out", format_name="png", content="open")
    settings_free = import_masks(pool, tmp_path / "out", format_name="png", annotator="import")
    assert {result.status for result in settings_free} == {"held"}
    pool.set_prediction(1, np.full((24, 32), 1, np.uint8), np.full((24, 32), 100, np.uint8))
    results = import_masks(pool, tmp_path / "out", format_name="png", annotator="import", confirmed=True)
    assert {result.status for result in results} == {"accepted"}


def test_exported_folders_are_data_sets(make_pool, tmp_path):
    pool = make_pool(CITYSCAPES)
    for number, query_id in enumerate(ids(pool)):
        pool.accept_label(query_id, np.roll(street(19), number), "Ada")
    export_pool(pool, tmp_path / "png", format_name="png", content="all")
    export_pool(pool, tmp_path / "city", format_name="cityscapes", content="all")
    plain = open_samples(
        str(tmp_path / "png" / "list.txt"), replace(CITYSCAPES, id_map={}, ignored_ids=frozenset({255}))
    )
    city = open_samples(f"cityscapes:{tmp_path / 'city'}:train", CITYSCAPES)
    assert len(plain) == len(city) == 2
    for index, query_id in enumerate(ids(pool)):
        record = pool.by_query(query_id)
        for samples in (plain, city):
            assert np.array_equal(samples.label(index), pool.label(record))
            assert np.array_equal(samples.image(index), pool.image(record))
    folder = tmp_path / "city" / "gtFine" / "train" / ids(pool)[0][:6]
    trained = decode_label(min(folder.glob("*_labelTrainIds.png")).read_bytes())
    assert np.array_equal(trained, label_of(pool, ids(pool)[0]))
    color = decode_compressed(min(folder.glob("*_color.png")).read_bytes())
    assert color[25, 0].tolist() == [156, 102, 102]  # wall, in BGR


def test_train_ids_alone_are_read_by_their_own_meaning(make_pool, tmp_path):
    pool = make_pool(CITYSCAPES)
    export_pool(pool, tmp_path / "out", format_name="cityscapes", content="open")
    for path in (tmp_path / "out").rglob("*_labelIds.png"):
        path.unlink()
    masks = list(CityscapesMasks().read(tmp_path / "out", CITYSCAPES))
    assert [(mask.query_id, np.unique(mask.label).tolist()) for mask in masks] == [(name, [1]) for name in ids(pool)]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("labelmap.txt", b"background:0,0,0::\nrod:128,64,128::\n", "no class 'rod' (did you mean 'road'?)"),
        ("labelmap.txt", b"road:red::\n", "is not name:red,green,blue::"),
        ("labelmap.txt", b"road:1,2,3::\nsky:1,2,3::\n", "'sky' has the colour of another class"),
    ],
)
def test_a_label_map_that_cannot_be_right_stops_the_import(make_pool, tmp_path, file, content, words):
    pool = make_pool()
    archive = from_cvat(CVAT_ARCHIVE, tmp_path / "x.zip", {"abcdef-000001": ids(pool)[0]}, **{file: content})
    with pytest.raises(DataError) as caught:
        import_masks(pool, archive, format_name="cvat", annotator="Ada")
    assert words in str(caught.value)
    assert pool.by_query(ids(pool)[0]).state == "queried"


def test_one_bad_mask_does_not_keep_the_others_out(make_pool, tmp_path):
    pool = make_pool()
    first, second = ids(pool)
    strange = encode_png(np.full((*SIZE, 3), 77, np.uint8))
    names = {"abcdef-000001": first, "abcdef-000002": second}
    archive = from_cvat(CVAT_ARCHIVE, tmp_path / "x.zip", names, **{f"{first}.png": strange})
    results = {result.query_id: result for result in import_masks(pool, archive, format_name="cvat", annotator="")}
    assert (results[first].status, results[second].status) == ("refused", "accepted")
    assert "colour 77,77,77 is not in labelmap.txt" in results[first].why


def test_grey_and_palette_masks_of_other_tools_are_read_too(make_pool, tmp_path):
    pool = make_pool()
    first, second = ids(pool)
    numbers = np.zeros(SIZE, np.uint8)  # rows of the archive's label map: background, bicyclist, building, …
    numbers[:30] = 2
    picture = Image.fromarray(np.where(numbers == 2, 1, 0).astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 128, 64, 128])
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    files = {f"{first}.png": encode_png(numbers), f"{second}.png": stream.getvalue()}
    names = {"abcdef-000001": first, "abcdef-000002": second}
    archive = from_cvat(CVAT_ARCHIVE, tmp_path / "x.zip", names, **files)
    import_masks(pool, archive, format_name="cvat", annotator="Ada", confirmed=True)
    assert np.unique(label_of(pool, first)).tolist() == [1, 255]
    assert np.unique(label_of(pool, second)).tolist() == [3, 255]


def test_names_that_are_no_query_of_this_pool_change_nothing(make_pool, tmp_path):
    pool = make_pool()
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "ffffff-000001.png"), street())
    (folder / "notes.png").write_bytes(b"no picture")
    (tmp_path / "secret.png").write_bytes(encode_png(street()))
    (folder / f"{ids(pool)[0]}.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="no folder with PNG files"):
        import_masks(pool, tmp_path / "nothing", format_name="png", annotator="Ada")
    results = import_masks(pool, tmp_path / "in", format_name="png", annotator="Ada")
    assert [result.status for result in results] == ["refused"] * 3
    assert {record.state for record in pool.frames()} == {"queried"}


@pytest.mark.parametrize("name", ["cvat", "png", "cityscapes"])
def test_what_is_not_of_the_format_is_refused_as_a_whole(make_pool, tmp_path, name):
    pool = make_pool()
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(DataError):
        import_masks(pool, tmp_path / "x.zip", format_name=name, annotator="Ada")


def test_an_archive_never_leads_out_of_itself_and_huge_files_are_not_unpacked(make_pool, tmp_path):
    pool = make_pool()
    first = ids(pool)[0]
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labelmap.txt", "road:128,64,128::\n")
        archive.writestr(f"SegmentationClass/../../../{first}.png", encode_png(np.full((*SIZE, 3), 5, np.uint8)))
        archive.writestr(f"SegmentationClass/{first}.png", bytes(80 << 20))
    before = sorted(path for path in tmp_path.rglob("*"))
    results = import_masks(pool, tmp_path / "x.zip", format_name="cvat", annotator="Ada")
    assert [result.status for result in results] == ["refused", "refused"]
    assert any("at most" in result.why for result in results)
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("damaged", ["mask", "labelmap.txt"])
def test_a_damaged_archive_is_one_line(make_pool, tmp_path, packing, damaged):
    pool = make_pool()
    first = ids(pool)[0]
    names = {"labelmap.txt": "labelmap.txt", "mask": f"SegmentationClass/{first}.png"}
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr(names["labelmap.txt"], "road:128,64,128::\n" * 500)
        archive.writestr(names["mask"], np.random.default_rng(0).bytes(5000))
        start = archive.getinfo(names[damaged]).header_offset + 30 + len(names[damaged])
        size = archive.getinfo(names[damaged]).compress_size
    data = bytearray(path.read_bytes())
    data[start + 12 : start + size - 8] = b"\xff" * (size - 20)
    path.write_bytes(data)
    if damaged == "mask":
        (result,) = import_masks(pool, path, format_name="cvat", annotator="Ada")
        why = result.why
    else:
        with pytest.raises(DataError) as caught:
            import_masks(pool, path, format_name="cvat", annotator="Ada")
        why = str(caught.value)
    assert "cannot be read" in why
    assert "\n" not in why


def test_a_name_that_is_no_text_is_one_line(make_pool, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("é.png", b"")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(DataError, match="cannot be read as a zip file"):
        import_masks(make_pool(), path, format_name="cvat", annotator="Ada")


@pytest.mark.parametrize("out", ["file/x.zip", ".", "/"])
def test_where_nothing_can_be_written_is_one_line(make_pool, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no folder")
    with pytest.raises(StoreError, match=r"cannot write (file/x\.zip|\.|/): "):
        export_pool(make_pool(), Path(out), format_name="cvat", content="open")


def test_wrong_words_are_answered_with_the_right_ones(make_pool, tmp_path):
    pool = make_pool()
    with pytest.raises(ConfigError, match="did you mean 'cvat'"):
        export_pool(pool, tmp_path / "x", format_name="cvta", content="open")
    with pytest.raises(ConfigError, match="did you mean 'labelled'"):
        export_pool(pool, tmp_path / "x", format_name="png", content="labeled")
    with pytest.raises(DataError, match="no frames to export"):
        export_pool(pool, tmp_path / "x", format_name="png", content="labelled")
