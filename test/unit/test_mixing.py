from __future__ import annotations

import math

import pytest
import torch
from learning_fixtures import drive, tiny
from torch import Tensor

from ssada_core.data.samples import ArraySamples
from ssada_core.labels import IGNORE
from ssada_core.learning import mixing_step
from ssada_core.learning.batches import Batch
from ssada_core.learning.loaders import BatchMaker, TrainingData
from ssada_core.learning.mixing import (
    Labelled,
    add_rare,
    choose_classes,
    class_mask,
    ground_truth,
    paste_classes,
    pseudo_labelled,
    rare_classes,
    soft_cross_entropy,
    weighted_cross_entropy,
)
from ssada_core.learning.settings import MixingSettings, TrainingSettings
from ssada_core.learning.step import ssada_step

LABELS = torch.tensor([[[0, 1], [2, IGNORE]], [[3, 3], [3, 3]]])
SETTINGS = TrainingSettings(crop_height=32, crop_width=32)


def images(value: int, count: int = 1) -> Tensor:
    return torch.full((count, 2, 2, 3), value, dtype=torch.uint8)


def test_half_of_the_classes_is_chosen_rounded_up_and_never_255():
    draws = torch.tensor([[0.9, 0.1, 0.5, 0.0], [0.0, 0.0, 0.0, 0.9]])
    assert choose_classes(LABELS, draws).tolist() == [[False, True, True, False], [False, False, False, True]]
    nothing = choose_classes(torch.full((1, 2, 2), IGNORE), torch.rand(1, 4))
    assert not nothing.any()


def test_the_mask_covers_the_chosen_classes():
    chosen = torch.tensor([[True, False, True, False], [True, True, True, False]])
    expected = [[[True, False], [True, False]], [[False, False], [False, False]]]
    assert class_mask(LABELS, chosen).tolist() == expected


def test_rare_classes_that_are_there_join_with_their_probability():
    chosen = torch.tensor([[True, False, False, False]]).repeat(2, 1)
    rare = torch.tensor([False, True, True, True])
    draws = torch.tensor([[0.0, 0.29, 0.3, 0.0], [0.0, 0.0, 0.0, 0.1]])
    expected = [[True, True, False, False], [True, False, False, True]]
    assert add_rare(chosen, LABELS, rare, draws, 0.3).tolist() == expected


def test_ground_truth_weighs_one_and_pseudo_labels_the_confident_share():
    truth = ground_truth(images(1, 2), LABELS)
    assert truth.weights.tolist() == [[[1, 1], [1, 0]], [[1, 1], [1, 1]]]
    confidence = torch.tensor([[[0.9, 0.8], [0.5, 0.99]]])
    usable = torch.tensor([[[True, True], [True, False]]])
    pseudo = pseudo_labelled(images(2), torch.ones(1, 2, 2, dtype=torch.int64), confidence, usable, 0.8)
    assert pseudo.labels.tolist() == [[[1, 1], [1, IGNORE]]]
    torch.testing.assert_close(pseudo.weights, torch.tensor([[[2 / 3, 2 / 3], [2 / 3, 0]]]))
    none = pseudo_labelled(images(2), LABELS[:1], confidence, torch.zeros_like(usable), 0.8)
    assert none.weights.tolist() == [[[0, 0], [0, 0]]]


def test_images_labels_and_weights_are_pasted_alike():
    onto = Labelled(images(10), torch.full((1, 2, 2), 2), torch.full((1, 2, 2), 0.25))
    pasted = Labelled(images(20), torch.full((1, 2, 2), 1), torch.ones(1, 2, 2))
    mixed = paste_classes(onto, pasted, torch.tensor([[[True, False], [False, False]]]))
    assert mixed.images[0, ..., 0].tolist() == [[20, 10], [10, 10]]
    assert mixed.labels.tolist() == [[[1, 2], [2, 2]]]
    assert mixed.weights.tolist() == [[[1, 0.25], [0.25, 0.25]]]


def logits() -> Tensor:
    """Probability 0.8 of class 0 in two classes, everywhere."""
    return torch.tensor([math.log(4), 0.0])[None, :, None, None].repeat(1, 1, 2, 2).requires_grad_()


