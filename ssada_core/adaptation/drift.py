"""Whether the road is still one that the model was made for, and which.

A pure machine over described frames (:func:`ssada_core.adaptation.components.describe`): the mean score of a window
of frames is compared with each known road's own bound. Score 1 is the bound; above it the road is strange. The bound
is set by the false-alarm rate that is asked for, per frame, from scores of frames that were left out (cross-fitting).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from ssada_core.adaptation.calibration import independent_in
from ssada_core.adaptation.components import MIN_FRAMES, Component, Vectors
from ssada_core.settings import Settings

_SECOND = 1_000_000_000
_MOST = 2.0
"""A single frame counts no more than this in a window's mean."""


class DriftSettings(Settings):
    """When the road counts as changed."""

    enabled: bool = Field(True, description="Compare the frames with those that the model was made from.")
    start_rounds: bool = Field(
        True,
        description="Ask about a new road alone, within the budget, and train once all that was asked is answered, "
        "half a batch at the least.",
    )
    camera: str = Field("", description="Name of the camera that is compared; empty: the first that sends a frame.")
    window: int = Field(
        10, ge=3, le=1000, description="Stored frames whose mean score is compared; a change is found about as late."
    )
    false_alarm_rate: float = Field(
        0.0005, gt=0, lt=0.5, description="False alarms per frame on a road that has not changed, at most."
    )
    calibration_frames: int = Field(
        60,
        ge=MIN_FRAMES,
        le=500,
        description="Frames at the start that describe the road where no source pack does.",
    )
    recurring: Literal["off", "offer"] = Field(
        "off",
        description="offer: on a known road, offer the registered version that judged best there; confirm takes it.",
    )


@dataclass(frozen=True)
class Frame:
    """A described frame on its way through the tracker."""

    vector: Vectors
    stamp_ns: int


@dataclass(frozen=True)
class Change:
    """The road is another one since ``since_ns``.

    Attributes:
        domain: name of the road it is now; empty where it is none of the known ones.
        score: of the window against the best known road; above 1 where it is none of them.
        since_ns: stamp of its first frame, as far as can be told.
        before: name of the road it was.
    """

    domain: str
    score: float
    since_ns: int
    before: str


class DriftTracker:
    """Follows one stream of frames with one model."""

    def __init__(self, known: Mapping[str, Component], settings: DriftSettings, *, domain: str = "") -> None:
        """Start on a road.

        Args:
            known: the roads the model was made for.
            settings: window and rate.
            domain: where the stream was before; empty at the very start.
        """
        self._settings = settings
        self._known = dict(known)
        self._strange: dict[str, Component] = {}
        self._window: deque[Frame] = deque(maxlen=settings.window)
        self._fresh: list[Frame] = []
        self.domain = domain
        self.score = 0.0
        """Of the newest full window against the best of the roads the model was made for; 1 is the bound."""

    @property
    def drifted(self) -> bool:
        """Whether the stream is on a road that the model was not made for."""
        return self.domain not in self._known and self.score > 1.0

    @property
    def dimensions(self) -> int:
        """Length of the vectors that the roads are described by."""
        return min((component.centre.size for component in self._known.values()), default=0)

    def observe(self, frame: Frame) -> Change | None:
        """Take the next frame; a change if it is the one that shows it."""
        if not self._known:
            return None
        if self._window and frame.stamp_ns < self._window[-1].stamp_ns:
            self._window.clear()  # a clock that jumped back, or a recording that starts again
        self._window.append(frame)
        self._learn(frame)
        return self._judge() if len(self._window) == self._settings.window else None

    def _judge(self) -> Change | None:
        """Which road the full window shows."""
        frames = self._frame_scores()
        scores = {name: float(values.mean()) for name, values in frames.items()}
        self.score = min(scores[name] for name in self._known)
        best = min(scores, key=lambda name: scores[name])
        if scores[best] <= 1.0:
            # Where two roads fit, it is still the one it was.
            stays = best == self.domain or scores.get(self.domain, 2.0) <= 1.0
            return None if stays else self._change(best, scores[best])
        undescribed = bool(self.domain) and self.domain not in scores
        on_its_way = float(np.min(list(frames.values()), axis=0).mean()) <= 1.0  # from one known road to another
        return None if undescribed or on_its_way else self._change("", scores[best])

    def name(self, domain: str) -> None:
        """Call the strange road that was just found ``domain``; it is described by its next frames."""
        self.domain = domain
        self._fresh = []

    def _change(self, domain: str, score: float) -> Change:
        change = Change(domain, score, self._since(domain), self.domain)
        self.domain = domain
        self._fresh = []
        self._window.clear()
        return change

    def _learn(self, frame: Frame) -> None:
        """Describe a strange road by its own frames, so that the next change is seen from there, too."""
        if not self.domain or self.domain in self._known or self.domain in self._strange:
            return
        self._fresh.append(frame)
        if len(self._fresh) >= self._settings.calibration_frames:
            self._strange[self.domain] = Component.fit(np.stack([each.vector for each in self._fresh]))
            self._fresh = []

    def _frame_scores(self) -> dict[str, Vectors]:
        """Each road's scores of the window's frames, its bound being 1."""
        vectors = np.stack([frame.vector for frame in self._window])
        scores = {}
        for name, component in {**self._known, **self._strange}.items():
            # Cut off: one spoilt frame is no other road.
            scores[name] = np.minimum(component.score(vectors) / self._bound(component), _MOST)
        return scores

    def _bound(self, component: Component) -> float:
        span = (self._window[-1].stamp_ns - self._window[0].stamp_ns) / _SECOND
        independent = independent_in(span, len(self._window))
        return component.scores.upper(rate=self._settings.false_alarm_rate, independent=independent)

    def _since(self, domain: str) -> int:
        """The first frame of the window's end that does not look like the road before."""
        known = {**self._known, **self._strange}
        before = known.get(self.domain)
        if before is None:
            return self._window[0].stamp_ns
        limit = before.scores.upper(rate=0.05)
        since = self._window[-1].stamp_ns
        after = known.get(domain)
        vectors = np.stack([frame.vector for frame in self._window])
        old = before.score(vectors)
        new = after.score(vectors) if after is not None else np.zeros(len(vectors))
        for frame, past, present in zip(reversed(self._window), old[::-1], new[::-1], strict=True):
            if past <= limit and (after is None or past <= present):
                break
            since = frame.stamp_ns
        return since
