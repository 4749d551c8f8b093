"""Times that can be compared: the candidates take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Times:
    """Seconds of one candidate, one value per round.

    Attributes:
        wall: as a clock on the wall shows them.
        cpu: the processor's, over all threads of this process; they hardly feel other processes.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def wall_median(self) -> float:
        """The median round by the clock."""
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        """The median round by the processor's time."""
        return statistics.median(self.cpu)


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    on_round: Callable[[int, int], None] | None = None,
) -> dict[str, Times]:
    """Run each candidate once per round, in turn, and note what each run takes.

    Args:
        candidates: what to run, by name.
        rounds: rounds that count.
        warm_up: rounds before them that do not.
        on_round: told (done, total) after each round that counts.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for number in range(-warm_up, rounds):
        for name, run in candidates.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if number >= 0:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        if number >= 0 and on_round is not None:
            on_round(number + 1, rounds)
    return {name: Times(tuple(w for w, _ in pairs), tuple(c for _, c in pairs)) for name, pairs in taken.items()}


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch on ``count`` CPU threads, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
