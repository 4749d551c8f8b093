"""How a challenger answered beside the champion while the gate had it: what its later answers are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssada_core.adaptation.calibration import Gamma
from ssada_core.data.resized import resize_label
from ssada_core.errors import WorkerError
from ssada_core.inference.engine import Engine, Prediction
from ssada_core.store.files import read_json, write_json

EXPECTATIONS_FILE = "expectations.json"


@dataclass(frozen=True)
class Sight:
    """Two models on one frame: the candidate, and the one it is compared with.

    Attributes:
        uncertainty: the candidate's, in [0, 1].
        uncertainty_before: the other's.
        shares: float64 ``[C]``, the candidate's pixels per class, of all.
        shares_before: the other's.
        disagreement: share of the pixels that they answer differently.
    """

    uncertainty: float
    uncertainty_before: float
    shares: NDArray[np.float64]
    shares_before: NDArray[np.float64]
    disagreement: float

    @property
    def shift(self) -> float:
        """Total variation between the two histograms, in [0, 1]."""
        return 0.5 * float(np.abs(self.shares - self.shares_before).sum())


def compare(candidate: Prediction, before: Prediction, num_classes: int) -> Sight:
    """What two predictions of one frame say of each other; where their sizes differ, at the candidate's."""
    shares, shares_before = (
        np.bincount(each.label.ravel(), minlength=num_classes)[:num_classes] / each.label.size
        for each in (candidate, before)
    )
    size = candidate.label.shape[0], candidate.label.shape[1]
    return Sight(
        uncertainty=candidate.uncertainty,
        uncertainty_before=before.uncertainty,
        shares=shares,
        shares_before=shares_before,
        disagreement=float(np.mean(candidate.label != resize_label(before.label, size))),
    )


class Expected(BaseModel):
    """The figures of the frames of one domain, one per frame."""

    model_config = ConfigDict(extra="forbid")

    uncertainty: list[float] = Field(min_length=1)
    disagreement: list[float] = Field(min_length=1)
    shift: list[float] = Field(min_length=1)
    shares: list[float] = Field(description="The candidate's mean share of the pixels, per class.")

    @classmethod
    def of(cls, sights: Sequence[Sight]) -> Expected:
        """Gather at least one frame's figures."""
        return cls(
            uncertainty=[sight.uncertainty for sight in sights],
            disagreement=[sight.disagreement for sight in sights],
            shift=[sight.shift for sight in sights],
            shares=np.mean([sight.shares for sight in sights], axis=0).tolist(),
        )

    def gamma(self, name: str) -> Gamma:
        """The distribution of ``uncertainty``, ``disagreement`` or ``shift``."""
        return Gamma.of(np.asarray(getattr(self, name), np.float64))


class Expectations(BaseModel):
    """``expectations.json`` of a round (schema: ``docs/schemas/expectations.schema.json``)."""

    model_config = ConfigDict(extra="forbid")

    candidate: str
    before: str
    domains: dict[str, Expected] = Field(description="By the name of the road; frames of no named road under ''.")

    def named(self, road: str) -> Expectations:
        """The same, where the frames of no named road are of this one, unless it has figures of its own."""
        if not road or road in self.domains or "" not in self.domains:
            return self
        return self.model_copy(update={"domains": {name or road: each for name, each in self.domains.items()}})

    def save(self, run_dir: Path) -> None:
        """Write it beside the round.

        Raises:
            StoreError: if the disk refuses.
        """
        write_json(run_dir / EXPECTATIONS_FILE, self.model_dump(mode="json"))

    @classmethod
    def load(cls, run_dir: Path) -> Expectations | None:
        """Read what :meth:`save` wrote; None where a round of an earlier release left none.

        Raises:
            StoreError: if it cannot be read.
            WorkerError: if it is something else.
        """
        path = run_dir / EXPECTATIONS_FILE
        if not path.exists():
            return None
        try:
            return cls.model_validate(read_json(path))
        except ValueError as error:
            raise WorkerError(f"{path}: not a round's expectations: run the round again") from error


def expect(
    candidate: Engine,
    before: Engine,
    frames: Mapping[str, Iterable[NDArray[np.uint8]]],
    num_classes: int,
) -> dict[str, Expected]:
    """Run both models over some frames (uint8 H×W×3 BGR) of every domain.

    Raises:
        EngineError: if a model cannot be run.
    """
    found = {}
    for domain, images in frames.items():
        sights = []
        for image in images:
            (one,), (other,) = candidate.infer([image]), before.infer([image])
            sights.append(compare(one, other, num_classes))
        if sights:
            found[domain] = Expected.of(sights)
    return found
