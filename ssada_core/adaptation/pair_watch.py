"""A candidate beside another model on live frames: whether it still answers as it did before the gate.

Every figure is compared with how it lay on the gate's own frames of the same road, so that what is normal between
these two models raises no alarm. A strange road raises none by itself either: there the candidate must in addition
be less sure than the other model. Nor does a difference that is certain but too small to matter: the gate's frames
come from other streets than those ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssada_core.adaptation.calibration import Gamma, independent_in
from ssada_core.adaptation.expectations import Expectations, Expected, Sight
from ssada_core.labels import LabelSpace

COLLAPSE = 0.9
"""Share of all pixels that no class takes, unless the other model agrees."""
REAL_SHARE = 0.01
"""Share of the pixels from which a class must not vanish."""
_GONE = 0.05
"""Part of that share below which it has vanished."""
UNKNOWN_RATIO = 1.5
"""Without expectations: a candidate this many times as uncertain as the other model is taken back."""
MATERIAL_SHARE = 0.02
"""Share of the pixels by which answers must differ more than on the gate's frames before it matters."""
MATERIAL_RATIO = 1.1
"""A candidate must be this many times as uncertain as the other model before it matters."""
_SECOND = 1_000_000_000
_TESTS = 3


@dataclass(frozen=True)
class Seen:
    """One live frame that both models answered.

    Attributes:
        sight: their answers compared.
        stamp_ns: of the frame.
        domain: the road it was taken on.
        frame_id: its number in the pool; None where it was not stored.
    """

    sight: Sight
    stamp_ns: int
    domain: str
    frame_id: int | None


@dataclass(frozen=True)
class Alarm:
    """The candidate does not behave as expected.

    Attributes:
        words: what was seen, with figures.
        frame_ids: stored frames that show it, the worst first.
    """

    words: str
    frame_ids: tuple[int, ...]


class PairWatch:
    """Looks at a window of frames; the rate of false alarms holds for the whole watch."""

    def __init__(
        self, expectations: Expectations | None, label_space: LabelSpace, *, window: int, frames: int, rate: float
    ) -> None:
        """Begin a watch.

        Args:
            expectations: how the pair answered before; None where nobody measured it.
            label_space: names of the classes.
            window: frames looked at together.
            frames: frames that the watch will see.
            rate: probability of a false alarm in all of them.
        """
        domains = expectations.domains if expectations is not None else {}
        fits = label_space.num_classes  # figures of another label space say nothing
        self._expected = {name: each for name, each in domains.items() if len(each.shares) == fits}
        self._space = label_space
        self._seen: deque[Seen] = deque(maxlen=window)
        windows = max(1.0, frames / window)
        self._rate = rate / windows / _TESTS

    def observe(self, seen: Seen) -> Alarm | None:
        """Take the next frame; an alarm if the window it completes shows one."""
        if self._seen and (seen.stamp_ns < self._seen[-1].stamp_ns or seen.domain != self._seen[-1].domain):
            self._seen.clear()
        self._seen.append(seen)
        if len(self._seen) < (self._seen.maxlen or 1):
            return None
        expected = self._expected.get(seen.domain)
        sights = [each.sight for each in self._seen]
        words = self._uncertain(expected, sights) or self._collapsed(expected, sights)
        if not words and expected is not None:
            words = self._differs(expected, sights)
        return Alarm(words, self._worst()) if words else None

    def _uncertain(self, expected: Expected | None, sights: Sequence[Sight]) -> str:
        now = float(np.mean([sight.uncertainty for sight in sights]))
        before = float(np.mean([sight.uncertainty_before for sight in sights]))
        if expected is None:
            bound, base = UNKNOWN_RATIO * before, "its predecessor's times the ratio"
        else:
            bound, base = self._bound(expected.gamma("uncertainty")), "what the gate's frames let expect"
        if now <= max(bound, MATERIAL_RATIO * before):
            return ""
        return f"uncertainty {now:.3f} is above {bound:.3f}, {base}, and above {before:.3f} of the model before"

    def _collapsed(self, expected: Expected | None, sights: Sequence[Sight]) -> str:
        now = np.mean([sight.shares for sight in sights], axis=0)
        before = np.mean([sight.shares_before for sight in sights], axis=0)
        most = int(now.argmax())
        if now[most] > COLLAPSE >= before[most]:
            return f"'{self._space.classes[most]}' takes {100 * now[most]:.1f} % of all pixels"
        usual = np.asarray(expected.shares) if expected is not None else before
        gone = np.flatnonzero(
            (before >= REAL_SHARE) & (usual >= REAL_SHARE) & (now < _GONE * np.minimum(before, usual))
        )
        if gone.size:
            names = ", ".join(f"'{self._space.classes[index]}'" for index in gone)
            return f"{names} vanished, which the model before still finds"
        return ""

    def _differs(self, expected: Expected, sights: Sequence[Sight]) -> str:
        for name, what in (("disagreement", "share of pixels answered differently"), ("shift", "shift of the classes")):
            now = float(np.mean([getattr(sight, name) for sight in sights]))
            usual = expected.gamma(name)
            bound = max(self._bound(usual), usual.mean + MATERIAL_SHARE)
            if now > bound:
                return f"{what} against the model before is {now:.3f}, above {bound:.3f} of the gate's frames"
        return ""

    def _bound(self, gamma: Gamma) -> float:
        span = (self._seen[-1].stamp_ns - self._seen[0].stamp_ns) / _SECOND
        return gamma.upper(rate=self._rate, independent=independent_in(span, len(self._seen)))

    def _worst(self) -> tuple[int, ...]:
        ordered = sorted(self._seen, key=lambda each: -each.sight.disagreement)
        return tuple(each.frame_id for each in ordered if each.frame_id is not None)
