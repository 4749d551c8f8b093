"""Labels are resized by pixel centres, as images are: nothing moves against the picture it belongs to."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ssada_core.data.resized import resize_image, resize_label
from ssada_core.data.simulated_drive import SimulatedDrive


@pytest.mark.parametrize(("before", "after"), [(1920, 640), (1280, 640), (480, 640), (640, 480), (1000, 384), (97, 61)])
def test_edges_stay_where_they_are(before: int, after: int) -> None:
    edges = np.arange(before // 4, 3 * before // 4)
    label = (np.arange(before) >= edges[:, None]).astype(np.uint8)  # a row for each place of the edge
    resized = resize_label(label, (len(edges), after))
    found = (after - resized.sum(axis=1)) * before / after
    # Half a pixel of the finer grid is what an even factor cannot do better than.
    assert abs(float(np.mean(found - edges))) <= 0.5
    whole = before % after == 0 and (before // after) % 2 == 1
    assert not whole or abs(float(np.mean(found - edges))) < 0.01


@pytest.mark.parametrize("size", [(480, 640), (360, 480), (720, 1280)])
def test_a_label_is_where_its_image_is(size: tuple[int, int]) -> None:
    _, label = SimulatedDrive(3, size).frame(20)
    road = np.where(label == 3, 255, 0).astype(np.uint8)
    small = resize_label((road > 0).astype(np.uint8), (384, 640))
    soft = resize_image(cv2.merge([road] * 3), (384, 640))[..., 0] / 255.0

    def centre(weights: np.ndarray) -> np.ndarray:
        ys, xs = np.mgrid[: weights.shape[0], : weights.shape[1]]
        return np.array([(ys * weights).sum(), (xs * weights).sum()]) / weights.sum()

    np.testing.assert_allclose(centre(small), centre(soft), atol=0.2)


def test_what_was_enlarged_comes_back_as_it_was() -> None:
    _, label = SimulatedDrive(3, (360, 480)).frame(20)
    np.testing.assert_array_equal(resize_label(resize_label(label, (384, 640)), (360, 480)), label)
