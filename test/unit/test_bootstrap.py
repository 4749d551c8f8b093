from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssada_core.evaluation.bootstrap import paired_difference, stretches
from ssada_core.evaluation.metrics import miou

SECOND = 1_000_000_000


def compare(before, after, stamps, probability=0.9, samples=2000, seed=0):
    return paired_difference(before, after, stamps, length_s=5.0, samples=samples, probability=probability, seed=seed)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60, unique=True), st.floats(0.1, 100))
@settings(max_examples=100, deadline=None)
def test_stretches_are_short_contiguous_and_as_few_as_greed_allows(stamps, length):
    array = np.array(stamps, np.int64)
    numbers = stretches(array, length)
    order = np.argsort(array)
    steps = np.diff(numbers[order])
    assert numbers[order][0] == 0
    assert set(steps.tolist()) <= {0, 1}
    limit = round(length * SECOND)
    for number in range(numbers.max() + 1):
        inside = array[numbers == number]
        assert inside.max() - inside.min() <= limit
        if number:
            assert inside.min() - array[numbers == number - 1].min() > limit


def test_near_copies_count_as_one():
    matrix = np.array([[[8, 2], [1, 9]]] * 6)
    better = np.array([[[9, 1], [0, 10]]] * 6)
    close = compare(matrix, better, np.arange(6) * SECOND // 2)
    assert (close.frames, close.stretches) == (6, 1)
    assert close.probability_above(0.0) == 0.5
    assert close.interval(0.9) == (-np.inf, np.inf)
    apart = compare(matrix, better, np.arange(6) * 20 * SECOND)
    assert apart.stretches == 6
    # Every stretch gains, so the probability is all that six stretches can show, and no more.
    assert apart.probability_above(0.0) == 1 - 0.5**6
    assert apart.probability_above(50.0) == 0.5**6
    assert apart.gain == pytest.approx(miou(better[0]) - miou(matrix[0]))


def test_a_class_seen_in_one_stretch_alone_is_in_every_draw():
    before = np.zeros((5, 3, 3), np.int64)
    before[:, 0, 0], before[:, 1, 1] = 90, 80
    before[2, 2] = [10, 0, 10]
    after = before.copy()
    after[2, 2] = [0, 0, 20]
    result = compare(before, after, np.arange(5) * 60 * SECOND)
    # Only class 2 (and, through false positives, class 0) changes: a third of about 50 points in each draw.
    assert result.gain == pytest.approx(miou(after.sum(axis=0)) - miou(before.sum(axis=0)))
    assert np.abs(result.draws - result.gain).max() < 8.0
    assert result.draws.min() > 10.0


def test_the_draws_standard_deviation_is_that_of_a_mean_with_students_factor():
    # One class, frames of equal size: IoU of the set is then close to the mean of the frames' IoU.
    rng = np.random.default_rng(5)
    size, frames = 10_000, 12
    hits = rng.integers(7000, 8000, frames)
    wide = np.zeros((frames, 2, 2), np.int64)
    wide[:, 0, 0], wide[:, 0, 1] = hits, size - hits
    base = np.zeros_like(wide)
    base[:, 0, 0] = size
    result = compare(base, wide, np.arange(frames) * 60 * SECOND, samples=20000)
    expected = 100 * (hits / size).std(ddof=1) / np.sqrt(frames)
    student = 1 + (1.2816**2 + 1) / (4 * (frames - 1))
    assert result.deviation == pytest.approx(expected * student, rel=0.04)


def test_the_same_seed_gives_the_same_draws():
    rng = np.random.default_rng(1)
    before, after = rng.integers(0, 50, (2, 8, 3, 3))
    stamps = np.arange(8) * 30 * SECOND
    np.testing.assert_array_equal(compare(before, after, stamps).draws, compare(before, after, stamps).draws)
    assert not np.array_equal(compare(before, after, stamps).draws, compare(before, after, stamps, seed=1).draws)


def test_no_frames_and_no_labels_say_nothing():
    none = np.zeros((0, 3, 3), np.int64)
    assert compare(none, none, np.zeros(0, np.int64)).probability_above(0) == 0.5
    empty = np.zeros((4, 3, 3), np.int64)
    result = compare(empty, empty, np.arange(4) * 60 * SECOND)
    assert np.isnan(result.gain)
    assert result.deviation == np.inf
