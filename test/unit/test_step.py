from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from learning_fixtures import TinyNetwork, drive, tiny
from torch import Tensor

from ssada_core.errors import DataError
from ssada_core.learning.batches import Batch, LabelledCrops, UnlabelledCrops
from ssada_core.learning.loaders import BatchMaker, TrainingData
from ssada_core.learning.precision import autocast
from ssada_core.learning.settings import TrainingSettings
from ssada_core.learning.step import normalise, ssada_step
from ssada_core.networks.base import NetworkOutput

SETTINGS = TrainingSettings(crop_height=32, crop_width=32, ohem_threshold=1.0)
SIZE = 4


class Told(TinyNetwork):
    """Answers from the image alone, so that every loss can be worked out by hand.

    The blue value b of a pixel stands for the probability b/100 of class 0 against class 1; the auxiliary
    head says 0.5; the perturbed head says 0.25.
    """

    def __init__(self) -> None:
        super().__init__(2)
        self.batches: list[tuple[int, bool]] = []

    @staticmethod
    def read(x: Tensor) -> Tensor:
        p = ((x[:, 2] * 0.225 + 0.406) * 255).round() / 100
        return torch.stack((torch.log(p / (1 - p)), torch.zeros_like(p)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append((len(x), self.training))
        return self.read(x)

    def train_forward(self, x: Tensor, *, perturb=False, auxiliary=True) -> NetworkOutput:
        self.batches.append((len(x), self.training))
        logits = self.read(x) + 0 * self.head.bias.sum()
        helper = torch.zeros_like(logits[auxiliary])
        perturbed = None if perturb is False else torch.zeros_like(logits[perturb])
        if perturbed is not None:
            perturbed[:, 0] = math.log(0.25 / 0.75)
        return NetworkOutput(logits, (helper,), perturbed)


def flat(percent: int, count: int = 1) -> Tensor:
    return torch.full((count, SIZE, SIZE, 3), percent, dtype=torch.uint8)


def labelled(percent: int) -> LabelledCrops:
    return LabelledCrops(flat(percent), torch.zeros(1, SIZE, SIZE, dtype=torch.int64))


def unlabelled(weak: int, strong1: int, strong2: int, other: int | None = None) -> UnlabelledCrops:
    """One image of one value per view; the other, if any, sits in the upper half of the first strong view."""
    box = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    box[:, : SIZE // 2] = other is not None
    rows = 1 if other is not None else 0
    return UnlabelledCrops(
        weak=flat(weak),
        strong1=flat(strong1),
        strong2=flat(strong2),
        usable=torch.ones(1, SIZE, SIZE, dtype=torch.bool),
        box1=box,
        box2=torch.zeros_like(box),
        other=flat(other or 0, rows),
        other_rows=torch.arange(rows),
        other_usable=torch.ones(rows, SIZE, SIZE, dtype=torch.bool),
    )


def nll(probability: float) -> float:
    return -math.log(probability)


def figures(result) -> dict[str, float]:
    return {name: value.item() for name, value in result.figures.items()}


def test_normalised_crops_are_rgb_and_channels_last():
    crop = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    crop[..., 2] = 255  # red in BGR
    x = normalise(crop)
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]))
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_all_parts_by_hand():
    # Source p = 0.8, target 0.6; heads averaged with the auxiliary's 0.5. Weak says class 0 at 0.9.
    batch = Batch(labelled(80), labelled(60), unlabelled(90, 70, 40))
    result = figures(ssada_step(Told(), batch, SETTINGS))
    expected = {
        "loss_source": (nll(0.8) + nll(0.5)) / 2,
        "loss_target": (nll(0.6) + nll(0.5)) / 2,
        "loss_strong1": nll(0.7),
        "loss_strong2": nll(0.4),
        "loss_perturbed": nll(0.25),
        "confident": 1.0,
    }
    expected["loss_unlabelled"] = 0.25 * nll(0.7) + 0.25 * nll(0.4) + 0.5 * nll(0.25)
    expected["loss"] = (expected["loss_source"] + expected["loss_target"] + expected["loss_unlabelled"]) / 3
    assert result == pytest.approx(expected, rel=1e-4)


