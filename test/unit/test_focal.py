from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ssada_core.learning.focal import ThresholdState, focal_loss, focal_map, hardest_mean


def logits(*rows: tuple[float, ...]) -> Tensor:
    """Logits ``[1,C,1,len(rows)]`` of pixels with these probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log().T[None, :, None, :].clone()


@pytest.mark.parametrize(("kind", "difficulty"), [(1, (1 - 0.6) ** 2), (2, (0.9 - 0.6) ** 2)])
def test_the_loss_of_a_pixel_by_hand(kind: int, difficulty: float):
    value = focal_map(logits((0.9, 0.1)), logits((0.6, 0.4)), gamma=2.0, kind=kind)
    assert value.shape == (1, 1, 1)
    # log p and H(p) cancel in the value; they differ in what has a gradient.
    assert value.item() == pytest.approx(-difficulty * (0.9 * math.log(0.6) + 0.1 * math.log(0.4)), rel=1e-5)


def test_gamma_is_the_exponent():
    value = focal_map(logits((0.2, 0.8)), logits((0.5, 0.5)), gamma=3.0)
    assert value.item() == pytest.approx(0.5**3 * math.log(2), rel=1e-5)


@pytest.mark.parametrize("kind", [1, 2])
def test_the_plain_view_learns_through_its_entropy_alone(kind: int):
    torch.manual_seed(0)
    plain = torch.randn(2, 3, 4, 5, requires_grad=True)
    focal_map(plain, torch.randn(2, 3, 4, 5), kind=kind).sum().backward()
    log_p = torch.log_softmax(plain.detach(), 1)
    entropy = -(log_p.exp() * log_p).sum(1, keepdim=True)
    # dH/dz_i = -p_i (log p_i + H)
    torch.testing.assert_close(plain.grad, -log_p.exp() * (log_p + entropy), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", [1, 2])
def test_the_augmented_view_learns_through_q_and_d(kind: int):
    plain, start = np.array([2.0, 0.5, -1.0]), np.array([0.3, 0.1, -0.2])

    def value(z: np.ndarray) -> float:
        p, q = np.exp(plain) / np.exp(plain).sum(), np.exp(z) / np.exp(z).sum()
        difficulty = abs((1.0 if kind == 1 else p[0]) - q[0]) ** 2
        return float(-difficulty * (p * np.log(q)).sum())

    expected = [(value(start + step) - value(start - step)) / 2e-5 for step in np.eye(3) * 1e-5]
    augmented = torch.tensor(start, dtype=torch.float32)[None, :, None, None].requires_grad_()
    focal_map(torch.tensor(plain)[None, :, None, None], augmented, kind=kind).sum().backward()
    np.testing.assert_allclose(augmented.grad.flatten(), expected, rtol=1e-3, atol=1e-5)


def test_the_hardest_share_of_the_kept_pixels_is_averaged():
    loss = torch.tensor([1.0, 9.0, 3.0, 4.0, 2.0, 100.0], requires_grad=True)
    keep = torch.tensor([True, True, True, True, True, False])
    value = hardest_mean(loss, keep, 0.5)  # 2 of 5
    assert value.item() == (9 + 4) / 2
    value.backward()
    assert loss.grad.tolist() == [0, 0.5, 0, 0.5, 0, 0]
    assert hardest_mean(loss, keep, 0.01).item() == 9
    assert hardest_mean(loss, keep, 1.0).item() == pytest.approx(19 / 5)


def test_only_confident_valid_pixels_count_and_heads_are_averaged():
    plain = logits((0.9, 0.1), (0.8, 0.2), (0.7, 0.3), (0.95, 0.05))
    augmented = logits((0.6, 0.4), (0.5, 0.5), (0.1, 0.9), (0.1, 0.9))
    valid = torch.tensor([[[True, True, True, False]]])
    first = focal_map(plain, augmented)[0, 0]
    both = focal_loss([plain], [augmented], valid, threshold=0.75, ohem_ratio=1.0)
    assert both.item() == pytest.approx((first[0] + first[1]).item() / 2)
    at_the_threshold = focal_loss([plain.float()], [augmented], valid, threshold=torch.tensor([0.85, 0.0]))
    assert at_the_threshold.item() == pytest.approx(first[0].item())
    swapped = focal_loss([plain], [plain], valid, threshold=0.75, ohem_ratio=1.0)
    heads = focal_loss([plain, plain], [augmented, plain], valid, threshold=0.75, ohem_ratio=1.0)
    assert heads.item() == pytest.approx((both + swapped).item() / 2)


@pytest.mark.parametrize("valid", [True, False])
def test_no_pixel_gives_nought_with_a_gradient(valid: bool):
    plain, augmented = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = focal_loss([plain], [augmented], torch.full((1, 4, 4), valid), threshold=0.9999)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(plain.grad, torch.zeros_like(plain))
    assert torch.equal(augmented.grad, torch.zeros_like(augmented))


def test_certain_predictions_are_finite():
    plain = torch.tensor([1000.0, -1000.0])[None, :, None, None].requires_grad_()
    augmented = torch.tensor([-1000.0, 1000.0])[None, :, None, None].requires_grad_()
    focal_loss([plain], [augmented], torch.ones(1, 1, 1, dtype=torch.bool)).backward()
    assert plain.grad.isfinite().all()
    assert augmented.grad.isfinite().all()


def test_thresholds_move_as_the_formula_says():
    state = ThresholdState(torch.full((3,), 0.8))
    confidence = torch.tensor([[[0.95, 0.5, 0.7, 0.9, 0.6, 0.99, 0.85, 0.3, 0.75, 0.65, 0.4, 0.55, 0.45, 0.35]]])
    label = torch.tensor([[[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]]])
    valid = torch.tensor([[[True] * 13 + [False]]])
    state.update(confidence, label, valid)
    # Class 0: position floor(0.8 * 0.8^8 * 12) = floor(1.61) = 1 of 0.99, 0.95, ...; class 1: one pixel, position 0.
    expected = [0.9 * 0.8 + 0.1 * 0.95, 0.9 * 0.8 + 0.1 * 0.45, 0.8]
    assert state.values.tolist() == pytest.approx(expected)


def test_thresholds_agree_with_a_plain_reading_of_the_method():
    torch.manual_seed(1)
    state = ThresholdState(torch.tensor([0.8, 0.95, 0.6, 0.9]), a=0.7, b=0.9, d=2.0, cap=0.93)
    confidence, label = torch.rand(2, 9, 11), torch.randint(0, 3, (2, 9, 11))
    valid = torch.rand(2, 9, 11) < 0.8
    expected = state.values.tolist()
    for c in range(4):
        values = sorted(confidence[valid & (label == c)].tolist(), reverse=True)
        if values:
            t = values[int(0.9 * expected[c] ** 2.0 * len(values))]
            expected[c] = min(0.93, 0.7 * expected[c] + 0.3 * t)
    state.update(confidence, label, valid)
    assert state.values.tolist() == pytest.approx(expected)


def test_thresholds_are_capped():
    state = ThresholdState(torch.full((1,), 0.9985))
    for _ in range(50):
        state.update(
            torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64), torch.ones(1, 2, 2, dtype=torch.bool)
        )
    assert state.values.item() == pytest.approx(0.999)
