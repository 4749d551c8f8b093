"""How many labels are revealed when (METHOD §5, the authors' schedule)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from ssada_core.errors import ConfigError
from ssada_core.learning.acquisition import budget_count
from ssada_core.learning.settings import BudgetSettings


@dataclass(frozen=True)
class Part:
    """A part of the budget: ``count`` labels, revealed before ``iteration`` (from 0)."""

    iteration: int
    count: int


def plan(settings: BudgetSettings, *, frames: int, iterations: int) -> tuple[Part, ...]:
    """The parts of a budget: some at the start, then equal parts of the rest; they always sum to the budget.

    Shares are rounded half up. Parts that fall on the same iteration are one, empty ones are left out.

    Args:
        settings: budget and schedule.
        frames: target frames there are.
        iterations: of the training.

    Raises:
        ConfigError: if the budget is above what there is, or rounds to nothing.
    """
    budget = _frames(settings.budget, frames)
    if budget > frames:
        raise ConfigError(f"data.budget {settings.budget:g} of {frames} target frames: give at most what there is")
    if budget == 0:
        raise ConfigError(f"data.budget {settings.budget:g} of {frames} target frames is no frame: raise it")
    first = budget if not settings.schedule else min(budget, _frames(settings.initial_share, frames))
    counts = [first, *_equal_parts(budget - first, len(settings.schedule))]
    starts = [0, *(min(budget_count(share, iterations), iterations - 1) for share in settings.schedule)]
    total: dict[int, int] = {}
    for start, count in zip(starts, counts, strict=True):
        total[start] = total.get(start, 0) + count
    return tuple(Part(start, count) for start, count in sorted(total.items()) if count)


def _frames(value: float, total: int) -> int:
    """A share or a number of ``total`` frames, as frames; a share above 0 is at least one frame."""
    if value > 1:
        return int(value)
    return max(1, budget_count(value, total)) if value else 0


def _equal_parts(total: int, parts: int) -> list[int]:
    """Whole parts of ``total`` that differ by one at most."""
    ends = [_half_up(Fraction(total * index, parts)) for index in range(parts + 1)] if parts else []
    return [after - before for before, after in pairwise(ends)]


def _half_up(value: Fraction) -> int:
    return int((2 * value + 1) // 2)
