"""The loss of one optimisation step: source, labelled and unlabelled target together (METHOD §3, §4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssada_core.errors import DataError, ModelError
from ssada_core.learning.batches import Batch, LabelledCrops, UnlabelledCrops, normalise
from ssada_core.learning.losses import confidence_mask, pseudo_labels, supervised_loss, unlabelled_cross_entropy
from ssada_core.learning.mixing import ground_truth, pseudo_labelled
from ssada_core.learning.mixing_step import mixing_loss
from ssada_core.learning.settings import TrainingSettings
from ssada_core.networks.base import NetworkOutput, SegmentationNetwork

STRONG_WEIGHT, PERTURBED_WEIGHT = 0.25, 0.5


@dataclass(frozen=True)
class StepResult:
    """What a step computed.

    Attributes:
        loss: scalar with a gradient.
        figures: named scalars without one, on the network's device, so that nothing waits for it here.
    """

    loss: Tensor
    figures: dict[str, Tensor]


@dataclass(frozen=True)
class _Pseudo:
    """What the unlabelled losses compare with: class int64, confidence float and usable bool, ``[B,h,w]`` each."""

    label: Tensor
    confidence: Tensor
    usable: Tensor

    def mixed(self, other: _Pseudo, box: Tensor) -> _Pseudo:
        """The other's within the box, one's own elsewhere."""
        return _Pseudo(
            torch.where(box, other.label, self.label),
            torch.where(box, other.confidence, self.confidence),
            torch.where(box, other.usable, self.usable),
        )


def ssada_step(
    network: SegmentationNetwork,
    batch: Batch,
    settings: TrainingSettings,
    *,
    thresholds: Tensor | float = 0.0,
    unlabelled_weight: float = 1.0,
    class_weights: Tensor | None = None,
    teacher: SegmentationNetwork | None = None,
    rare: Tensor | None = None,
) -> StepResult:
    """``L = (L_source + L_target + w·L_u) / (2 + w)``, or the weighted mean of the parts that the batch has.

    The paper's is w = 1.

    Frames mixed from source and target add their weighted loss, where the settings ask for them.
    With one part only this is the supervised training on source or target. Every image passes the network
    once, in one concatenated batch; only the second batch's weak views are predicted before, in evaluation
    mode and without a gradient.

    Args:
        network: is put into training mode; frozen batch norms stay frozen.
        batch: on the network's device.
        settings: of OHEM and mixing.
        thresholds: confidence test of the pseudo-labels, see :func:`~ssada_core.learning.losses.confidence_mask`.
        unlabelled_weight: w; without any labelled part it has no bearing.
        class_weights: float ``[C]`` for the supervised losses; not for heads of the source's own.
        teacher: makes the pseudo-labels, in evaluation mode; None: the network itself, in the same pass.
        rare: bool ``[C]``, classes that ``long_tail`` pastes more often.

    Raises:
        DataError: if the batch has no part at all.
    """
    labelled = {"source": batch.source, "target": batch.labelled}
    present = {name: crops for name, crops in labelled.items() if crops is not None}
    if not present and batch.unlabelled is None:
        raise DataError("a batch without source, labelled and unlabelled crops: there is nothing to learn from")
    other, own = _predict_ahead(network, teacher, batch.unlabelled)
    output = _forward(network.train(), present, batch.unlabelled)
    losses = _supervised(output, present, settings, class_weights)
    figures: dict[str, Tensor] = {}
    if batch.unlabelled is not None:
        first = sum(len(crops.images) for crops in present.values()) - _separate(network, present)
        own = own or _own(output, first, batch.unlabelled)
        losses["unlabelled"], figures = _unlabelled(output, first, batch.unlabelled, (other, own), thresholds)
    loss = _mean(losses, unlabelled_weight)
    if batch.source is not None and batch.unlabelled is not None and own is not None and settings.mixing.mode != "none":
        losses["mixed"] = _mixed(network, batch.source, batch.unlabelled, own, settings, rare)
        loss = loss + settings.mixing.weight * losses["mixed"]
    figures = {"loss": loss} | {f"loss_{name}": value for name, value in losses.items()} | figures
    return StepResult(loss, {name: value.detach().float() for name, value in figures.items()})


def _mean(losses: dict[str, Tensor], unlabelled_weight: float) -> Tensor:
    weights = [unlabelled_weight if name == "unlabelled" and len(losses) > 1 else 1.0 for name in losses]
    parts = torch.stack(list(losses.values()))
    return (parts * parts.new_tensor(weights)).sum() / sum(weights)


def _forward(
    network: SegmentationNetwork, present: dict[str, LabelledCrops], unlabelled: UnlabelledCrops | None
) -> NetworkOutput:
    """One pass; auxiliary heads for the labelled images, perturbed features for the weak views."""
    images = [crops.images for crops in present.values()]
    supervised = sum(len(part) for part in images)
    perturb: bool | slice = False
    if unlabelled is not None:
        images += [unlabelled.weak, unlabelled.strong1, unlabelled.strong2]
        perturb = slice(supervised, supervised + len(unlabelled.weak))
    separate = _separate(network, present)
    own_heads = {"source": separate} if separate else {}
    return network.train_forward(
        normalise(torch.cat(images)), perturb=perturb, auxiliary=slice(separate, supervised), **own_heads
    )


def _separate(network: SegmentationNetwork, present: dict[str, LabelledCrops]) -> int:
    """How many images, the first of the batch, go to heads of the source's own."""
    return len(present["source"].images) if network.source_heads is not None and "source" in present else 0


