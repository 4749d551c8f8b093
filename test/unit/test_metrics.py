from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssada_core.errors import LabelError
from ssada_core.evaluation.metrics import confusion, iou, miou, pixel_accuracy, present

CLASSES = 4
shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))
pairs = shapes.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint8, shape, elements=st.integers(0, CLASSES - 1)),
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 255])),
    )
)


def brute_confusion(label, target):
    matrix = [[0] * CLASSES for _ in range(CLASSES)]
    for predicted, truth in zip(label.ravel().tolist(), target.ravel().tolist(), strict=True):
        if truth != 255:
            matrix[truth][predicted] += 1
    return matrix


def brute_iou(label, target, index):
    valid = target != 255
    truth = {tuple(p) for p in np.argwhere((target == index) & valid)}
    predicted = {tuple(p) for p in np.argwhere((label == index) & valid)}
    return len(truth & predicted) / len(truth | predicted) if truth else math.nan


@given(pairs)
@settings(max_examples=150, deadline=None)
def test_every_measure_agrees_with_counting_pixels_one_by_one(pair):
    label, target = pair
    matrix = confusion(label, target, CLASSES)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == brute_confusion(label, target)
    expected = [brute_iou(label, target, index) for index in range(CLASSES)]
    np.testing.assert_allclose(iou(matrix), expected, equal_nan=True)
    there = [value for value in expected if not math.isnan(value)]
    assert present(matrix).sum() == len(there)
    if not there:
        assert math.isnan(miou(matrix))
        assert math.isnan(pixel_accuracy(matrix))
        return
    assert miou(matrix) == pytest.approx(100 * sum(there) / len(there))
    valid = target != 255
    assert pixel_accuracy(matrix) == pytest.approx(100 * float(np.mean(label[valid] == target[valid])))


@given(st.lists(pairs, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_matrices_of_frames_add_up_to_the_matrix_of_the_set(frames):
    summed = sum(confusion(label, target, CLASSES) for label, target in frames)
    joined = confusion(
        np.concatenate([label.ravel() for label, _ in frames]),
        np.concatenate([target.ravel() for _, target in frames]),
        CLASSES,
    )
    np.testing.assert_array_equal(summed, joined)


def test_a_class_that_is_only_predicted_lowers_the_others_but_is_no_class_of_the_mean():
    # By hand: truth is 3 x class 0 and 1 x class 1; class 2 is predicted once in place of class 0.
    matrix = confusion(np.array([[0, 0, 2, 1]], np.uint8), np.array([[0, 0, 0, 1]], np.uint8), 3)
    np.testing.assert_allclose(iou(matrix), [2 / 3, 1.0, np.nan], equal_nan=True)
    assert miou(matrix) == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_iou_of_a_stack_is_the_stack_of_ious():
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 9, (5, 3, 3))
    stack[2, 1] = 0
    np.testing.assert_allclose(iou(stack), np.stack([iou(matrix) for matrix in stack]), equal_nan=True)


def test_labels_of_another_size_or_with_unknown_ids_are_refused_with_a_reason():
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(LabelError, match=r"\(2, 2\).*\(2, 3\)"):
        confusion(zeros, np.zeros((2, 3), np.uint8), 3)
    with pytest.raises(LabelError, match="class id 7 in the ground truth"):
        confusion(zeros, np.full((2, 2), 7, np.uint8), 3)
    with pytest.raises(LabelError, match="class id 9 in the prediction"):
        confusion(np.full((2, 2), 9, np.uint8), zeros, 3)
    with pytest.raises(LabelError, match="int64"):
        confusion(np.full((2, 2), 300), zeros, 3)
    assert confusion(np.full((2, 2), 9, np.uint8), np.full((2, 2), 255, np.uint8), 3).sum() == 0
