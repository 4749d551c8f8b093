"""A candidate beside another model on live frames: whether it still answers as it did before the gate.

Every figure is compared with how it lay on the gate's own frames of the same road, so that what is normal between
these two models raises no alarm. A strange road raises none by itself either: there the candidate must in addition
be less sure than the other model. Nor does a difference that is certain but too small to matter: the gate's frames
come from other streets than those ahead.

Windows are of one camera and one road, and share no frame, so that their number is the number of chances to err.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

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
LATE_NS = 60 * _SECOND
"""A frame at most this much older than its camera's newest came late; an older one is of a clock that was set back."""
_TESTS = 3


@dataclass(frozen=True)
class Seen:
    """One live frame that both models answered.

    Attributes:
        sight: their answers compared.
        stamp_ns: of the frame.
        domain: the road it was taken on.
        frame_id: its number in the pool; None where it was not stored.
        camera: the camera's name.
    """

    sight: Sight
    stamp_ns: int
    domain: str
    frame_id: int | None
    camera: str = ""


@dataclass(frozen=True)
class Alarm:
    """The candidate does not behave as expected.

    Attributes:
        words: what was seen, with figures.
        frame_ids: stored frames that show it, the worst first.
    """

    words: str
    frame_ids: tuple[int, ...]


class EveryNth:
    """Says of each camera's frames which one in ``every`` is to be compared."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._turns: dict[str, int] = {}

    def due(self, camera: str) -> bool:
        """Whether it is this frame's turn."""
        self._turns[camera] = self._turns.get(camera, 0) + 1
        return self._turns[camera] % self._every == 0


@dataclass
class _Window:
    """The frames of one camera that were not judged yet, and the newest stamp it ever had."""

    seen: list[Seen] = field(default_factory=list)
    newest_ns: int | None = None

    def take(self, seen: Seen) -> bool:
        """Whether the frame is taken; one that comes late is not."""
        newest = self.newest_ns if self.newest_ns is not None else seen.stamp_ns
        if 0 < newest - seen.stamp_ns < LATE_NS:
            return False
        if seen.stamp_ns < newest or (self.seen and seen.domain != self.seen[-1].domain):
            self.seen.clear()
        self.seen.append(seen)
        self.newest_ns = seen.stamp_ns
        return True


class PairWatch:
    """Looks at windows of frames; the rate of false alarms holds for the whole watch.

    Attributes:
        judged: frames of the windows that were judged.
    """

    def __init__(
        self,
        expectations: Expectations | None,
        label_space: LabelSpace,
        *,
        window: int,
        frames: int,
        rate: float,
        open_ended: bool = False,
    ) -> None:
        """Begin a watch.

        Args:
            expectations: how the pair answered before; None where nobody measured it.
            label_space: names of the classes.
            window: frames looked at together.
            frames: frames that the watch will judge.
            rate: probability of a false alarm in all of them.
            open_ended: ``frames`` is a guess. Half of the rate is for them, a quarter for twice as many after them,
                and so on: however long the watch lasts, the rate holds.
        """
        domains = expectations.domains if expectations is not None else {}
        fits = label_space.num_classes  # figures of another label space say nothing
        self._expected = {name: each for name, each in domains.items() if len(each.shares) == fits}
        self._space = label_space
        self._size = window
        self._windows: dict[str, _Window] = {}
        self._planned = max(1, math.ceil(frames / window))
        self._rate, self._open_ended = rate, open_ended
        self.judged = 0

    def observe(self, seen: Seen) -> Alarm | None:
        """Take the next frame; an alarm if the window it completes shows one."""
        window = self._windows.setdefault(seen.camera, _Window())
        if not window.take(seen) or len(window.seen) < self._size:
            return None
        whole, window.seen = window.seen, []
        words = self._judge(whole, self._expected.get(seen.domain))
        self.judged += len(whole)
        return Alarm(words, _worst(whole)) if words else None

    def _judge(self, seen: Sequence[Seen], expected: Expected | None) -> str:
        sights = [each.sight for each in seen]
        span_s = (seen[-1].stamp_ns - seen[0].stamp_ns) / _SECOND
        independent = independent_in(span_s, len(seen))
        words = self._uncertain(expected, sights, independent) or self._collapsed(expected, sights)
        return words if words or expected is None else self._differs(expected, sights, independent)

    def _window_rate(self) -> float:
        """Probability of a false alarm in one test of the next window."""
        if not self._open_ended:
            return self._rate / self._planned / _TESTS
        block = int(math.log2(self.judged // self._size / self._planned + 1))  # each is twice as long as the one before
        return math.ldexp(self._rate, -2 * block - 1) / self._planned / _TESTS

    def _uncertain(self, expected: Expected | None, sights: Sequence[Sight], independent: float) -> str:
        now = float(np.mean([sight.uncertainty for sight in sights]))
        before = float(np.mean([sight.uncertainty_before for sight in sights]))
        if expected is None:
            bound, base = UNKNOWN_RATIO * before, "its predecessor's times the ratio"
        else:
            bound, base = self._bound(expected.gamma("uncertainty"), independent), "what the gate's frames let expect"
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

    def _differs(self, expected: Expected, sights: Sequence[Sight], independent: float) -> str:
        for name, what in (("disagreement", "share of pixels answered differently"), ("shift", "shift of the classes")):
            now = float(np.mean([getattr(sight, name) for sight in sights]))
            usual = expected.gamma(name)
            bound = max(self._bound(usual, independent), usual.mean + MATERIAL_SHARE)
            if now > bound:
                return f"{what} against the model before is {now:.3f}, above {bound:.3f} of the gate's frames"
        return ""

    def _bound(self, gamma: Gamma, independent: float) -> float:
        return gamma.upper(rate=self._window_rate(), independent=independent, sampled=True)


def _worst(seen: Sequence[Seen]) -> tuple[int, ...]:
    ordered = sorted(seen, key=lambda each: -each.sight.disagreement)
    return tuple(each.frame_id for each in ordered if each.frame_id is not None)
