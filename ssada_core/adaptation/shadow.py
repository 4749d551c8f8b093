"""The shadow drive: a challenger answers live frames beside the champion before anybody relies on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from ssada_core.adaptation.expectations import Expectations
from ssada_core.adaptation.pair_watch import Alarm, EveryNth, PairWatch, Seen
from ssada_core.labels import LabelSpace
from ssada_core.settings import Settings

_MINUTE_NS = 60_000_000_000
_PAUSE_NS = 10_000_000_000
"""Frames further apart than this were no drive in between."""


class ShadowSettings(Settings):
    """Exposure without which nothing is promoted. All zero: no shadow drive before a promotion."""

    frames: int = Field(
        0, ge=0, le=1_000_000, description="Live frames that a challenger must have answered, in whole windows."
    )
    minutes: float = Field(0.0, ge=0, le=100_000, description="Minutes of driving it must have been beside.")
    domains: int = Field(0, ge=0, le=100, description="Kinds of road it must have seen (drift tells them apart).")
    undecided: bool = Field(False, description="Undecided challengers drive along, too, and ask where they differ.")
    every: int = Field(
        3, ge=1, le=1000, description="Each n-th stored frame of a camera also goes through the challenger."
    )
    window: int = Field(12, ge=4, le=1000, description="Compared frames that are judged together.")
    false_alarm_rate: float = Field(0.01, gt=0, lt=0.5, description="Probability of a false refusal in a shadow drive.")
    ask: int = Field(2, ge=0, le=100, description="Frames of strongest disagreement that a human is asked to label.")

    @property
    def required(self) -> bool:
        """Whether a promotion waits for it."""
        return bool(self.frames or self.minutes or self.domains)

    def judged_frames(self) -> int:
        """Compared frames that the required exposure takes, about: one frame a second is stored."""
        return max(self.frames, math.ceil(60 * self.minutes / self.every), self.window * max(1, self.domains))


@dataclass
class Exposure:
    """What a challenger has seen."""

    frames: int = 0
    driven_ns: int = 0
    domains: set[str] = field(default_factory=set)
    last_ns: int | None = None

    def add(self, seen: Seen) -> None:
        """Count a frame."""
        gap = seen.stamp_ns - self.last_ns if self.last_ns is not None else 0
        self.driven_ns += gap if 0 <= gap <= _PAUSE_NS else 0
        if not -_PAUSE_NS < gap < 0:  # a late frame, another camera's say, adds no time, and takes none back
            self.last_ns = seen.stamp_ns
        self.frames += 1
        if seen.domain:
            self.domains.add(seen.domain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        minutes = self.driven_ns / _MINUTE_NS
        return {"frames": self.frames, "minutes": round(minutes, 3), "domains": sorted(self.domains)}


class Shadow:
    """One challenger beside the champion."""

    def __init__(
        self,
        version: str,
        champion: str,
        expectations: Expectations | None,
        label_space: LabelSpace,
        settings: ShadowSettings,
    ) -> None:
        self._settings = settings
        self._pair = PairWatch(
            expectations,
            label_space,
            window=settings.window,
            frames=settings.judged_frames(),
            rate=settings.false_alarm_rate,
            open_ended=True,
        )
        self._turns = EveryNth(settings.every)
        self._differing: list[tuple[float, int]] = []
        self.version, self.champion = version, champion
        self.exposure = Exposure()

    def due(self, camera: str) -> bool:
        """Whether the next stored frame of a camera should go through the challenger, too."""
        return self._turns.due(camera)

    def observe(self, seen: Seen) -> Alarm | None:
        """Take a compared frame; an alarm if the challenger answers otherwise than before the gate."""
        self.exposure.add(seen)
        if seen.frame_id is not None:
            self._differing.append((seen.sight.disagreement, seen.frame_id))
        return self._pair.observe(seen)

    def take_differing(self) -> list[int]:
        """Frames of strongest disagreement since the last call, once a window of them was seen; else none."""
        if len(self._differing) < self._settings.window:
            return []
        worst = sorted(self._differing, reverse=True)[: self._settings.ask]
        self._differing = []
        return [frame_id for _, frame_id in worst]

    def missing(self) -> str:
        """What of the required exposure is missing, in words; empty when there is enough. One window is the least."""
        asked, had, judged = self._settings, self.exposure, self._pair.judged
        frames = max(asked.frames, asked.window)
        minutes = had.driven_ns / _MINUTE_NS
        parts = [
            f"{frames - judged} frames" if judged < frames else "",
            f"{asked.minutes - minutes:.1f} minutes" if minutes < asked.minutes else "",
            f"{asked.domains - len(had.domains)} kinds of road" if len(had.domains) < asked.domains else "",
        ]
        return ", ".join(filter(None, parts))