def _supervised(
    output: NetworkOutput, present: dict[str, LabelledCrops], settings: TrainingSettings, class_weights: Tensor | None
) -> dict[str, Tensor]:
    losses: dict[str, Tensor] = {}
    start = 0
    for name, crops in present.items():
        heads, weights = output.source, None  # the weights are of the target's classes
        if name != "source" or not output.source:
            part = slice(start, start + len(crops.images))
            start = part.stop
            heads, weights = tuple(head[part] for head in (output.logits, *output.auxiliary)), class_weights
        losses[name] = supervised_loss(
            heads,
            crops.labels,
            threshold=settings.ohem_threshold,
            min_kept_share=settings.ohem_min_kept_share,
            class_weights=weights,
        )
    return losses


@torch.no_grad()
def _predict_ahead(
    network: SegmentationNetwork, teacher: SegmentationNetwork | None, crops: UnlabelledCrops | None
) -> tuple[_Pseudo | None, _Pseudo | None]:
    """Pseudo-labels of the second batch, and of the weak views where a teacher makes them."""
    if crops is None:
        return None, None
    if teacher is None:
        if not len(crops.other):
            return None, None
        return _Pseudo(*_predict(network, crops.other), crops.other_usable), None
    count = len(crops.weak)
    label, confidence = _predict(teacher, torch.cat((crops.weak, crops.other)))
    own = _Pseudo(label[:count], confidence[:count], crops.usable)
    return _Pseudo(label[count:], confidence[count:], crops.other_usable), own


def _predict(network: SegmentationNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    confidence, label = pseudo_labels(network.eval()(normalise(images)))
    return label, confidence


def _own(output: NetworkOutput, first: int, crops: UnlabelledCrops) -> _Pseudo:
    """The student's own pseudo-labels of the weak views."""
    confidence, label = pseudo_labels(output.logits[first : first + len(crops.weak)])
    return _Pseudo(label, confidence, crops.usable)


def _mixed(
    network: SegmentationNetwork,
    source: LabelledCrops,
    crops: UnlabelledCrops,
    own: _Pseudo,
    settings: TrainingSettings,
    rare: Tensor | None,
) -> Tensor:
    mixing = settings.mixing
    target = pseudo_labelled(crops.weak, own.label, own.confidence, own.usable, mixing.threshold)
    return mixing_loss(network, ground_truth(source.images, source.labels), target, mixing, rare)


def _unlabelled(
    output: NetworkOutput,
    first: int,
    crops: UnlabelledCrops,
    pseudo: tuple[_Pseudo | None, _Pseudo],
    thresholds: Tensor | float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """``L_u = 0.25·L_s1 + 0.25·L_s2 + 0.5·L_fp``."""
    _, strong1, strong2 = output.logits[first:].chunk(3)
    other, own = pseudo
    pasted = own if other is None else _spread(own, other, crops.other_rows)
    if output.perturbed is None:
        raise ModelError("the network returned no perturbed prediction though one was asked for")
    pairs = {
        "loss_strong1": (strong1, own.mixed(pasted, crops.box1)),
        "loss_strong2": (strong2, own.mixed(pasted, crops.box2)),
        "loss_perturbed": (output.perturbed, own),
    }
    losses = {
        name: unlabelled_cross_entropy(logits, against.label, against.confidence, against.usable, thresholds=thresholds)
        for name, (logits, against) in pairs.items()
    }
    total = (
        STRONG_WEIGHT * (losses["loss_strong1"] + losses["loss_strong2"]) + PERTURBED_WEIGHT * losses["loss_perturbed"]
    )
    return total, losses | {"confident": _confident(own, thresholds)}


def _spread(own: _Pseudo, other: _Pseudo, rows: Tensor) -> _Pseudo:
    """The second batch's predictions at the rows they are pasted into; rows without a box are never read."""
    return _Pseudo(
        own.label.index_copy(0, rows, other.label),
        own.confidence.index_copy(0, rows, other.confidence),
        own.usable.index_copy(0, rows, other.usable),
    )


def _confident(pseudo: _Pseudo, thresholds: Tensor | float) -> Tensor:
    """Share of the usable pixels of the weak views that pass the confidence test."""
    keep = pseudo.usable & confidence_mask(pseudo.confidence, pseudo.label, thresholds)
    return keep.sum() / pseudo.usable.sum().clamp(min=1)
