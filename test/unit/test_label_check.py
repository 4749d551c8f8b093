from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssada_core.annotation.check import CheckResult, LabelCheckSettings, check_label
from ssada_core.labels import CAMVID

SIZE = (40, 60)


def street() -> np.ndarray:
    label = np.zeros(SIZE, np.uint8)
    label[10:20] = 1
    label[20:] = 3
    return label


def check(label: np.ndarray, prediction: np.ndarray | None = None, sure: int = 255, **limits: float) -> CheckResult:
    confidence = None if prediction is None else np.full(prediction.shape, sure, np.uint8)
    return check_label(
        label,
        size=SIZE,
        label_space=CAMVID,
        prediction=prediction,
        confidence=confidence,
        settings=LabelCheckSettings(**limits),
    )


def test_a_plain_label_is_accepted() -> None:
    result = check(street())
    assert (result.status, result.why, result.labelled_share, result.agreement) == ("accepted", "", 1.0, None)


def test_ignored_ids_become_255() -> None:
    label = street()
    label[:10] = 11  # CamVid's own "unlabelled"
    result = check(label)
    assert result.status == "accepted"
    assert result.label is not None
    assert set(np.unique(result.label)) == {1, 3, 255}
    assert result.labelled_share == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.zeros((40, 61), np.uint8), "the label is 61x40, its frame 60x40"),
        (np.zeros((40, 60, 3), np.uint8), "class ids, not colours"),
        (np.zeros((40, 60), np.int32), "8-bit"),
        (np.zeros(7, np.uint8), "shape"),
        (np.full(SIZE, 12, np.uint8), "class id 12"),
        (np.full(SIZE, 255, np.uint8), r"only 0\.0%"),
    ],
)
def test_what_is_no_label_is_refused(label: np.ndarray, words: str) -> None:
    result = check(label)
    assert result.status == "refused"
    assert result.label is None
    assert re.search(words, result.why)


def test_too_little_is_refused_and_the_limit_is_a_setting() -> None:
    label = np.full(SIZE, 255, np.uint8)
    label[0, :48] = 3  # 48 of 2400 pixels: 2 %
    assert check(label).why == "only 2.0% of the label is labelled, at least 5% is needed: label more"
    assert check(label, min_labelled_share=0.02).status == "accepted"


def test_one_class_everywhere_is_held_but_a_patch_of_it_is_not() -> None:
    assert check(np.full(SIZE, 3, np.uint8)).why == "all of it is 'road': confirm it if that is so"
    patch = np.full(SIZE, 255, np.uint8)
    patch[:10] = 3
    assert check(patch).status == "accepted"


def test_contradicting_a_sure_model_nearly_everywhere_is_held() -> None:
    other = np.where(street() == 3, 5, 8).astype(np.uint8)
    result = check(street(), other)
    assert (result.status, result.agreement) == ("held", 0.0)
    assert "contradicts 100%" in result.why


def test_a_prediction_that_nobody_changed_is_held_and_one_pixel_is_enough() -> None:
    assert "differs from what the model predicts" in check(street(), street()).why
    assert check(street(), street(), hold_unchanged=0).status == "accepted"
    changed = street()
    changed[0, 0] = 3
    assert check(changed, street()).status == "accepted"
    partial = street()
    partial[:10] = 255
    assert check(partial, street()).status == "held"  # leaving pixels out says nothing new


def test_an_unsure_model_has_no_say() -> None:
    other = np.full(SIZE, 5, np.uint8)
    assert check(street(), other, sure=200).agreement is None
    assert check(street(), other, sure=200).status == "accepted"


def test_agreement_is_counted_over_sure_and_labelled_pixels() -> None:
    label, prediction = street(), street()
    label[:10] = 255
    prediction[20:30] = 5  # 10 of the 30 labelled rows are wrong
    assert check(label, prediction).agreement == pytest.approx(2 / 3)


def test_the_prediction_may_have_the_networks_size() -> None:
    small = cv2.resize(street(), (30, 20), interpolation=cv2.INTER_NEAREST)
    assert check(street(), small).agreement == 1.0


def test_a_space_with_an_id_map_is_answered_in_class_ids() -> None:
    space = replace(CAMVID, id_map={7: 0, 8: 1, 11: 3})
    result = check_label(street(), size=SIZE, label_space=space, settings=LabelCheckSettings())
    assert result.label is not None
    assert np.array_equal(result.label, street())


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(hnp.unsigned_integer_dtypes() | hnp.floating_dtypes(), hnp.array_shapes(max_dims=4, max_side=6)))
def test_anything_gets_a_verdict(label: np.ndarray) -> None:
    result = check_label(label, size=(4, 5), label_space=CAMVID, settings=LabelCheckSettings())
    assert result.status in {"accepted", "held", "refused"}
    assert (result.label is None) == (result.status == "refused")
    if result.label is not None:
        assert set(np.unique(result.label)) <= {*range(11), 255}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_model_that_is_right_on_a_fifth_never_holds_a_true_label(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wrong = rng.random(SIZE) < 0.8
    prediction = np.where(wrong, (street() + 1 + rng.integers(0, 9, SIZE)) % 11, street()).astype(np.uint8)
    assert check(street(), prediction).status == "accepted"


@pytest.mark.shared_data
def test_real_dusk_labels_pass_against_a_model_that_knows_only_the_day(camvid: Path) -> None:
    """The most frequent class of each pixel in daylight: a model that has never seen the image at all."""
    day = [camvid / line.split()[1] for line in (camvid / "source_day.txt").read_text().splitlines()[::8]]
    dusk = [camvid / line.split()[1] for line in (camvid / "dusk_pool.txt").read_text().splitlines()]
    votes = np.zeros((360, 480, 256), np.uint16)
    rows, columns = np.indices((360, 480))
    for path in day:
        votes[rows, columns, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)] += 1
    prior = votes[:, :, :11].argmax(2).astype(np.uint8)
    sure = np.full(prior.shape, 255, np.uint8)
    shuffle = np.roll(np.arange(11), 4).astype(np.uint8)
    for path in dusk:
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        common = {"size": (360, 480), "label_space": CAMVID, "confidence": sure, "settings": LabelCheckSettings()}
        assert check_label(label, prediction=prior, **common).status == "accepted"
        truth = np.where(label < 11, label, 0).astype(np.uint8)
        assert check_label(label, prediction=shuffle[truth], **common).status == "held"
