"""Labels that come in while training goes on: picked by the current model, read from disk (METHOD §5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ssada_core.data.samples import Array, Samples, Subset
from ssada_core.errors import DataError, WorkerError
from ssada_core.evaluation.metrics import confusion, iou
from ssada_core.inference.graph import DeployedGraph, GraphOutput
from ssada_core.learning.acquisition import FrameStatistics, audit_positions, select, systematic_sample
from ssada_core.learning.budget import Part
from ssada_core.learning.distributed import World
from ssada_core.learning.loaders import TrainingData
from ssada_core.learning.settings import AcquisitionSettings
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.store.files import write_json

REVEALS_FILE = "reveals.json"
"""Which frames were labelled when, in the run's folder."""

_STREAM = 7  # a random stream beside those of loader and trainer


class Reveals(Protocol):
    """What a trainer needs of labels that come in."""

    def due(self, done: int) -> bool:
        """Whether labels are to be revealed after ``done`` iterations."""
        ...

    def next_after(self, done: int) -> int:
        """Iterations after which the next labels come, more than ``done``; a very large number if none do."""
        ...

    def reveal(self, network: SegmentationNetwork, device: torch.device, world: World) -> None:
        """Reveal the part that is due."""
        ...

    def data(self) -> TrainingData:
        """What there is to train on now."""
        ...

    def class_iou(self) -> NDArray[np.float64] | None:
        """IoU per class ``[C]`` as measured at the last reveal, NaN where unknown; None if nothing is known."""
        ...

    def identity(self) -> dict[str, Any]:
        """What must not change between the attempts of one round."""
        ...

    def state(self) -> list[dict[str, Any]]:
        """What was revealed, for the checkpoint."""
        ...

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Go back to what :meth:`state` returned.

        Raises:
            WorkerError: if it is of other frames.
        """
        ...


class Reveal(BaseModel):
    """One reveal, in ``reveals.json`` and in the checkpoint.

    Attributes:
        iteration: iterations done before it.
        frames: indices of the target frames that are trained on from here.
        audit: indices of those that only judge the model.
        names: the frames' names, those of ``frames`` first.
        iou: IoU per class in [0, 1] after it, by which classes are weighed; None where unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iteration: int
    frames: list[int]
    audit: list[int]
    names: list[str]
    iou: list[float | None]


@dataclass(frozen=True)
class Target:
    """Where labels are revealed: source and target frames, and by what settings.

    Attributes:
        source: labelled source frames, or None.
        pool: target frames at the network's size, in the drive's order; their labels are read when revealed.
        acquisition: how frames are picked. Without audit frames the labelled ones themselves judge, as in the paper.
        trained: the network has been trained for the label space, so that even the first frames are picked by it;
            otherwise those are spread evenly.
        seed: everything random follows from it.
        folder: where ``reveals.json`` is written.
    """

    source: Samples | None
    pool: Samples
    acquisition: AcquisitionSettings
    trained: bool
    seed: int
    folder: Path


