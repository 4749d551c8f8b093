"""One SS-ADA step against a straightforward one that computes the same loss (``ssada bench training``)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssada_core.bench.timing import interleaved, torch_threads
from ssada_core.data.simulated_drive import SimulatedDrive, SimulatedSamples
from ssada_core.errors import ConfigError
from ssada_core.labels import CAMVID
from ssada_core.learning.batches import Batch, LabelledCrops, UnlabelledCrops, normalise
from ssada_core.learning.loaders import BatchMaker, TrainingData
from ssada_core.learning.losses import pseudo_labels, supervised_loss, unlabelled_cross_entropy
from ssada_core.learning.pointwise import dilated_pointwise
from ssada_core.learning.schedule import build_optimizer
from ssada_core.learning.settings import TrainingSettings
from ssada_core.learning.step import PERTURBED_WEIGHT, STRONG_WEIGHT, ssada_step
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings

LIMIT = 0.8
"""Largest ratio of our step's time to the straightforward one's that is accepted."""

_FRAMES = 8
_TRIES = 100


@dataclass(frozen=True)
class TrainingBench:
    """What is measured: ``batch`` source, labelled and unlabelled crops each, and as many to mix with."""

    batch: int = 2
    crop: int = 192
    backbone: str = "efficientnet_lite0"
    threads: int = 1
    rounds: int = 15


def run_training_bench(bench: TrainingBench, *, on_round: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Measure both steps, from crops to updated weights, in turn; loading is the same for both and left out.

    Returns:
        ``step_seconds``, ``naive_step_seconds`` and their ``ratio``; the same by processor time as
        ``step_cpu_seconds``, ``naive_step_cpu_seconds`` and ``cpu_ratio``; ``limit``, ``accepted`` and the setting.
        Seconds are medians over the rounds.
    """
    settings = TrainingSettings(
        source_batch=bench.batch,
        labelled_batch=bench.batch,
        unlabelled_batch=bench.batch,
        crop_height=bench.crop,
        crop_width=bench.crop,
        learning_rate=1e-6,  # the weights hardly move: every round is the same work
        threads=bench.threads,
    )
    batch = full_batch(settings)
    torch.manual_seed(settings.seed)
    plain = build_network(NetworkSettings(backbone=bench.backbone), CAMVID.num_classes, pretrained=False)
    with torch_threads(bench.threads):
        candidates = {"ours": _ours(copy.deepcopy(plain), batch, settings), "naive": _naive(plain, batch, settings)}
        times = interleaved(candidates, rounds=bench.rounds, warm_up=2, on_round=on_round)
    ours, naive = times["ours"], times["naive"]
    ratio = ours.wall_median / naive.wall_median
    return {
        "step_seconds": ours.wall_median,
        "naive_step_seconds": naive.wall_median,
        "ratio": ratio,
        "step_cpu_seconds": ours.cpu_median,
        "naive_step_cpu_seconds": naive.cpu_median,
        "cpu_ratio": ours.cpu_median / naive.cpu_median,
        "limit": LIMIT,
        "accepted": ratio <= LIMIT,
        **vars(bench),
    }


def full_batch(settings: TrainingSettings) -> Batch:
    """A batch of the simulated drive in which every unlabelled crop has something pasted in."""
    day, night = (SimulatedSamples(_drive(), domain, range(0, 10 * _FRAMES, 10)) for domain in ("day", "night"))
    maker = BatchMaker(TrainingData(day, night, night), settings)
    batches = (maker.batch(iteration) for iteration in range(_TRIES))
    for batch in batches:
        if batch.unlabelled is not None and len(batch.unlabelled.other) == settings.unlabelled_batch:
            return batch
    raise ConfigError(f"no batch of {settings.unlabelled_batch} with every crop mixed in {_TRIES} tries: ask for fewer")


def _drive() -> SimulatedDrive:
    return SimulatedDrive(seed=1)


def _ours(network: SegmentationNetwork, batch: Batch, settings: TrainingSettings) -> Callable[[], None]:
    network = network.to(memory_format=torch.channels_last)
    network.freeze_batch_norm(settings.freeze_batch_norm)
    optimizer = build_optimizer(network, settings)

    def step() -> None:
        with dilated_pointwise(network):
            _update(optimizer, ssada_step(network, batch, settings).loss)

    return step


def _naive(network: SegmentationNetwork, batch: Batch, settings: TrainingSettings) -> Callable[[], None]:
    network.freeze_batch_norm(settings.freeze_batch_norm)
    optimizer = build_optimizer(network, settings)
    return lambda: _update(optimizer, straightforward_loss(network, batch, settings))


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def straightforward_loss(network: SegmentationNetwork, batch: Batch, settings: TrainingSettings) -> Tensor:
    """SS-ADA's loss with fixed τ and the student's pseudo-labels, each view in a pass of its own, default layout.

    Args:
        network: in the default memory layout.
        batch: with all three parts.
        settings: of OHEM and τ.
    """
    if batch.source is None or batch.labelled is None or batch.unlabelled is None:
        raise ConfigError("the comparison needs source, labelled and unlabelled crops: no batch size may be 0")
    parts = [_supervised(network, crops, settings) for crops in (batch.source, batch.labelled)]
    return torch.stack([*parts, _unlabelled(network, batch.unlabelled, settings.threshold)]).mean()


def _supervised(network: SegmentationNetwork, crops: LabelledCrops, settings: TrainingSettings) -> Tensor:
    output = network.train().train_forward(_tensor(crops.images))
    return supervised_loss(
        [output.logits, *output.auxiliary],
        crops.labels,
        threshold=settings.ohem_threshold,
        min_kept_share=settings.ohem_min_kept_share,
    )


def _unlabelled(network: SegmentationNetwork, crops: UnlabelledCrops, threshold: float) -> Tensor:
    with torch.no_grad():
        pasted_confidence, pasted = pseudo_labels(network.eval()(_tensor(crops.other)))
    network.train()
    weak = network.train_forward(_tensor(crops.weak), perturb=True, auxiliary=False)
    if weak.perturbed is None:
        raise ConfigError("the network returned no perturbed prediction")
    confidence, label = pseudo_labels(weak.logits)
    total = PERTURBED_WEIGHT * unlabelled_cross_entropy(
        weak.perturbed, label, confidence, crops.usable, thresholds=threshold
    )
    rows = crops.other_rows
    for images, box in ((crops.strong1, crops.box1), (crops.strong2, crops.box2)):
        logits = network.train_forward(_tensor(images), auxiliary=False).logits
        against = (
            torch.where(box, mine.index_copy(0, rows, theirs), mine)
            for mine, theirs in ((label, pasted), (confidence, pasted_confidence), (crops.usable, crops.other_usable))
        )
        total = total + STRONG_WEIGHT * unlabelled_cross_entropy(logits, *against, thresholds=threshold)
    return total


def _tensor(images: Tensor) -> Tensor:
    return normalise(images).contiguous()
