"""What the attempts of one interrupted round share: the time they took, and what must not change between them."""

from __future__ import annotations

import time
from typing import Any

from ssada_core.learning.settings import TrainingSettings

FREE = frozenset({"threads", "prefetch", "cache_megabytes", "checkpoint_every", "trained_share"})
"""Settings that may change between attempts: they do not change the iterations."""


class Clock:
    """Seconds over all attempts, and how many are left at this attempt's rate."""

    def __init__(self, before: float, start: int, total: int) -> None:
        self._before, self._start, self._total = before, start, total
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Seconds in training, earlier attempts included."""
        return self._before + time.monotonic() - self._began

    def eta(self, done: int) -> float:
        """Seconds that are left after ``done`` iterations."""
        return (time.monotonic() - self._began) / max(done - self._start, 1) * (self._total - done)


def same_round(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two identities are of one round; a setting that an older version did not have yet has its default."""
    return {**old, "settings": _complete(old["settings"])} == {**new, "settings": _complete(new["settings"])}


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two identities, in words."""
    flat_old, flat_new = (
        {**_complete(side["settings"]), **side["frames"], "classes": side["classes"]} for side in (old, new)
    )
    names = [*flat_new, *(key for key in flat_old if key not in flat_new)]
    changed = [key for key in names if flat_old.get(key) != flat_new.get(key)]
    return ", ".join(f"{key} {flat_old.get(key)} is now {flat_new.get(key)}" for key in changed) or "other keys"


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    return {**TrainingSettings().model_dump(mode="json", exclude=set(FREE)), **settings}