class LabelReveals:
    """Reveals the parts of a budget one after another; implements :class:`Reveals`."""

    def __init__(self, target: Target, parts: Sequence[Part]) -> None:
        """Prepare to reveal ``parts``, as :func:`ssada_core.learning.budget.plan` makes them."""
        self._target, self._parts = target, tuple(parts)
        self._done: list[Reveal] = []

    def due(self, done: int) -> bool:
        """See :class:`Reveals`."""
        return len(self._done) < len(self._parts) and self._parts[len(self._done)].iteration <= done

    def next_after(self, done: int) -> int:
        """See :class:`Reveals`."""
        return min((part.iteration for part in self._parts if part.iteration > done), default=2**62)

    def data(self) -> TrainingData:
        """See :class:`Reveals`; all target frames stay unlabelled ones as well, and audit frames nothing else."""
        frames = sorted(self._indices("frames"))
        labelled = Subset(self._target.pool, frames) if frames else None
        return TrainingData(self._target.source, labelled, self._target.pool)

    def class_iou(self) -> NDArray[np.float64] | None:
        """See :class:`Reveals`."""
        if not self._done or all(value is None for value in self._done[-1].iou):
            return None
        return np.array([np.nan if value is None else value for value in self._done[-1].iou])

    def identity(self) -> dict[str, Any]:
        """See :class:`Reveals`."""
        parts = [[part.iteration, part.count] for part in self._parts]
        return {"labels revealed": parts, "acquisition": self._target.acquisition.model_dump(mode="json")}

    def state(self) -> list[dict[str, Any]]:
        """See :class:`Reveals`."""
        return [reveal.model_dump(mode="json") for reveal in self._done]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """See :class:`Reveals`."""
        done = [Reveal.model_validate(each) for each in state]
        for reveal in done:
            for index, name in zip([*reveal.frames, *reveal.audit], reveal.names, strict=True):
                if index >= len(self._target.pool) or self._target.pool.name(index) != name:
                    raise WorkerError(f"frame {index} of the target is not '{name}' any more: use a new run folder")
        self._done = done

    def reveal(self, network: SegmentationNetwork, device: torch.device, world: World) -> None:
        """See :class:`Reveals`; the first process picks for all.

        Raises:
            DataError: if a frame cannot be read, or a picked one has no label.
            StoreError: if ``reveals.json`` cannot be written.
        """
        found = self._picked(_Model(network, device)).model_dump_json() if world.leads else ""
        self._done.append(Reveal.model_validate(json.loads(world.agree(found))))
        if world.leads:
            write_json(self._target.folder / REVEALS_FILE, self.state())

    def _picked(self, model: _Model) -> Reveal:
        number = len(self._done)
        part = self._parts[number]
        spread = number == 0 and not self._target.trained
        picks, audits = self._spread(part.count) if spread else self._selected(model, part.count)
        judges = [*self._indices("audit"), *audits]
        if self._target.acquisition.audit_every == 0:
            judges = [*self._indices("frames"), *picks]
        values = self._measured(model, judges)
        return Reveal(
            iteration=part.iteration,
            frames=picks,
            audit=audits,
            names=[self._target.pool.name(index) for index in (*picks, *audits)],
            iou=[None if np.isnan(value) else float(value) for value in values],
        )

    def _selected(self, model: _Model, count: int) -> tuple[list[int], list[int]]:
        """Frames picked by the acquisition, and audit frames."""
        acquisition, asked = self._target.acquisition, {*self._indices("frames"), *self._indices("audit")}
        judges = self._indices("frames" if acquisition.audit_every == 0 else "audit")
        statistics = [model.statistics(self._target.pool.image(i), str(i)) for i in range(len(self._target.pool))]
        choices = select(
            [each for each in statistics if int(each.frame_id) not in asked],
            strategy=acquisition.strategy,
            count=count,
            audit_every=acquisition.audit_every,
            iou=self._measured(model, judges) if judges else None,
            diverse=acquisition.diverse,
            seed=self._seed(),
            already=[statistics[index].features for index in sorted(asked)],
            asked_before=len(asked),
            top_share=acquisition.top_share,
            neighbour_ratio=acquisition.neighbour_ratio,
        )
        picks, audits = ([int(each.frame_id) for each in choices if each.audit is audit] for audit in (False, True))
        return picks, audits

    def _spread(self, count: int) -> tuple[list[int], list[int]]:
        """Frames spread evenly from a random start: what there is to do before a model knows anything."""
        drawn = systematic_sample(len(self._target.pool), count, np.random.default_rng(self._seed()))
        audits = {drawn[place] for place in audit_positions(count, every=self._target.acquisition.audit_every)}
        return [index for index in drawn if index not in audits], sorted(audits)

    def _measured(self, model: _Model, judges: Sequence[int]) -> NDArray[np.float64]:
        total = np.zeros((model.classes, model.classes), np.int64)
        for index in judges:
            label = self._target.pool.label(index)
            if label is None:
                name = self._target.pool.name(index)
                raise DataError(f"{name} was picked to be labelled and has no label on disk: label it, or leave it out")
            total += confusion(model.label(self._target.pool.image(index)), label, model.classes)
        return iou(total)

    def _indices(self, kind: str) -> list[int]:
        return [index for reveal in self._done for index in getattr(reveal, kind)]

    def _seed(self) -> int:
        words = [self._target.seed, _STREAM, len(self._done)]
        return int(np.random.SeedSequence(words).generate_state(1)[0])


class _Model:
    """The network as it is deployed, on the device it trains on."""

    def __init__(self, network: SegmentationNetwork, device: torch.device) -> None:
        self._graph, self._device = DeployedGraph(network).to(device), device
        self.classes = network.num_classes

    def statistics(self, image: Array, name: str) -> FrameStatistics:
        """What the acquisition needs to know of a frame."""
        output = self._run(image)
        return FrameStatistics(
            frame_id=name,
            uncertainty=float(output.uncertainty[0]),
            confidence=float(output.confidence[0].float().mean()) / 255.0,
            histogram=np.bincount(_array(output.label).ravel(), minlength=self.classes),
            features=np.asarray(output.features[0].cpu().numpy(), np.float64),
        )

    def label(self, image: Array) -> Array:
        """The predicted classes, uint8 H×W."""
        return np.asarray(_array(self._run(image).label), np.uint8)

    def _run(self, image: Array) -> GraphOutput:
        with torch.no_grad():
            output: GraphOutput = self._graph(torch.from_numpy(image[None]).to(self._device))
        return output


def _array(batch: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = batch[0].cpu().numpy()
    return array
