from __future__ import annotations

import numpy as np
import pytest

from ssada_core.data.samples import ArraySamples
from ssada_core.errors import ConfigError
from ssada_core.learning.settings import TrainingSettings
from ssada_core.learning.weighting import (
    checked_iou,
    class_weights,
    count_pixels,
    fill_unknown,
    iou_weights,
    median_frequency_weights,
)


def test_unknown_classes_take_the_mean_of_the_others():
    np.testing.assert_allclose(fill_unknown(np.array([0.2, np.nan, 0.6])), [0.2, 0.4, 0.6])


def test_with_nothing_known_the_default_stands():
    np.testing.assert_array_equal(fill_unknown(np.array([np.nan, np.nan])), [0.0, 0.0])


def test_iou_weights_by_hand():
    # w = 1 + (2-1)(1-IoU); the unknown class: mean IoU 0.5.
    np.testing.assert_allclose(iou_weights(np.array([1.0, 0.0, np.nan])), [1.0, 2.0, 1.5])
    np.testing.assert_allclose(iou_weights(np.array([0.25, 0.75]), upper=5.0), [4.0, 2.0])


def test_median_frequency_by_hand():
    # Median of 100, 200, 400 is 200: ratios 2, 1, 0.5, scaled from [0.5, 2] to [1, 2]; no pixel: u.
    np.testing.assert_allclose(median_frequency_weights(np.array([100, 200, 400, 0])), [2.0, 4 / 3, 1.0, 2.0])


@pytest.mark.parametrize(("pixels", "expected"), [([0, 0], [2.0, 2.0]), ([7, 7], [1.0, 1.0]), ([0, 9], [2.0, 1.0])])
def test_median_frequency_at_the_edges(pixels: list[int], expected: list[float]):
    np.testing.assert_allclose(median_frequency_weights(np.array(pixels)), expected)


def labelled_samples() -> ArraySamples:
    labels = [np.array([[0, 0, 0, 255]], np.uint8), np.array([[1, 0, 255, 255]], np.uint8), None]
    return ArraySamples([np.zeros((1, 4, 3), np.uint8)] * 3, labels)


def test_pixels_are_counted_over_all_labels_without_the_ignored():
    np.testing.assert_array_equal(count_pixels(labelled_samples(), 3), [4, 1, 0])
    np.testing.assert_array_equal(count_pixels(None, 3), [0, 0, 0])


@pytest.mark.parametrize(
    ("kind", "expected"), [("none", [1, 1, 1]), ("iou", [2.5, 1.0, 1.75]), ("frequency", [1.0, 2.5, 2.5])]
)
def test_class_weights_by_kind(kind: str, expected: list[float]):
    settings = TrainingSettings(class_weights=kind, class_weight_upper=2.5)
    np.testing.assert_allclose(class_weights(settings, np.array([0.0, 1.0, np.nan]), labelled_samples()), expected)


def test_iou_of_another_network_is_refused():
    with pytest.raises(ConfigError, match="2 values but the network has 3"):
        checked_iou(np.zeros(2), 3)
    assert np.isnan(checked_iou(None, 3)).all()
