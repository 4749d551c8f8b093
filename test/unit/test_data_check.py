"""``ssada data check`` on data sets with one thing wrong each, by its command and from the function."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from cli_fixtures import ssada_here

from ssada_core.data.check import MAX_PROBLEMS, DataReport, check_data
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import ArraySamples
from ssada_core.labels import LABEL_SPACES


def write(root: Path, name: str, ids: list[list[int]] | None, size: tuple[int, int] = (2, 3)) -> None:
    for kind in ("image", "label"):
        (root / kind / "train").mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(root / "image" / "train" / f"{name}.png"), np.full((*size, 3), 9, np.uint8))
    if ids is not None:
        assert cv2.imwrite(str(root / "label" / "train" / f"{name}.png"), np.array(ids, np.uint8))


def found(root: Path, *, space: str = "bev", needs_labels: bool = False) -> DataReport:
    samples = open_samples(f"splits:{root}:train", LABEL_SPACES[space])
    return check_data(samples, LABEL_SPACES[space], needs_labels=needs_labels)


def test_a_sound_set_has_its_histogram(tmp_path: Path):
    write(tmp_path, "a", [[0, 0, 1], [255, 6, 6]])
    write(tmp_path, "b", [[0, 2], [3, 4]], size=(2, 2))
    report = found(tmp_path)
    assert (report.frames, report.labelled, report.unlabelled, report.problem_count) == (2, 2, 0, 0)
    assert report.pixels.tolist() == [3, 1, 1, 1, 1, 0, 2]
    assert dict(report.sizes) == {"3x2": 1, "2x2": 1}
    assert report.notes == [
        "frames have 2 sizes: training resizes all to the network's input size",
        "classes without a pixel: arrow",
    ]
    assert report.to_dict(LABEL_SPACES["bev"])["percent"]["background"] == 33.333


def test_ids_out_of_range_are_named(tmp_path: Path):
    write(tmp_path, "a", [[0, 7, 200], [0, 0, 255]])
    report = found(tmp_path)
    assert report.problem_count == 1
    assert report.problems[0].startswith("a: its label holds ids 7, 200 that label space 'bev' does not know")


def test_class_ids_out_of_range_of_frames_that_are_no_files_are_named():
    images = [np.zeros((1, 3, 3), np.uint8)] * 2
    samples = ArraySamples(images, [np.array([[0, 7, 255]], np.uint8), np.array([[0, 6, 255]], np.uint8)])
    report = check_data(samples, LABEL_SPACES["bev"], needs_labels=False)
    assert report.problems == [
        "000000: its label holds class ids 7, but there are 7 classes: classes count from 0, and 255 is unlabelled"
    ]
    assert report.pixels.tolist() == [2, 0, 0, 0, 0, 0, 1]


def test_ids_that_a_mapped_space_does_not_know_are_named_too(tmp_path: Path):
    """Decoding drops them in silence, because a data set has many void ids; the check must not."""
    write(tmp_path, "a", [[7, 26, 0], [90, 33, 255]])
    report = found(tmp_path, space="cityscapes")
    assert report.problems[0].startswith("a: its label holds ids 90 that label space 'cityscapes' does not know")


def test_a_choice_of_frames_is_checked_like_all_of_them(tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path, name, [[7, 26, 0], [90, 33, 255]])
    space = LABEL_SPACES["cityscapes"]
    samples = open_samples(f"every:1:frames:0-2:splits:{tmp_path}:train", space)
    report = check_data(samples, space, needs_labels=False)
    assert report.problem_count == 2
    assert report.problems[1].startswith("b: its label holds ids 90 that")


def test_a_label_of_another_size_and_a_broken_file(tmp_path: Path):
    write(tmp_path, "a", [[0, 0]])
    write(tmp_path, "b", [[0, 0, 0], [0, 0, 0]])
    (tmp_path / "image" / "train" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nshort")
    report = found(tmp_path)
    assert report.problem_count == 2
    assert "label is 2x1 but the image is 3x2" in report.problems[0]
    assert "b.png" in report.problems[1]


def test_frames_without_labels(tmp_path: Path):
    write(tmp_path, "a", [[0, 0, 0], [0, 0, 0]])
    write(tmp_path, "b", None)
    assert found(tmp_path).problems[0].startswith("1 of 2 frames have no label: unpack the rest")
    images = open_samples(str(tmp_path / "image" / "train"), LABEL_SPACES["bev"])
    unlabelled = check_data(images, LABEL_SPACES["bev"], needs_labels=False)
    assert unlabelled.problem_count == 0
    assert unlabelled.notes == ["no frame has a label: good for data.unlabelled only"]
    assert check_data(images, LABEL_SPACES["bev"], needs_labels=True).problem_count == 1


def test_dummy_labels_and_train_ids(tmp_path: Path):
    write(tmp_path / "dummy", "a", [[0, 0, 0], [0, 255, 0]])
    assert "every pixel is unlabelled" in found(tmp_path / "dummy", space="cityscapes").problems[0]
    write(tmp_path / "trained", "a", [[0, 7, 8], [11, 13, 18]])
    report = found(tmp_path / "trained", space="cityscapes")
    assert report.notes[0].startswith("no id is above 18: if the files hold class ids already (train ids)")
    write(tmp_path / "raw", "a", [[7, 8, 11], [33, 13, 18]])
    assert not [words for words in found(tmp_path / "raw", space="cityscapes").notes if "train ids" in words]


def test_many_problems_are_counted(tmp_path: Path):
    for index in range(MAX_PROBLEMS + 5):
        write(tmp_path, f"{index:02d}", [[9, 9, 9], [9, 9, 9]])
    report = found(tmp_path)
    assert (report.problem_count, len(report.problems)) == (MAX_PROBLEMS + 5, MAX_PROBLEMS)


def ssada(*arguments: object) -> tuple[int, dict[str, object], str]:
    done = ssada_here("data", "check", *arguments)
    return done.status, json.loads(done.out or "{}"), done.err


def test_the_command_on_a_reference(tmp_path: Path):
    write(tmp_path, "a", [[0, 7, 0], [0, 0, 0]])
    out = tmp_path / "report.json"
    status, figures, words = ssada(f"bev:{tmp_path}:train", "--label-space", "bev", "--json", out)
    assert status == 1
    assert figures["problem_count"] == 1
    assert json.loads(out.read_text()) == figures
    assert "problem: a: its label holds ids 7" in words
    write(tmp_path, "a", [[0, 6, 0], [0, 0, 0]])
    status, figures, words = ssada(f"bev:{tmp_path}:train", "--label-space", "bev")
    assert (status, figures["problem_count"]) == (0, 0)
    assert "0 problems" in words


def test_the_command_on_a_configuration_checks_what_its_mode_trains_on(tmp_path: Path):
    write(tmp_path, "a", [[0, 6, 0], [0, 0, 0]])
    config = tmp_path / "own.yaml"
    config.write_text(
        f"mode: joint\nlabel_space: bev\ndata: {{source: 'bev:{tmp_path}:train', labelled: 'bev:{tmp_path}:val', "
        f"unlabelled: nowhere, validation: '{tmp_path / 'image' / 'train'}'}}\n"
    )
    status, figures, words = ssada(config)
    parts = figures["parts"]
    assert isinstance(parts, dict)
    assert status == 1
    assert {role: part["problem_count"] for role, part in parts.items()} == {
        "source": 0,
        "labelled": 1,
        "validation": 1,
    }
    assert "has no folder image/val" in words
    assert "1 of 1 frames have no label" in words


def test_wrong_use(tmp_path: Path):
    (tmp_path / "empty.yaml").write_text("name: x\n")
    assert ssada(tmp_path / "empty.yaml")[0] == 2
    assert ssada("sim:day:1:0-2", "--label-space", "camvdi")[0] == 2