def test_one_concatenated_pass_and_one_before_it_in_evaluation():
    network = Told()
    ssada_step(network, Batch(labelled(80), labelled(60), unlabelled(90, 70, 40, other=20)), SETTINGS)
    assert network.batches == [(1, False), (5, True)]


def test_without_a_box_nothing_is_predicted_ahead():
    network = Told()
    ssada_step(network, Batch(None, None, unlabelled(90, 70, 40)), SETTINGS)
    assert network.batches == [(3, True)]


def test_inside_the_box_the_second_batchs_pseudo_labels_count():
    # Upper half of s1: the other's class 1 (0.2 < 0.5), predicted at 0.3; lower half: class 0, predicted at 0.7.
    result = figures(ssada_step(Told(), Batch(None, None, unlabelled(90, 70, 40, other=20)), SETTINGS))
    assert result["loss_strong1"] == pytest.approx((nll(0.3) + nll(0.7)) / 2, rel=1e-4)
    assert result["loss_strong2"] == pytest.approx(nll(0.4), rel=1e-4)


def test_the_padding_mask_is_mixed_along():
    # The other's padding fills its upper row, one's own the lowest row: of 16 pixels 8 remain.
    crops = unlabelled(90, 70, 40, other=20)
    crops.usable[:, -1], crops.usable[:, 0], crops.other_usable[:, 0] = False, False, False
    result = figures(ssada_step(Told(), Batch(None, None, crops), SETTINGS))
    assert result["loss_strong1"] == pytest.approx((nll(0.3) + nll(0.7)) / 2, rel=1e-4)
    crops.other_usable[:] = False
    result = figures(ssada_step(Told(), Batch(None, None, crops), SETTINGS))
    assert result["loss_strong1"] == pytest.approx(nll(0.7), rel=1e-4)


def test_the_confidence_test_uses_each_pixels_own_prediction():
    # tau 0.85: the weak view (0.9) passes, the other (0.8) does not; the divisor stays at all 16 pixels.
    result = figures(ssada_step(Told(), Batch(None, None, unlabelled(90, 70, 40, other=20)), SETTINGS, thresholds=0.85))
    assert result["loss_strong1"] == pytest.approx(nll(0.7) / 2, rel=1e-4)
    class_wise = ssada_step(
        Told(), Batch(None, None, unlabelled(90, 70, 40)), SETTINGS, thresholds=torch.tensor([0.95, 0.0])
    )
    assert figures(class_wise)["loss_unlabelled"] == 0.0
    assert figures(class_wise)["confident"] == 0.0


def test_a_teacher_makes_the_pseudo_labels_in_one_evaluation_pass():
    class Contrary(Told):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).flip(1)

    student, teacher = Told(), Contrary()
    batch = Batch(None, None, unlabelled(90, 70, 40, other=20))
    result = figures(ssada_step(student, batch, SETTINGS, teacher=teacher))
    assert teacher.batches == [(2, False)]
    assert student.batches == [(3, True)]
    assert result["loss_strong1"] == pytest.approx((nll(0.7) + nll(0.3)) / 2, rel=1e-4)
    assert result["loss_perturbed"] == pytest.approx(nll(0.75), rel=1e-4)


@pytest.mark.parametrize("missing", ["source", "labelled", "unlabelled"])
def test_the_mean_is_over_the_parts_present(missing: str):
    parts = {"source": labelled(80), "labelled": labelled(60), "unlabelled": unlabelled(90, 70, 40)}
    parts[missing] = None
    result = figures(ssada_step(Told(), Batch(**parts), SETTINGS))
    names = {"source": "loss_source", "labelled": "loss_target", "unlabelled": "loss_unlabelled"}
    present = [result[name] for part, name in names.items() if part != missing]
    assert names[missing] not in result
    assert result["loss"] == pytest.approx(sum(present) / 2)


