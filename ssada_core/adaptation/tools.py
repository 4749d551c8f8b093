"""What the adaptation's work is done with, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ssada_core.adaptation.asking import Questions
from ssada_core.adaptation.companions import Companions
from ssada_core.adaptation.conductor import Conductor
from ssada_core.adaptation.following import RoadFollower
from ssada_core.adaptation.scorer import PoolScorer
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.annotation.submit import SubmitResult
from ssada_core.store.pool import FramePool, FrameRecord
from ssada_core.store.registry import ModelRegistry


class Listener(Protocol):
    """Who is told what happened; called by the thread that calls :meth:`Adapter.tick` or a service."""

    def on_queries(self, records: Sequence[FrameRecord]) -> None:
        """These frames wait for a human."""

    def on_label(self, result: SubmitResult) -> None:
        """A label was accepted, held or refused."""

    def on_promoted(self, version: str, reason: str) -> None:
        """This version is the current one now."""


@dataclass(frozen=True)
class Tools:
    """What the work is done with."""

    settings: AdaptationSettings
    pool: FramePool
    registry: ModelRegistry
    scorer: PoolScorer
    questions: Questions
    conductor: Conductor
    follower: RoadFollower
    companions: Companions
    listener: Listener
    log: Callable[[str], None]
