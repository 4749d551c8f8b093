"""The loss of an iteration as a module, so that ``DistributedDataParallel`` can average its gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssada_core.learning.batches import Batch
from ssada_core.learning.distributed import World
from ssada_core.learning.focal import ThresholdState
from ssada_core.learning.loaders import TrainingData
from ssada_core.learning.mixing_step import long_tail_classes
from ssada_core.learning.schedule import thresholds, unlabelled_weight
from ssada_core.learning.settings import TrainingSettings, TuflSettings
from ssada_core.learning.step import ssada_step
from ssada_core.learning.tufl_step import first_thresholds, tufl_step
from ssada_core.learning.weighting import checked_iou, class_weights, fill_unknown
from ssada_core.networks.base import SegmentationNetwork


class Objective(nn.Module):
    """SS-ADA's loss, or TUFL's.

    Attributes:
        network: the network that learns.
        thresholds: TUFL's, per class; None in SS-ADA.
        class_weights: float64 ``[C]``, as the settings ask; all 1 for ``none``.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        settings: TrainingSettings,
        tufl: TuflSettings | None,
        teacher: SegmentationNetwork | None,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.network = network
        self._settings, self._tufl, self._device = settings, tufl, device
        self._teacher = (teacher,)  # in a tuple: not a part of what learns
        self.thresholds: ThresholdState | None = (
            first_thresholds(tufl, network.num_classes, device) if tufl is not None else None
        )
        self.class_weights: NDArray[np.float64] = np.ones(network.num_classes)

    def use(self, data: TrainingData, class_iou: NDArray[np.floating] | None) -> None:
        """Take class weights, thresholds and rare classes from these data and figures.

        Raises:
            ConfigError: if ``class_iou`` has another number of classes than the network.
        """
        settings, classes = self._settings, self.network.num_classes
        iou = checked_iou(class_iou, classes)
        self._iou = self._tensor(fill_unknown(iou))
        source = data.source if self.network.source_heads is None else None  # else of other classes
        counted = data.labelled if data.labelled is not None and len(data.labelled) else source
        self.class_weights = class_weights(settings, iou, counted)
        self._weights = None if settings.class_weights == "none" else self._tensor(self.class_weights)
        self._rare = long_tail_classes(settings.mixing, source, classes, self._device)

    def forward(self, iteration: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss with a gradient, and named figures without one."""
        if self._tufl is not None and self.thresholds is not None:
            result = tufl_step(
                self.network,
                batch,
                self._settings,
                self._tufl,
                self.thresholds,
                class_weights=self._weights,
                rare=self._rare,
            )
        else:
            result = ssada_step(
                self.network,
                self._due(iteration, batch),
                self._settings,
                thresholds=thresholds(iteration, self._settings, self._iou),
                unlabelled_weight=unlabelled_weight(iteration, self._settings),
                class_weights=self._weights,
                teacher=self._teacher[0],
                rare=self._rare,
            )
        return result.loss, result.figures

    def _due(self, iteration: int, batch: Batch) -> Batch:
        """The batch without its unlabelled frames where their loss weighs nothing: they would cost most of the step."""
        supervised = sum(len(crops.images) for crops in (batch.source, batch.labelled) if crops is not None)
        # Batch norm's own statistics need two images.
        weight = unlabelled_weight(iteration, self._settings)
        if supervised > 1 and weight == 0 and self._settings.mixing.mode == "none":
            return replace(batch, unlabelled=None)
        return batch

    def share_thresholds(self, world: World) -> None:
        """TUFL's adaptive thresholds follow each process's own batch; their mean is what all go on with."""
        if self.thresholds is not None and world.size > 1:
            self.thresholds.values = world.mean(self.thresholds.values)

    def _tensor(self, values: NDArray[np.float64]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)
