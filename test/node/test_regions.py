"""Regions of interest: what is cut out goes back where it was."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssada_ros.regions import WHOLE, Region

SHARES = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda pair: pair[0] != pair[1]).map(sorted)


@given(SHARES, SHARES, st.integers(1, 40), st.integers(1, 40))
def test_what_is_cut_out_goes_back_where_it_was(horizontal, vertical, height, width):
    region = Region(horizontal[0], vertical[0], horizontal[1], vertical[1])
    plane = np.arange(height * width, dtype=np.uint16).astype(np.uint8).reshape(height, width)
    part = region.crop(plane)
    assert part.size > 0
    back = region.place(part, (height, width), 255)
    rows, columns = region.pixels(height, width)
    np.testing.assert_array_equal(back[rows, columns], plane[rows, columns])
    back[rows, columns] = 255
    assert (back == 255).all()


def test_half_a_frame():
    assert Region(0.0, 0.5, 1.0, 1.0).pixels(480, 640) == (slice(240, 480), slice(0, 640))


def test_all_of_it_costs_nothing():
    plane = np.zeros((4, 6), np.uint8)
    assert WHOLE.crop(plane) is plane
    assert WHOLE.place(plane, (4, 6), 255) is plane
