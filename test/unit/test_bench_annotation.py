from __future__ import annotations

import numpy as np
import pytest

from ssada_core.bench.annotation import AnnotationBench, ScriptedUser, run_annotation_bench
from ssada_core.errors import DataError
from ssada_core.labels import CAMVID


def halves(left: int, right: int) -> np.ndarray:
    return np.repeat([[left] * 3 + [right] * 3], 4, axis=0).astype(np.uint8)


def columns(*numbers: int) -> np.ndarray:
    return np.repeat([list(numbers)], 4, axis=0).astype(np.int64)


def test_the_user_takes_the_click_that_puts_most_right():
    truth = halves(3, 8)
    truth[0, 0] = 255
    user = ScriptedUser(halves(1, 1), truth, [columns(0, 0, 1, 1, 2, 2)], CAMVID)
    assert user.accuracy == 0.0
    first = user.click()
    # Filling all of it as car puts 12 pixels right, more than any patch of 8.
    assert (first.tool, first.index, first.gain) == ("region", 8, 12)
    second = user.click()
    assert (second.tool, second.index, second.gain) == ("patch 0", 3, 7)  # the eighth pixel counts for nothing
    assert user.click().gain == 0  # the patch in the middle is half of each, and all of one class
    assert user.accuracy == pytest.approx(19 / 23)


def test_one_class_of_a_patch_is_changed_where_a_patch_alone_would_spoil_another():
    truth = halves(3, 8)
    user = ScriptedUser(np.where(truth == 8, 8, 1).astype(np.uint8), truth, [columns(0, 0, 0, 0, 1, 1)], CAMVID)
    click = user.click()
    assert (click.index, click.gain) == (3, 12)
    assert user.accuracy == 1.0
    assert user.click().gain == 0


def test_the_best_that_patches_allow_is_each_ones_majority():
    user = ScriptedUser(halves(0, 0), halves(3, 8), [columns(0, 1, 2, 3, 4, 5), columns(0, 0, 1, 1, 2, 2)], CAMVID)
    assert user.best_by_level() == [1.0, pytest.approx(20 / 24, abs=1e-4)]


def test_clicks_are_counted_from_a_real_prediction_to_the_target():
    bench = AnnotationBench(model="sim-day", data="sim:night:5:0-40", frames=2, target=0.9, backend="torch")
    told = []
    figures = run_annotation_bench(bench, log=lambda _: None, on_frame=lambda *numbers: told.append(numbers))
    assert figures["reached"] == 2
    assert told == [(1, 2), (2, 2)]
    for row in figures["frames"]:
        assert row["accuracy_before"] < 0.9 <= row["accuracy_after"]
        assert row["clicks"] == sum(row["tools"].values()) > 0
        assert row["class_changes"] <= row["clicks"]
        assert sorted(row["best_by_level"], reverse=True) == row["best_by_level"]
    assert figures["clicks_median"] == np.median([row["clicks"] for row in figures["frames"]])


def test_frames_without_labels_are_refused(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    bench = AnnotationBench(model="sim-day", data=str(tmp_path), backend="torch")
    with pytest.raises(DataError, match="has no label"):
        run_annotation_bench(bench, log=lambda _: None, on_frame=lambda *_: None)
