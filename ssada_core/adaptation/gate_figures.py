"""The figures of every model that a decision keeps, by road and class: what a change dossier shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from ssada_core.adaptation.measurements import Measurements
from ssada_core.evaluation.metrics import Matrix, iou, miou
from ssada_core.labels import LabelSpace

MODELS = ("champion", "challenger", "first")


class DomainFigures(BaseModel):
    """The models on the frames of one road.

    Attributes:
        frames: labelled frames measured.
        miou: percent, by model; None where nothing is labelled.
        iou: percent, by class and model; None where the class is not labelled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int
    miou: dict[str, float | None]
    iou: dict[str, dict[str, float | None]]


def domain_figures(measured: Measurements, label_space: LabelSpace) -> dict[str, DomainFigures]:
    """Figures by road; the target first, the source pack last as ``source pack``."""
    stacks: dict[str, Mapping[str, Matrix]] = {}
    for domain, mask in measured.masks().items():
        if mask.any():
            stacks[domain or "target"] = {name: getattr(measured, name).audit[mask] for name in MODELS}
    if len(measured.champion.source):
        stacks["source pack"] = {name: getattr(measured, name).source for name in MODELS}
    return {domain: _figures(models, label_space) for domain, models in stacks.items()}


def case_figures(measured: Measurements) -> dict[str, dict[str, float | None]]:
    """MIoU in percent by regression case and model."""
    return {
        case: {name: _plain(miou(getattr(measured, name).cases[number])) for name in MODELS}
        for number, case in enumerate(measured.case_ids)
    }


def _figures(models: Mapping[str, Matrix], label_space: LabelSpace) -> DomainFigures:
    totals = {name: stack.sum(axis=0) for name, stack in models.items()}
    values = {name: 100 * iou(total) for name, total in totals.items()}
    return DomainFigures(
        frames=len(next(iter(models.values()))),
        miou={name: _plain(miou(total)) for name, total in totals.items()},
        iou={
            word: {name: _plain(float(values[name][index])) for name in totals}
            for index, word in enumerate(label_space.classes)
        },
    )


def _plain(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
