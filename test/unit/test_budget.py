"""The authors' schedule in numbers: 1 % at the start, then equal parts at 10, 20 and 30 % of the training."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssada_core.errors import ConfigError
from ssada_core.learning.budget import Part, plan
from ssada_core.learning.settings import BudgetSettings
from ssada_core.settings import parse_settings


def parts(frames: int, iterations: int, **settings: object) -> list[tuple[int, int]]:
    found = plan(BudgetSettings(**settings), frames=frames, iterations=iterations)
    assert all(isinstance(part, Part) for part in found)
    return [(part.iteration, part.count) for part in found]


@pytest.mark.parametrize(
    ("frames", "settings", "expected"),
    [
        (1000, {"budget": 0.25}, [(0, 10), (100, 80), (200, 80), (300, 80)]),
        (62, {"budget": 0.25}, [(0, 1), (100, 5), (200, 5), (300, 5)]),  # 15.5 labels are 16
        (100, {"budget": 0.125}, [(0, 1), (100, 4), (200, 4), (300, 4)]),  # 12.5 are 13
        (100, {"budget": 12}, [(0, 1), (100, 4), (200, 3), (300, 4)]),  # 11 in parts that differ by one
        (40, {"budget": 1.0}, [(0, 1), (100, 13), (200, 13), (300, 13)]),  # 0.4 frames are one
        (100, {"budget": 0.25, "initial_share": 0.25}, [(0, 25)]),
        (100, {"budget": 0.25, "initial_share": 0.9}, [(0, 25)]),
        (100, {"budget": 0.25, "schedule": ()}, [(0, 25)]),
        (100, {"budget": 10, "initial_share": 0, "schedule": (0.5,)}, [(500, 10)]),
        (100, {"budget": 10, "initial_share": 4}, [(0, 4), (100, 2), (200, 2), (300, 2)]),
    ],
)
def test_the_parts_of_a_budget(frames, settings, expected):
    assert parts(frames, 1000, **settings) == expected


def test_parts_that_fall_on_one_iteration_are_one():
    assert parts(100, 3, budget=0.31) == [(0, 11), (1, 20)]  # 0.3 is 0, 0.6 and 0.9 are 1


@given(st.integers(1, 300), st.integers(1, 400), st.floats(0.01, 1), st.floats(0, 1))
def test_the_parts_sum_to_the_budget_and_come_in_time(frames, iterations, share, initial):
    settings = BudgetSettings(budget=share, initial_share=initial)
    found = plan(settings, frames=frames, iterations=iterations)
    assert sum(part.count for part in found) == max(1, int(share * frames + 0.5)) or frames * share % 1 == 0.5
    assert all(0 <= part.iteration < iterations for part in found)
    assert [part.iteration for part in found] == sorted({part.iteration for part in found})


def test_a_budget_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="11 of 10 target frames: give at most"):
        parts(10, 100, budget=11)
    for wrong in ({"budget": 2.5}, {"schedule": (0.2, 0.1)}, {"schedule": (0.0,)}, {"schedule": (1.0,)}):
        with pytest.raises(ConfigError, match=r"whole number|rising shares"):
            parse_settings(BudgetSettings, wrong, source="test")
