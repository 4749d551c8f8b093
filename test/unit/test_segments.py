from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from ssada_core.annotation.merging import merge_patches
from ssada_core.annotation.segments import LEVELS, superpixels
from ssada_core.data.simulated_drive import SimulatedDrive


def parts_of(patches: np.ndarray, number: int) -> int:
    return cv2.connectedComponents((patches == number).astype(np.uint8), connectivity=4)[0] - 1


@pytest.fixture(scope="module")
def street() -> tuple[np.ndarray, np.ndarray]:
    return SimulatedDrive(seed=1, size=(192, 320)).frame(3, "night")


def test_patches_are_connected_numbered_without_gaps_and_lie_inside_the_next_larger_ones(street):
    levels = superpixels(street[0])
    assert [int(level.max()) + 1 for level in levels] == list(LEVELS)
    for level in levels:
        assert (level.shape, level.dtype) == ((192, 320), np.int32)
        assert len(np.unique(level)) == level.max() + 1
    for number in range(LEVELS[2]):
        assert parts_of(levels[2], number) == 1
    for fine, coarse in pairwise(levels):
        pairs = np.unique(np.stack([fine.ravel(), coarse.ravel()]), axis=1)
        assert pairs.shape[1] == fine.max() + 1  # each fine patch has one coarse one


@pytest.mark.parametrize("seed", [1, 2])
def test_patches_follow_what_is_there(seed):
    """When each of 60 patches has one class, more of the label is right than with a grid of 60."""
    image, label = SimulatedDrive(seed=seed, size=(192, 320)).frame(3, "day")
    valid = label < 11
    grid = np.indices(label.shape)[0] // 32 * 10 + np.indices(label.shape)[1] // 32

    def best(patches):
        keys = patches[valid].astype(np.int64) * 11 + label[valid]
        return np.bincount(keys, minlength=11 * (patches.max() + 1)).reshape(-1, 11).max(1).sum() / valid.sum()

    found = best(superpixels(image)[3])
    assert found > best(grid) + 0.03


@pytest.mark.parametrize("size", [(1, 1), (8, 200), (12, 12), (13, 17), (40, 30)])
def test_small_frames_have_patches_too(size):
    levels = superpixels(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))
    assert len(levels) == len(LEVELS)
    assert all(level.shape == size and level.min() == 0 for level in levels)


def test_merging_joins_the_most_alike_neighbours_first():
    patches = np.array([[0, 1, 2, 3]], np.int32)
    features = np.array([[[0.0], [10.0], [11.0], [0.0]]])
    three, two, one = merge_patches(patches, features, (3, 2, 1))
    assert three.tolist() == [[0, 1, 1, 2]]  # 0 and 3 are alike, but no neighbours
    assert two.max() == 1
    assert one.tolist() == [[0, 0, 0, 0]]


def test_merging_weighs_size_as_ward_does():
    """Means 3 apart, sizes 1 and 8, add 8; means 2 apart, sizes 8 and 8, add 16: the small one goes first."""
    patches = np.array([[0] + [1] * 8 + [2] * 8], np.int32)
    features = np.array([[[3.0]] + [[0.0]] * 8 + [[2.0]] * 8])
    (two,) = merge_patches(patches, features, (2,))
    assert two.tolist() == [[0] * 9 + [1] * 8]


def test_more_patches_than_there_are_is_what_there_is():
    patches = np.array([[0, 1]], np.int32)
    assert merge_patches(patches, np.zeros((1, 2, 1)), (50,))[0].tolist() == [[0, 1]]
