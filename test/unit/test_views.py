from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssada_core.learning.views import (
    PADDING_BGR,
    Box,
    Geometry,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    box_mask,
    paste,
    sample_cutmix,
    sample_geometry,
    strong_view,
    weak_view,
)


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose blue is the row and whose green is the column."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(height)[:, None]
    image[..., 1] = np.arange(width)[None, :]
    return image


def test_at_scale_one_the_view_is_a_plain_crop():
    image = coordinates(60, 80)
    label = (image[..., 0] // 10).astype(np.uint8)
    view = weak_view(image, label, Geometry(7, 11, 32, 32, 32, 32, flip=False), (32, 32))
    np.testing.assert_array_equal(view.image, image[7:39, 11:43])
    np.testing.assert_array_equal(view.label, label[7:39, 11:43])
    assert view.inside.all()


def test_a_flip_mirrors_image_label_and_mask_alike():
    image = coordinates(20, 20)
    label = image[..., 1].copy()
    view = weak_view(image, label, Geometry(0, 0, 20, 20, 20, 20, flip=True), (24, 24))
    np.testing.assert_array_equal(view.image[:20, :20], image[:, ::-1])
    np.testing.assert_array_equal(view.label[:20, :20], label[:, ::-1])


def test_beyond_the_image_there_is_padding_with_its_own_mask():
    view = weak_view(coordinates(10, 12), np.zeros((10, 12), np.uint8), Geometry(0, 0, 10, 12, 5, 6, False), (8, 8))
    assert view.inside.sum() == 30
    assert view.inside[:5, :6].all()
    assert (view.label[~view.inside] == 255).all()
    assert (view.label[view.inside] == 0).all()
    assert (view.image[~view.inside] == PADDING_BGR).all()


def test_scaling_keeps_image_and_label_aligned():
    # A step edge at column 40: after doubling it must lie at column 80 in both.
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, 40:] = 200
    label = (image[..., 0] > 100).astype(np.uint8)
    view = weak_view(image, label, Geometry(0, 24, 16, 32, 32, 64, False), (32, 64))
    np.testing.assert_array_equal(view.label[0], (np.arange(64) >= 32).astype(np.uint8))
    assert (np.abs((view.image[..., 0] > 100).astype(int) - view.label)).sum() == 0


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    image=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    crop=st.tuples(st.integers(1, 128), st.integers(1, 128)),
)
def test_any_geometry_lies_within_image_and_crop(seed: int, image: tuple[int, int], crop: tuple[int, int]):
    geometry = sample_geometry(np.random.default_rng(seed), image, crop)
    assert 0 <= geometry.top <= geometry.top + geometry.height <= image[0]
    assert 0 <= geometry.left <= geometry.left + geometry.width <= image[1]
    assert 1 <= geometry.out_height <= crop[0]
    assert 1 <= geometry.out_width <= crop[1]
    view = weak_view(np.zeros((*image, 3), np.uint8), np.zeros(image, np.uint8), geometry, crop)
    assert view.image.shape == (*crop, 3)
    np.testing.assert_array_equal(view.label == 0, view.inside)


def test_scales_cover_the_range_evenly_and_half_are_flipped():
    rng = np.random.default_rng(0)
    drawn = [sample_geometry(rng, (480, 640), (64, 64)) for _ in range(2000)]
    scales = np.array([64 / geometry.height for geometry in drawn])
    assert scales.min() == pytest.approx(0.5, abs=0.01)
    assert scales.max() == pytest.approx(2.0, abs=0.04)
    assert scales.mean() == pytest.approx(1.25, abs=0.03)
    assert np.mean([geometry.flip for geometry in drawn]) == pytest.approx(0.5, abs=0.04)
    assert max(geometry.top + geometry.height for geometry in drawn) > 475


COLOR = np.full((4, 4, 3), (40, 80, 160), np.uint8)
GREY = 0.114 * 40 + 0.587 * 80 + 0.299 * 160


