"""The roads that a round's data shows: what its challenger is made for, and what the watch compares with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ssada_core.adaptation.components import MIN_FRAMES, Component, Reference, describe
from ssada_core.adaptation.domains import SOURCE
from ssada_core.adaptation.round_data import RoundData
from ssada_core.data.samples import Samples, Subset, spread
from ssada_core.errors import ModelError
from ssada_core.inference.engine import Engine

REFERENCE_FILE = "reference.npz"
"""In a version's folder: the roads it was made for (:class:`~ssada_core.adaptation.components.Reference`)."""
EXPECTED_FRAMES = 48
"""Frames of each road on which the pair of models is compared beforehand, at most."""


def roads(data: RoundData) -> dict[str, list[Samples]]:
    """The round's frames by road; the source pack is the road ``source``."""
    found: dict[str, list[Samples]] = {SOURCE: [data.source]} if data.source is not None else {}
    for samples, domains in ((data.unlabelled, data.unlabelled_domains), (data.labelled, data.labelled_domains)):
        for domain, indices in _by_domain(domains).items():
            found.setdefault(domain, []).append(Subset(samples, indices))
    return found


def describe_roads(engine: Engine, found: Mapping[str, Sequence[Samples]], frames: int) -> Reference:
    """Describe every road with enough frames by what the engine answers on at most ``frames`` of them.

    Frames without a road are described by nobody: they may be of any, and nothing is to be known again by them.

    Raises:
        DataError: if a frame cannot be read.
        EngineError: if the model cannot be run.
    """
    components = {}
    for domain, parts in found.items():
        if not domain:
            continue
        answers = (engine.infer([image], features=True)[0] for image in _images(parts, frames))
        try:
            vectors = [describe(answer) for answer in answers]
        except ModelError:  # not finite: the gate says so, and refuses it
            continue
        if len(vectors) >= MIN_FRAMES:
            components[domain] = Component.fit(np.stack(vectors), apart=domain == SOURCE)
    return Reference(components)


def expected_frames(data: RoundData) -> dict[str, Iterator[NDArray[np.uint8]]]:
    """Frames (uint8 H×W×3 BGR) by road, read as they are asked for, the audit frames among them."""
    found: dict[str, list[Samples]] = {}
    for samples, domains in ((data.audit, data.audit_domains), (data.unlabelled, data.unlabelled_domains)):
        for domain, indices in _by_domain(domains).items():
            found.setdefault(domain, []).append(Subset(samples, indices))
    return {domain: _images(parts, EXPECTED_FRAMES) for domain, parts in found.items()}


def _by_domain(domains: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, domain in enumerate(domains):
        found.setdefault(domain, []).append(index)
    return found


def _images(parts: Sequence[Samples], count: int) -> Iterator[NDArray[np.uint8]]:
    """About ``count`` frames, spread over all parts by their length."""
    total = sum(len(part) for part in parts)
    for part in parts:
        shown = spread(part, max(1, round(count * len(part) / total))) if len(part) else part
        yield from (shown.image(index) for index in range(len(shown)))
