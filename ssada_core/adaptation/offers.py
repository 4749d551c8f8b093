"""A road that came back, and the registered version that judged best on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssada_core.adaptation.domains import SOURCE
from ssada_core.store.registry import ModelRegistry

LEAST_GAIN = 1.0
"""Points of mIoU by which a version must have been better on the road than the one in use."""


@dataclass(frozen=True)
class Offer:
    """Take ``version`` on ``domain``; mIoU in percent on the road's audit frames, as the gate measured it."""

    domain: str
    version: str
    miou: float
    current: float

    def words(self) -> str:
        """The offer as a sentence."""
        return (
            f"the road is '{self.domain}' again: {self.version} had {self.miou:.1f} % mIoU there, the version in use "
            f"{self.current:.1f} %; confirm takes it"
        )


def fitting(registry: ModelRegistry, domain: str, current: str) -> Offer | None:
    """The promoted version that was clearly the best on a road; None if it is in use, or nobody knows.

    Raises:
        StoreError: if the registry cannot be read.
        ModelError: if a manifest is damaged.
    """
    promoted = {entry["version"] for entry in registry.history() if entry.get("action") == "promote"}
    figures: dict[str, float] = {}
    for version in registry.versions():
        decision = registry.manifest(version).decision or {}
        own = _miou(decision, domain, "challenger")
        if own is not None:
            figures[version] = own
        first = _miou(decision, domain, "first")
        if first is not None:
            figures.setdefault(str(registry.first()), first)
    candidates = {version: value for version, value in figures.items() if version in promoted}
    if current not in figures or not candidates:
        return None
    best = max(candidates, key=lambda version: candidates[version])
    if candidates[best] - figures[current] < LEAST_GAIN:
        return None
    return Offer(domain, best, candidates[best], figures[current])


def _miou(decision: dict[str, Any], domain: str, model: str) -> float | None:
    domains = decision.get("domains") or {}
    found = domains.get(domain) or (domains.get("source pack") if domain == SOURCE else None) or {}
    value = (found.get("miou") or {}).get(model)
    return None if value is None else float(value)