def test_brightness_contrast_and_saturation_by_hand():
    np.testing.assert_array_equal(adjust_brightness(COLOR, 1.5)[0, 0], [60, 120, 240])
    np.testing.assert_array_equal(adjust_brightness(COLOR, 2.0)[0, 0], [80, 160, 255])
    half = np.array([40, 80, 160]) * 0.5
    np.testing.assert_allclose(adjust_contrast(COLOR, 0.5)[0, 0], half + 0.5 * round(GREY), atol=1)
    np.testing.assert_allclose(adjust_saturation(COLOR, 0.5)[0, 0], half + 0.5 * GREY, atol=1)
    np.testing.assert_allclose(adjust_saturation(COLOR, 0.0)[0, 0], [GREY] * 3, atol=1)


def test_contrast_blends_with_the_mean_of_the_whole_crop():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = 200  # mean grey 100
    result = adjust_contrast(image, 0.5)
    assert result[0, 0, 0] == 150
    assert result[1, 0, 0] == 50


@pytest.mark.parametrize("shift", [-0.25, -0.1, 0.05, 0.25])
def test_hue_agrees_with_colorsys(shift: float):
    h, s, v = colorsys.rgb_to_hsv(160 / 255, 80 / 255, 40 / 255)
    expected = np.array(colorsys.hsv_to_rgb((h + shift) % 1, s, v)) * 255
    np.testing.assert_allclose(adjust_hue(COLOR, shift)[0, 0, ::-1], expected, atol=4)


def test_strong_views_follow_the_generator_and_leave_the_crop_alone():
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    original = image.copy()
    first = strong_view(np.random.default_rng(7), image)
    np.testing.assert_array_equal(first, strong_view(np.random.default_rng(7), image))
    assert (first != strong_view(np.random.default_rng(8), image)).any()
    np.testing.assert_array_equal(image, original)


def test_strong_views_have_the_asked_frequencies():
    image = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    rng = np.random.default_rng(2)
    views = [strong_view(rng, image) for _ in range(1500)]
    grey = np.mean([(np.ptp(view.astype(int), axis=2) == 0).all() for view in views])
    untouched = np.mean([(view == image).all() for view in views])
    assert grey == pytest.approx(0.2, abs=0.04)
    # Neither jittered nor grey nor visibly blurred: 0.2 · 0.8 · (0.5 + 0.5 · share of tiny sigmas).
    assert 0.06 < untouched < 0.13
    assert all(view.dtype == np.uint8 and view.shape == image.shape for view in views)


def test_blur_alone_lowers_the_detail():
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    detail = [cv2.Laplacian(strong_view(np.random.default_rng(seed), image), cv2.CV_64F).std() for seed in range(60)]
    assert min(detail) < 0.1 * max(detail)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(16, 300), width=st.integers(16, 300))
def test_boxes_have_the_asked_area_and_fit(seed: int, height: int, width: int):
    box = sample_cutmix(np.random.default_rng(seed), (height, width))
    if box is None:
        return
    assert 0 <= box.top < box.bottom <= height
    assert 0 <= box.left < box.right <= width
    rows, columns = box.bottom - box.top, box.right - box.left
    slack = rows + columns  # rounding each side by half a pixel
    assert 0.02 * height * width - slack <= rows * columns <= 0.4 * height * width + slack


def test_boxes_come_half_the_time_with_the_asked_ratios():
    rng = np.random.default_rng(0)
    boxes = [sample_cutmix(rng, (256, 256)) for _ in range(2000)]
    drawn = [box for box in boxes if box is not None]
    assert len(drawn) / 2000 == pytest.approx(0.5, abs=0.04)
    ratios = np.array([(box.bottom - box.top) / (box.right - box.left) for box in drawn])
    assert 0.27 < ratios.min() < 0.35
    assert 2.9 < ratios.max() < 3.6
    assert np.median(ratios) == pytest.approx(1.0, abs=0.1)
    areas = np.array([(box.bottom - box.top) * (box.right - box.left) for box in drawn]) / 256**2
    assert areas.mean() == pytest.approx(0.21, abs=0.02)


def test_mask_and_paste_agree():
    own, other = np.zeros((6, 8, 3), np.uint8), np.full((6, 8, 3), 9, np.uint8)
    box = Box(1, 2, 4, 7)
    mixed = paste(own, other, box)
    np.testing.assert_array_equal(mixed[..., 0] == 9, box_mask(box, (6, 8)))
    assert box_mask(box, (6, 8)).sum() == 15
    assert not own.any()
    assert not box_mask(None, (6, 8)).any()
