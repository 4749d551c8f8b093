"""The best and the worst moments of a drive: few frames, kept while it is played."""

from __future__ import annotations

from dataclasses import dataclass

from ssada_core.evaluation.metrics import confusion, miou
from ssada_core.replay.driver import Served
from ssada_core.replay.tally import finite


@dataclass(frozen=True)
class Moment:
    """A frame worth looking at.

    Attributes:
        score: what it was chosen by, higher is better.
        stretch: the stretch of the drive it lies in; of each only one is kept.
        served: the frame with its answers.
        values: each answer's own mIoU in percent, None without ground truth.
    """

    score: float
    stretch: int
    served: Served
    values: tuple[float | None, ...]


class Moments:
    """Keeps the ``count`` best and worst frames of different stretches.

    A frame's score is what the last series gains over the first in its own mIoU; with one series its mIoU, and without
    ground truth how sure the model is.
    """

    def __init__(self, count: int, num_classes: int) -> None:
        self._count = count
        self._classes = num_classes
        self._stretches: set[int] = set()
        self._best: list[Moment] = []
        self._worst: list[Moment] = []

    def see(self, served: Served, stretch: int) -> None:
        """Look at a frame and keep it if it is one of them."""
        moment = self._judge(served, stretch)
        if moment is not None and self._count:
            self._stretches.add(stretch)
            self._best = _kept(self._best, moment, self._count, sign=1.0)
            self._worst = _kept(self._worst, moment, self._count, sign=-1.0)

    def best(self) -> list[Moment]:
        """Best first; at most of every other stretch, so that a short drive shows none twice."""
        return self._best[: (len(self._stretches) + 1) // 2]

    def worst(self) -> list[Moment]:
        """Worst first; likewise, and none of the best."""
        taken = {moment.stretch for moment in self.best()}
        return [moment for moment in self._worst if moment.stretch not in taken][: len(self._stretches) // 2]

    def _judge(self, served: Served, stretch: int) -> Moment | None:
        values = tuple(self._own(served, index) for index in range(len(served.answers)))
        first, last = values[0], values[-1]
        if len(values) > 1 and served.answers[0].version == served.answers[-1].version:
            return None  # the same model twice: before the first swap
        if first is not None and last is not None:
            return Moment(last - first if len(values) > 1 else last, stretch, served, values)
        uncertainty = served.answers[-1].uncertainty
        if uncertainty is None:
            return None
        before = served.answers[0].uncertainty if len(values) > 1 else 0.0
        return Moment((before or 0.0) - uncertainty, stretch, served, values)

    def _own(self, served: Served, index: int) -> float | None:
        label = served.frame.label
        if label is None:
            return None
        return finite(miou(confusion(served.answers[index].label, label, self._classes)))


def _kept(kept: list[Moment], moment: Moment, count: int, *, sign: float) -> list[Moment]:
    same = [other for other in kept if other.stretch == moment.stretch]
    if same and sign * same[0].score >= sign * moment.score:
        return kept
    others = [other for other in kept if other.stretch != moment.stretch]
    ordered = sorted([*others, moment], key=lambda other: (-sign * other.score, other.served.frame.stamp_ns))
    return ordered[:count]
