from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssada_core.learning.losses import (
    class_thresholds,
    confidence_mask,
    ohem_cross_entropy,
    pseudo_labels,
    supervised_loss,
    unlabelled_cross_entropy,
)

# Two classes; the logit of class 0 is log(p/(1-p)) and that of class 1 is 0, so softmax gives exactly p for class 0.
PROBABILITIES = [0.1, 0.3, 0.5, 0.6, 0.8, 0.9, 0.95, 0.99]


def logits_of(probabilities: list[float]) -> torch.Tensor:
    p = torch.tensor(probabilities, dtype=torch.float64)
    first = torch.log(p / (1 - p))
    return torch.stack([first, torch.zeros_like(first)])[None, :, None, :].float()


def nll(*probabilities: float) -> float:
    return sum(-math.log(p) for p in probabilities) / len(probabilities)


def test_ohem_keeps_the_pixels_below_the_threshold():
    target = torch.zeros(1, 1, 8, dtype=torch.int64)
    loss = ohem_cross_entropy(logits_of(PROBABILITIES), target, threshold=0.7, min_kept_share=1 / 8)
    assert loss.item() == pytest.approx(nll(0.1, 0.3, 0.5, 0.6), rel=1e-5)


def test_ohem_keeps_at_least_k_pixels():
    # k = 6: p_k = 0.9 > 0.7, so the six hardest pixels stay.
    target = torch.zeros(1, 1, 8, dtype=torch.int64)
    loss = ohem_cross_entropy(logits_of(PROBABILITIES), target, threshold=0.7, min_kept_share=6 / 8)
    assert loss.item() == pytest.approx(nll(0.1, 0.3, 0.5, 0.6, 0.8, 0.9), rel=1e-5)


def test_ohem_counts_k_over_all_pixels_and_keeps_all_valid_ones_when_there_are_fewer():
    # Four of eight pixels are ignored, k = 6 > 4 valid ones: all four stay, the easy ones too.
    target = torch.tensor([[[0, 255, 255, 255, 0, 255, 0, 0]]])
    loss = ohem_cross_entropy(logits_of(PROBABILITIES), target, threshold=0.7, min_kept_share=6 / 8)
    assert loss.item() == pytest.approx(nll(0.1, 0.8, 0.95, 0.99), rel=1e-5)


def test_ohem_with_class_weights_is_the_weighted_mean_of_the_kept_pixels():
    # True classes 0,1,0,1: their probabilities are 0.1, 0.7, 0.5, 0.4; at threshold 0.65 the second is dropped.
    target = torch.tensor([[[0, 1, 0, 1]]])
    loss = ohem_cross_entropy(
        logits_of([0.1, 0.3, 0.5, 0.6]),
        target,
        threshold=0.65,
        min_kept_share=0.25,
        class_weights=torch.tensor([1.0, 3.0]),
    )
    expected = (-math.log(0.1) - math.log(0.5) - 3 * math.log(0.4)) / (1 + 1 + 3)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def reference_ohem(logits: np.ndarray, target: np.ndarray, threshold: float, share: float) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    truths = [p[b, target[b, y, x], y, x] for b, y, x in np.argwhere(target != 255)]
    if not truths:
        return 0.0
    truths = np.sort(np.asarray(truths))
    k = max(1, int(share * target.size))
    bound = truths[-1] if len(truths) < k else max(threshold, truths[k - 1])
    return float(-np.log(truths[truths <= bound]).mean())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), ignored=st.floats(0, 1), share=st.floats(0.02, 0.9), scale=st.floats(0.1, 8))
def test_ohem_agrees_with_a_loop_over_pixels(seed: int, ignored: float, share: float, scale: float):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (2, 4, 5, 6))
    target = rng.integers(0, 4, (2, 5, 6))
    target[rng.random(target.shape) < ignored] = 255
    loss = ohem_cross_entropy(torch.tensor(logits).float(), torch.tensor(target), min_kept_share=share)
    assert loss.item() == pytest.approx(reference_ohem(logits, target, 0.7, share), rel=1e-3, abs=1e-6)


def test_ohem_without_a_valid_pixel_is_zero_with_a_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = ohem_cross_entropy(logits, torch.full((2, 4, 4), 255), class_weights=torch.ones(3))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_ohem_gradient_is_that_of_cross_entropy_on_the_kept_pixels():
    target = torch.zeros(1, 1, 8, dtype=torch.int64)
    logits = logits_of(PROBABILITIES).requires_grad_()
    ohem_cross_entropy(logits, target, threshold=0.7, min_kept_share=1 / 8).backward()
    assert logits.grad is not None
    expected = torch.tensor([(p - 1) / 4 if p <= 0.7 else 0.0 for p in PROBABILITIES])
    torch.testing.assert_close(logits.grad[0, 0, 0], expected)


def test_supervised_loss_is_the_mean_over_heads():
    target = torch.zeros(1, 1, 8, dtype=torch.int64)
    heads = [logits_of([p] * 8) for p in (0.5, 0.25, 0.125)]
    assert supervised_loss(heads, target).item() == pytest.approx((nll(0.5) + nll(0.25) + nll(0.125)) / 3, rel=1e-5)


def test_pseudo_labels_carry_no_gradient():
    confidence, label = pseudo_labels(logits_of([0.9, 0.2]).requires_grad_())
    torch.testing.assert_close(confidence, torch.tensor([[[0.9, 0.8]]]))
    assert label.tolist() == [[[0, 1]]]
    assert not confidence.requires_grad


def test_confidence_mask_fixed_and_class_wise():
    confidence = torch.tensor([[[0.5, 0.5, 0.8, 0.25]]])
    pseudo = torch.tensor([[[0, 1, 0, 1]]])
    assert confidence_mask(confidence, pseudo, 0.5).tolist() == [[[True, True, True, False]]]
    thresholds = class_thresholds(torch.tensor([0.75, 0.5]), 1.0)
    assert confidence_mask(confidence, pseudo, thresholds).tolist() == [[[False, True, True, False]]]
    halved = class_thresholds(torch.tensor([0.75, 0.5]), 0.5)
    assert confidence_mask(confidence, pseudo, halved).tolist() == [[[True, True, True, True]]]


def test_unlabelled_loss_divides_by_the_pixels_that_are_not_padding():
    # Pixels: confident, confident padding, not confident, confident. Three are not padding, two of them count.
    logits = logits_of([0.9, 0.9, 0.6, 0.2])
    confidence, pseudo = pseudo_labels(logits)
    valid = torch.tensor([[[True, False, True, True]]])
    loss = unlabelled_cross_entropy(logits, pseudo, confidence, valid, thresholds=0.7)
    assert loss.item() == pytest.approx((-math.log(0.9) - math.log(0.8)) / 3, rel=1e-5)


def test_unlabelled_loss_over_padding_alone_is_zero_with_a_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    confidence, pseudo = pseudo_labels(logits)
    loss = unlabelled_cross_entropy(logits, pseudo, confidence, torch.zeros(1, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()
