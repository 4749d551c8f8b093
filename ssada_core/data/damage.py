"""What was broken in a recording, counted: nothing is skipped in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class DamageKind:
    """One kind of damage: how often, and the words of its first case."""

    kind: str
    count: int
    example: str


class Damage:
    """Counts damage by kind, in the order in which the kinds were first seen."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def note(self, kind: str, example: str = "", *, count: int = 1) -> None:
        """Count one case (or ``count``); the first one's words are kept, on one line."""
        self._counts[kind] = self._counts.get(kind, 0) + count
        self._examples.setdefault(kind, " ".join(example.split())[:300])

    def count(self, kind: str) -> int:
        """How often a kind was noted."""
        return self._counts.get(kind, 0)

    def __iter__(self) -> Iterator[DamageKind]:
        for kind, count in self._counts.items():
            yield DamageKind(kind, count, self._examples[kind])

    def __bool__(self) -> bool:
        return bool(self._counts)

    def words(self) -> str:
        """All of it in one line, such as ``3 frames that cannot be decoded (…)``; empty if nothing is broken."""
        return "; ".join(f"{item.count}x {item.kind} ({item.example})" for item in self)
