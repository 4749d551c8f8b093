from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssada_core.errors import DataError
from ssada_core.evaluation.overlay import before_after, colorize, legend, overlay, strip
from ssada_core.labels import CAMVID

PALETTE = CAMVID.palette_bgr()


def sample(height=8, width=10, seed=0):
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    label = rng.choice(np.array([*range(11), 255], np.uint8), (height, width))
    return frame, label


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_blending_is_the_formula_in_every_pixel(height, width, opacity, seed):
    frame, label = sample(height, width, seed)
    colors = PALETTE[label].astype(np.float64)
    expected = (1 - opacity) * frame + opacity * colors
    result = overlay(frame, label, PALETTE, opacity=opacity)
    assert result.dtype == np.uint8
    assert np.abs(result - expected).max() <= 1.0
    np.testing.assert_array_equal(colorize(label, PALETTE), PALETTE[label])


def test_the_buffer_is_used_and_the_frame_is_left_alone():
    frame, label = sample()
    kept, buffer = frame.copy(), np.zeros_like(frame)
    result = overlay(frame, label, PALETTE, out=buffer)
    assert np.shares_memory(result, buffer)
    np.testing.assert_array_equal(frame, kept)
    np.testing.assert_array_equal(result, overlay(frame, label, PALETTE))


def test_unlabelled_pixels_can_show_the_bare_frame():
    frame, label = sample()
    result = overlay(frame, label, PALETTE, opacity=0.5, keep_unlabelled=True)
    np.testing.assert_array_equal(result[label == 255], frame[label == 255])
    plain = overlay(frame, label, PALETTE, opacity=0.5)
    np.testing.assert_array_equal(result[label != 255], plain[label != 255])
    assert (plain[label == 255].astype(int) <= (frame[label == 255].astype(int) + 1) // 2).all()


def test_a_small_mask_is_enlarged_without_new_ids():
    frame = np.zeros((8, 8, 3), np.uint8)
    label = np.array([[3, 8], [0, 10]], np.uint8)
    result = overlay(frame, label, PALETTE, opacity=1.0)
    np.testing.assert_array_equal(result, PALETTE[np.kron(label, np.ones((4, 4), np.uint8))])


def test_it_fits_on_a_frames_path():
    frame, label = sample(384, 640)
    buffer = np.empty_like(frame)
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        overlay(frame, label, PALETTE, out=buffer)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.002


def test_what_does_not_fit_is_refused_with_its_value():
    frame, label = sample()
    with pytest.raises(DataError, match=r"\(8, 10\) uint8"):
        overlay(label, label, PALETTE)
    with pytest.raises(DataError, match="int64"):
        overlay(frame, label.astype(np.int64), PALETTE)
    with pytest.raises(DataError, match=r"opacity is 1\.5"):
        overlay(frame, label, PALETTE, opacity=1.5)
    with pytest.raises(DataError, match="1 images and 2 captions"):
        strip([frame], ["a", "b"])
    with pytest.raises(DataError, match="0 images"):
        strip([], [])


@pytest.mark.parametrize("width", [60, 200, 640, 1400])
def test_the_legend_has_every_colour_at_every_width(width):
    image = legend(CAMVID, width)
    assert image.shape[1:] == (width, 3)
    assert image.shape[0] % 22 == 0
    there = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
    for red, green, blue in CAMVID.colors:
        assert (blue, green, red) in there


def test_a_strip_holds_its_pictures_at_one_height():
    frame, label = sample(48, 64)
    other = np.full((96, 64, 3), 200, np.uint8)
    row = strip([frame, other], ["before", "after"], height=96)
    assert row.shape == (96 + 24, 128 + 4 + 64, 3)
    np.testing.assert_array_equal(row[24:, 132:], other)
    assert (row[:24, :128] > 150).any()  # the caption's letters
    picture = before_after(frame, label, label, CAMVID, height=48)
    assert picture.shape[1] == 3 * 64 + 2 * 4
    np.testing.assert_array_equal(picture[24:72, :64], frame)
