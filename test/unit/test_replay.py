"""A recorded drive through a model: the same figures from every kind of bag, and what is broken is counted."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import av
import bag_fixtures as bags
import cli_fixtures
import numpy as np
import pytest
from bag_fixtures import FIRST_NS, SECOND, STORAGES, compressed_bag, foreign_bag, frames, split_bag, whole_bag
from jsonschema import Draft202012Validator
from replay_fixtures import models, record, replay, settings, timeless

from ssada_core.data.bags import BagFrame, read_bag, write_bag
from ssada_core.data.encodings import encode_jpeg, encode_png
from ssada_core.errors import BagError, ConfigError, DataError
from ssada_core.replay.compare import compare
from ssada_core.replay.recording import BROKEN_FRAME, DUPLICATE, GAP, NO_STAMP, OUT_OF_ORDER
from ssada_core.replay.settings import RecordingSettings
from ssada_core.replay.tally import Series
from ssada_core.replay.truth import BROKEN_LABEL

STEP = SECOND // 5
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return models(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return models(tmp_path_factory.mktemp("registries"), 2)


def labels_of(played: list) -> list[int | None]:
    return [None if frame.label is None else int(frame.label[0, 0]) for frame in played]


# -- what is played ----------------------------------------------------------------------------


def test_frames_come_with_the_labels_of_their_stamps(tmp_path: Path):
    played, damage = record(whole_bag(tmp_path / "bag", 14))
    assert [frame.stamp_ns for frame in played] == [FIRST_NS + index * STEP for index in range(14)]
    assert {frame.camera for frame in played} == {"camera"}
    assert labels_of(played) == [index % 11 for index in range(14)]
    assert all(np.array_equal(frame.image, bags.picture(index)) for index, frame in enumerate(played))
    assert not damage
    assert labels_of(record(tmp_path / "bag", source="none")[0]) == [None] * 14


def test_a_part_of_the_drive_and_every_nth_frame(tmp_path: Path):
    path = whole_bag(tmp_path / "bag", 20)
    played, _ = record(path, {"start_s": 1.0, "end_s": 3.0, "every": 3})
    assert [frame.position for frame in played] == [6, 9, 12]
    with pytest.raises(BagError, match="not a single usable frame"):
        record(path, {"start_s": 100.0})
    with pytest.raises(ValueError, match="is not after start_s"):
        record(path, {"start_s": 3.0, "end_s": 2.0})


def test_several_cameras_have_their_own_labels(tmp_path: Path):
    stream = []
    for index in range(4):
        stamp = FIRST_NS + index * STEP
        for camera, shift in (("left", 0), ("right", 5)):
            stream.append((f"/{camera}/image_raw", stamp, bags.image(stamp, bags.picture(index))))
            stream.append((f"/{camera}/label", stamp, bags.image(stamp, bags.truth(index + shift))))
    path = foreign_bag(tmp_path / "bag", stream)
    played, _ = record(path)
    assert [(frame.camera, int(frame.label[0, 0])) for frame in played[:4]] == [
        ("left", 0), ("right", 5), ("left", 1), ("right", 6),
    ]  # fmt: skip
    only, _ = record(path, {"topics": ["/right/image_raw"]})
    assert {frame.camera for frame in only} == {"right"}
    with pytest.raises(ConfigError, match="belongs to one camera"):
        record(path, folder=str(tmp_path))


@pytest.mark.parametrize("storage", STORAGES)
def test_labels_may_come_late_be_off_in_time_or_missing(tmp_path: Path, storage: str):
    stream = [("/i", FIRST_NS + k * STEP, bags.image(FIRST_NS + k * STEP, bags.picture(k))) for k in range(6)]
    off = SECOND // 100
    for index in (1, 0, 3, 5):  # recorded after all frames, two swapped, two missing
        stamp = FIRST_NS + index * STEP + off
        stream.append(("/label", FIRST_NS + 99 * SECOND, bags.image(stamp, bags.truth(index))))
    path = foreign_bag(tmp_path / "bag", stream, storage=storage)
    assert labels_of(record(path)[0]) == [None] * 6, "stamps differ, and nothing was tolerated"
    assert labels_of(record(path, tolerance_s=0.02)[0]) == [0, 1, None, 3, None, 5]


def test_a_folder_of_labels_by_stamp_and_by_order(tmp_path: Path):
    path = whole_bag(tmp_path / "bag", 5)
    by_stamp, in_order = tmp_path / "stamps", tmp_path / "order"
    for folder in (by_stamp, in_order):
        folder.mkdir()
    for index in (0, 2, 4):
        (by_stamp / f"{FIRST_NS + index * STEP + 1000}.png").write_bytes(encode_png(bags.truth(index)))
    for index in range(4):
        (in_order / f"frame_{index}.png").write_bytes(encode_png(bags.truth(index + 1)))
    assert labels_of(record(path, folder=str(by_stamp))[0]) == [None] * 5
    assert labels_of(record(path, folder=str(by_stamp), tolerance_s=0.001)[0]) == [0, None, 2, None, 4]
    assert labels_of(record(path, folder=str(in_order))[0]) == [1, 2, 3, 4, None]
    assert labels_of(record(path, {"every": 2}, folder=str(in_order))[0]) == [1, 3, None]
    with pytest.raises(DataError, match="not named by a stamp"):
        record(path, folder=str(in_order), by="stamp")
    (by_stamp / "1000.2.png").write_bytes(encode_png(bags.truth(7)))  # seconds with a point
    assert labels_of(record(path, folder=str(by_stamp))[0]) == [None, 7, None, None, None]


def test_numbered_labels_are_no_stamps_and_ten_comes_after_two(tmp_path: Path):
    path = whole_bag(tmp_path / "bag", 11)
    for folder, form in ((tmp_path / "padded", "{:06d}.png"), (tmp_path / "plain", "{}.png")):
        folder.mkdir()
        for index in range(11):
            (folder / form.format(index)).write_bytes(encode_png(bags.truth(index)))
        assert labels_of(record(path, folder=str(folder))[0]) == list(range(11)), folder
        assert labels_of(record(path, folder=str(folder), by="stamp")[0]) == [None] * 11


def test_a_share_of_the_drive_is_one_of_the_part_that_is_played():
    assert RecordingSettings().played(100, 900) == (100, 900)
    settings = RecordingSettings(start_s=2, end_s=6)
    assert settings.played(5 * SECOND, 100 * SECOND) == (7 * SECOND, 11 * SECOND)
    assert settings.played(5 * SECOND, 9 * SECOND) == (7 * SECOND, 9 * SECOND)
    assert RecordingSettings(start_s=50).played(0, 9 * SECOND) == (9 * SECOND, 9 * SECOND)


def test_what_is_broken_is_left_out_and_counted(tmp_path: Path):
    picture = bags.picture(3)
    stamps = [FIRST_NS + k * STEP for k in range(20)]
    stream = [(f"{name}", time, message) for name, time, message in _broken_stream(stamps, picture)]
    played, damage = record(foreign_bag(tmp_path / "bag", stream))
    assert damage.count(DUPLICATE) == 1
    assert damage.count(OUT_OF_ORDER) == 1
    assert damage.count(BROKEN_FRAME) == 3
    assert damage.count(NO_STAMP) == 1
    assert damage.count(GAP) == 1
    assert damage.count(BROKEN_LABEL) == 2
    assert len(played) == 14
    words = damage.words()
    for text in ("class id 77", "4.20 s, usually 0.20 s", "bytes needed"):
        assert text in words, text


def _broken_stream(stamps: list[int], picture: np.ndarray):
    for stamp in stamps[:10]:
        yield "/i/image", stamp, bags.image(stamp, picture)
    yield "/i/image", stamps[9] + 1, bags.image(stamps[9], picture)  # twice
    yield "/i/image", stamps[9] + 2, bags.image(stamps[9] + STEP // 2, picture, height=9999)
    yield "/i/image", stamps[9] + 3, bags.image(stamps[9] + STEP // 3, picture, encoding="yuv9000")
    yield "/i/image", stamps[9] + 4, bags.image(stamps[9] + STEP // 4, picture, step=1)
    yield "/i/image", stamps[11], bags.image(stamps[11], picture)
    yield "/i/image", stamps[11] + 1, bags.image(stamps[10], picture)  # late
    yield "/i/image", stamps[12], bags.image(0, picture)  # no stamp
    far = stamps[13] + 20 * STEP
    yield "/i/image", far, bags.image(far, picture)
    wrong = np.full(bags.SIZE, 77, np.uint8)
    yield "/i/label", far, bags.image(stamps[0], wrong)
    yield "/i/label", far, bags.image(stamps[1], np.zeros((4, 8), np.uint8))


def test_a_broken_jpeg_is_a_broken_frame(tmp_path: Path):
    whole = encode_jpeg(bags.picture(1))
    stream = [("/i/compressed", 1, bags.jpeg(5, whole)), ("/i/compressed", 2, bags.jpeg(6, whole[: len(whole) // 3]))]
    played, damage = record(foreign_bag(tmp_path / "bag", stream))
    assert [frame.stamp_ns for frame in played] == [5]
    assert damage.count(BROKEN_FRAME) == 1


# -- the figures ---------------------------------------------------------------------------------


def test_every_kind_of_bag_gives_the_same_figures(tmp_path: Path, one_model: list[str]):
    bag_of = {
        "mcap": whole_bag(tmp_path / "mcap", 18),
        "sqlite3": whole_bag(tmp_path / "sqlite3", 18, storage="sqlite3"),
        "split": split_bag(tmp_path / "split", parts=3, each=6),
        "file": compressed_bag(tmp_path / "file", "file", count=18),
        "message": compressed_bag(tmp_path / "message", "message", storage="sqlite3", count=18),
    }
    found = {}
    for name, path in bag_of.items():
        report = replay(path, tmp_path / f"out_{name}", one_model)
        assert report.damage == []
        assert report.recording.frames == report.recording.labelled == 18
        table = (tmp_path / f"out_{name}" / "frames.csv").read_bytes()
        found[name] = (report.series[0], report.stretches, table)
    assert all(one == found["mcap"] for one in found.values())
    assert math.isfinite(found["mcap"][0].miou)
    jpegs = []
    for storage in STORAGES:
        path = whole_bag(tmp_path / f"jpeg_{storage}", 18, storage=storage, jpeg=True)
        jpegs.append(replay(path, tmp_path / f"out_jpeg_{storage}", one_model))
    assert jpegs[0].series == jpegs[1].series
    assert abs(jpegs[0].series[0].miou - found["mcap"][0].miou) < 3.0


def test_miou_is_that_of_an_independent_count(tmp_path: Path, one_model: list[str]):
    path = whole_bag(tmp_path / "bag", 10)
    report = replay(path, tmp_path / "out", one_model, mask_bag=True)
    topics = {"topic": "/camera/image/compressed", "label_topic": "/segmentation_node/camera/mask"}
    masks = [frame.label for frame in read_bag(tmp_path / "out" / "masks", **topics)]
    truths = [bags.truth(index) for index in range(10)]
    values = []
    for number in range(11):
        both = sum(int(((m == number) & (t == number)).sum()) for m, t in zip(masks, truths, strict=True))
        either = sum(int(((m == number) | (t == number)).sum()) for m, t in zip(masks, truths, strict=True))
        if any((t == number).any() for t in truths):
            values.append(both / either)
    assert report.series[0].miou == pytest.approx(100 * np.mean(values), abs=1e-5)


def test_two_runs_write_the_same_bytes(tmp_path: Path, two_models: list[str], monkeypatch: pytest.MonkeyPatch):
    whole_bag(tmp_path / "bag", 30)
    texts, tables = [], []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        monkeypatch.chdir(tmp_path / run)
        replay(Path("../bag"), Path("out"), two_models)
        texts.append(timeless(Path("out/report.json")))
        tables.append(Path("out/frames.csv").read_bytes())
    assert texts[0] == texts[1]
    schema = json.loads((REPOSITORY / "docs" / "schemas" / "report.schema.json").read_text())
    Draft202012Validator(schema).validate(json.loads(Path("out/report.json").read_text()))
    assert tables[0] == tables[1]
    assert len(texts[0]) > 2000


def test_models_are_compared_frame_by_frame(tmp_path: Path, two_models: list[str]):
    report = replay(whole_bag(tmp_path / "bag", 60), tmp_path / "out", two_models)
    assert [series.name for series in report.series] == ["v0001", "v0002"]
    (comparison,) = report.comparisons
    first, second = (series.miou for series in report.series)
    assert comparison.gain == pytest.approx(second - first, abs=1e-5)
    assert comparison.stretches == 3
    assert sum(comparison.stretches_won.values()) == 3
    assert len(comparison.classes) == 11
    alone = replay(tmp_path / "bag", tmp_path / "alone", two_models[1:])
    assert alone.series[0].model_dump() == report.series[1].model_dump()
    twice = replay(tmp_path / "bag", tmp_path / "twice", [two_models[0], two_models[0]])
    assert (twice.comparisons[0].gain, twice.comparisons[0].winner) == (0.0, "")


def test_a_clear_winner_is_named_and_a_tie_is_not():
    def series(right: int, wrong: int, stretches: int) -> Series:
        found = Series(2)
        for number in range(stretches):
            found.add(number, np.array([[right + number, wrong], [wrong, right]], np.int64))
        return found

    better = compare(("A", "B"), (series(50, 50, 8), series(90, 10, 8)), ("x", "y"), samples=500, seed=0)
    assert better.winner == "B"
    assert better.words().startswith("B is better: B has +")
    assert all(one.probability > 0.99 for one in better.classes)
    worse = compare(("A", "B"), (series(90, 10, 8), series(50, 50, 8)), ("x", "y"), samples=500, seed=0)
    assert worse.winner == "A"
    short = compare(("A", "B"), (series(50, 50, 1), series(90, 10, 1)), ("x", "y"), samples=500, seed=0)
    assert short.winner == ""
    assert "too short a drive" in short.words()
    assert compare(("A", "B"), (Series(2), Series(2)), ("x", "y"), samples=500, seed=0) is None


def test_models_of_other_classes_are_not_compared(tmp_path: Path, one_model: list[str]):
    other = tmp_path / "other"
    shutil.copytree(Path(one_model[0].partition("@")[0]) / "v0001", other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["label_space"]["classes"][0] = "heaven"
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="have other classes"):
        replay(whole_bag(tmp_path / "bag", 3), tmp_path / "out", [one_model[0], str(other)])


def test_without_ground_truth_there_is_still_a_page(tmp_path: Path, one_model: list[str]):
    items = [BagFrame(frame.stamp_ns, "front", frame.image) for frame in frames(12)]
    write_bag(tmp_path / "bag", items, compressed=False)
    report = replay(tmp_path / "bag", tmp_path / "out", one_model)
    assert report.series[0].miou is None
    assert 0 < report.series[0].uncertainty <= 1
    text = (tmp_path / "out" / "report.html").read_text()
    assert "has no ground truth" in text
    assert "nan" not in text.lower().replace("nanoseconds", "")


# -- outputs -------------------------------------------------------------------------------------


def test_outputs_are_readable_by_others(tmp_path: Path, one_model: list[str]):
    path = whole_bag(tmp_path / "bag", 10, jpeg=True)
    replay(path, tmp_path / "out", one_model, mask_bag=True, video=True)
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as video:
        stream = video.streams.video[0]
        times = [float(frame.pts * stream.time_base) for frame in video.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert (stream.height, stream.width) == bags.SIZE
    assert times == pytest.approx([index / 5 for index in range(10)], abs=0.01)
    with (tmp_path / "out" / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["stamp_ns"]) for row in rows] == [FIRST_NS + index * STEP for index in range(10)]
    assert {row["version"] for row in rows} == {"v0001"}
    names = {topic.name for topic in bags_info(tmp_path / "out" / "masks")}
    assert names == {
        "/camera/image/compressed", "/camera/label", "/segmentation_node/camera/mask",
        "/segmentation_node/camera/overlay/compressed", "/segmentation_node/label_space",
    }  # fmt: skip
    shown = list(read_bag(tmp_path / "out" / "masks", topic="/camera/image/compressed"))
    assert [frame.jpeg for frame in shown] == [frame.jpeg for frame in frames(10, jpeg=True)]


def bags_info(path: Path):
    from ssada_core.data.bags import bag_info

    return bag_info(path).topics


def test_a_folder_with_other_things_is_not_overwritten(tmp_path: Path, one_model: list[str]):
    path = whole_bag(tmp_path / "bag", 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not of an earlier replay"):
        replay(path, tmp_path / "out", one_model)
    replay(path, tmp_path / "new", one_model)
    replay(path, tmp_path / "new", one_model)


def test_a_replay_never_empties_the_folder_of_what_it_reads(tmp_path: Path, one_model: list[str]):
    out = tmp_path / "out"
    replay(whole_bag(tmp_path / "bag", 3), out, one_model, mask_bag=True)
    registry = shutil.copytree(one_model[0].partition("@")[0], out / "vehicle" / "registry")
    labels = out / "labels"
    labels.mkdir()
    (labels / "0.png").write_bytes(encode_png(bags.truth(0)))
    none: dict[str, object] = {"truth": {"source": "none"}}
    for bag, model, given in (
        (out / "masks", one_model[0], none),
        (tmp_path / "bag", f"{registry}@v0001", none),
        (tmp_path / "bag", one_model[0], {"truth": {"folder": str(labels), "source": "folder"}}),
        (tmp_path / "bag", one_model[0], {**none, "answers": str(labels)}),
    ):
        with pytest.raises(ConfigError, match="would be emptied"):
            replay(bag, out, [model], settings(**given))
    config = out / "my.yaml"
    config.write_text("seed: 1")
    done = cli_fixtures.ssada_here(
        "replay", tmp_path / "bag", "--model", one_model[0], "--out", out, "--config", config
    )
    assert done.status == 2
    assert f"would be emptied, and holds {config}" in done.err
    assert (registry / "v0001" / "manifest.json").exists()
    assert config.exists()
    assert (labels / "0.png").exists()


def test_labels_of_which_none_fits_are_named(tmp_path: Path, one_model: list[str]):
    path, folder = whole_bag(tmp_path / "bag", 3), tmp_path / "labels"
    folder.mkdir()
    (folder / f"{FIRST_NS + 7}.png").write_bytes(encode_png(bags.truth(0)))
    for by, expected in (("stamp", [f"no label of {folder} belongs to a frame"]), ("order", [])):
        said: list[str] = []
        replay(path, tmp_path / "out", one_model, settings(truth={"folder": str(folder), "by": by}), log=said.append)
        assert [line.partition(": ")[0] for line in said if "no label" in line] == expected


def test_a_bag_without_a_usable_frame_is_an_error(tmp_path: Path, one_model: list[str]):
    stream = [("/i/image", k, bags.image(k + 1, bags.picture(k), height=99)) for k in range(4)]
    with pytest.raises(BagError, match="not a single usable frame: 4x frame that cannot be decoded"):
        replay(foreign_bag(tmp_path / "bag", stream), tmp_path / "out", one_model, settings())