def test_the_loss_is_weighted_and_divided_by_the_labelled_pixels():
    labels = torch.tensor([[[0, 1], [0, IGNORE]]])
    weights = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    value = weighted_cross_entropy(logits(), labels, weights)
    assert value.item() == pytest.approx((-math.log(0.8) - 0.5 * math.log(0.2)) / 3)


def test_dual_soft_weighs_the_mixed_label_four_times_the_original():
    mixed = ground_truth(images(0), torch.zeros(1, 2, 2, dtype=torch.int64))
    original = ground_truth(images(0), torch.ones(1, 2, 2, dtype=torch.int64))
    value = soft_cross_entropy(logits(), mixed, original)
    assert value.item() == pytest.approx(-0.8 * math.log(0.8) - 0.2 * math.log(0.2))


def test_nothing_labelled_gives_nought_with_a_gradient():
    prediction = logits()
    empty = ground_truth(images(0), torch.full((1, 2, 2), IGNORE))
    loss = soft_cross_entropy(prediction, empty, empty)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_rare_classes_are_those_with_few_pixels():
    label = torch.zeros(10, 10, dtype=torch.uint8).numpy()
    label[0, :2], label[1] = 1, IGNORE
    samples = ArraySamples([label[..., None].repeat(3, axis=2)], [label])
    assert rare_classes(samples, 3, 0.03).tolist() == [False, True, True]
    assert rare_classes(samples, 3, 0.02).tolist() == [False, False, True]  # 2 of 90


def test_mixed_frames_show_source_on_target_and_the_way_back():
    source = ground_truth(images(1, 2), torch.tensor([[[0, 0], [1, 1]]]).repeat(2, 1, 1))
    target = Labelled(images(9), torch.full((1, 2, 2), 2), torch.full((1, 2, 2), 0.5))
    torch.manual_seed(0)
    frames = mixing_step.mixed_frames(source, target, MixingSettings(mode="dual_soft"), None, 3)
    (forth, before), (back, truth) = frames
    assert (len(forth.images), len(back.images)) == (1, 1)  # paired in order, the second source frame left out
    pasted = forth.images[..., 0] == 1
    assert pasted.sum() == 2  # one of two classes
    assert torch.equal(forth.weights, torch.where(pasted, 1.0, 0.5))
    assert torch.equal(before.labels, target.labels)
    assert (back.images == 9).all()  # the target shows one class, which is pasted whole
    assert torch.equal(truth.labels, source.labels[:1])
    long_tail = MixingSettings(mode="single", long_tail=True, long_tail_probability=1.0)
    rare = mixing_step.mixed_frames(source, target, long_tail, torch.ones(3, dtype=torch.bool), 3)
    assert len(rare) == 1
    assert (rare[0][0].images == 1).all()


def batch() -> Batch:
    data = TrainingData(drive(3, seed=1), drive(3, seed=2), drive(3, seed=3, labelled=False))
    return BatchMaker(data, SETTINGS).batch(0)


@pytest.mark.parametrize("mode", ["single", "dual_soft"])
@pytest.mark.parametrize("teacher", [False, True])
def test_the_ssada_step_adds_the_mixed_loss_with_its_weight(mode: str, teacher: bool):
    helper = tiny(seed=1).requires_grad_(False) if teacher else None
    plain = _step(SETTINGS, helper)
    with_ = SETTINGS.model_copy(update={"mixing": MixingSettings(mode=mode, weight=0.5)})
    mixed = _step(with_, helper)
    assert set(mixed) - set(plain) == {"loss_mixed"}
    assert mixed["loss_mixed"] > 0
    assert mixed["loss"].item() == pytest.approx((plain["loss"] + 0.5 * mixed["loss_mixed"]).item(), rel=1e-5)


def _step(settings: TrainingSettings, teacher) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return ssada_step(tiny(), batch(), settings, teacher=teacher).figures


def test_without_source_there_is_nothing_to_mix():
    whole = batch()
    settings = SETTINGS.model_copy(update={"mixing": MixingSettings(mode="single")})
    figures = ssada_step(tiny(), Batch(None, whole.labelled, whole.unlabelled), settings).figures
    assert "loss_mixed" not in figures