def test_the_unlabelled_loss_has_its_weight_in_the_mean():
    batch = Batch(labelled(60), labelled(80), unlabelled(70, 75, 65))
    full = figures(ssada_step(Told(), batch, SETTINGS))
    light = figures(ssada_step(Told(), batch, SETTINGS, unlabelled_weight=0.25))
    supervised = full["loss_source"] + full["loss_target"]
    assert light["loss"] == pytest.approx((supervised + 0.25 * full["loss_unlabelled"]) / 2.25)
    without = figures(ssada_step(Told(), batch, SETTINGS, unlabelled_weight=0.0))
    assert without["loss"] == pytest.approx(supervised / 2)
    alone = Batch(None, None, unlabelled(70, 75, 65))
    only = figures(ssada_step(Told(), alone, SETTINGS, unlabelled_weight=0.0))
    assert only["loss"] == pytest.approx(only["loss_unlabelled"])


def test_an_empty_batch_is_refused():
    with pytest.raises(DataError, match="nothing to learn from"):
        ssada_step(Told(), Batch(None, None, None), SETTINGS)


def test_padding_alone_gives_a_loss_of_zero_and_finite_gradients():
    crops = unlabelled(90, 70, 40)
    crops.usable[:] = False
    ignored = LabelledCrops(flat(80), torch.full((1, SIZE, SIZE), 255))
    network = Told()
    result = ssada_step(network, Batch(ignored, ignored, crops), SETTINGS)
    result.loss.backward()
    assert result.loss.item() == 0.0
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_pseudo_labels_pass_no_gradient_but_strong_and_perturbed_views_do():
    data = TrainingData(unlabelled=drive(5, labelled=False))
    batch = BatchMaker(data, SETTINGS).batch(0)
    network = tiny()
    ssada_step(network, batch, SETTINGS).loss.backward()
    assert network.head.weight.grad.abs().sum() > 0
    assert network.auxiliary.weight.grad is None or not network.auxiliary.weight.grad.any()
    assert network.training


def test_in_bf16_no_cast_of_the_pass_ahead_serves_the_pass_that_learns():
    """Casts made without a gradient and kept took every convolution's gradient (PyTorch before 2.11)."""
    network = tiny()
    kept: list[bool] = []
    seen = network.backbone.register_forward_hook(lambda *_: kept.append(torch.is_autocast_cache_enabled()))
    batch = Batch(source=labelled(50), labelled=labelled(60), unlabelled=unlabelled(70, 80, 90, other=40))
    with autocast("bf16", torch.device("cpu")):
        ssada_step(network, batch, SETTINGS).loss.backward()
    seen.remove()
    assert kept == [False, False]  # ahead, and to learn
    weights = [module.weight for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert weights
    assert all(weight.grad is not None for weight in weights)


def test_frozen_batch_norm_stays_as_it_was():
    batch = BatchMaker(TrainingData(drive(4), drive(4), drive(5, labelled=False)), SETTINGS).batch(0)
    network = tiny()
    network.freeze_batch_norm()
    before = network.backbone[1].running_mean.clone()
    ssada_step(network, batch, SETTINGS)
    assert torch.equal(before, network.backbone[1].running_mean)
    network.freeze_batch_norm(False)
    ssada_step(network, batch, SETTINGS)
    assert not torch.equal(before, network.backbone[1].running_mean)


def test_the_mixed_images_are_what_the_labels_say():
    # On real crops: with the truth as the network, strong views and mixed pseudo-labels agree but for the colour.
    settings = SETTINGS.model_copy(update={"unlabelled_batch": 8})
    crops = BatchMaker(TrainingData(unlabelled=drive(12, labelled=False)), settings).batch(3).unlabelled
    agree = []
    for row, index in enumerate(crops.other_rows.tolist()):
        mixed = torch.where(crops.box1[index][..., None], crops.other[row], crops.weak[index]).float().mean(-1)
        view = crops.strong1[index].float().mean(-1)
        agree.append(np.corrcoef(mixed.flatten(), view.flatten())[0, 1])
    assert np.median(agree) > 0.9
