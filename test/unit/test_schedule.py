from __future__ import annotations

import pytest
import torch
from learning_fixtures import TinyNetwork

from ssada_core.learning.schedule import (
    build_optimizer,
    learning_rate,
    set_learning_rate,
    teacher_decay,
    threshold_ratio,
    thresholds,
    unlabelled_weight,
    update_teacher,
)
from ssada_core.learning.settings import TrainingSettings
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings

SETTINGS = TrainingSettings(iterations=100, learning_rate=0.01, warmup_share=0.05)


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [
        (0, 0.01 * 1 / 5),
        (3, 0.01 * 4 / 5),
        (4, 0.01),
        (5, 0.01),
        (52, 0.01 * (1 - 47 / 95) ** 0.9),
        (99, 0.01 * (1 / 95) ** 0.9),
    ],
)
def test_the_learning_rate_warms_up_and_decays(iteration: int, expected: float):
    assert learning_rate(iteration, SETTINGS) == pytest.approx(expected)


def test_without_a_warm_up_the_first_rate_is_the_full_one():
    assert learning_rate(0, SETTINGS.model_copy(update={"warmup_share": 0.0})) == pytest.approx(0.01)


def test_one_iteration_is_a_schedule_too():
    assert learning_rate(0, TrainingSettings(iterations=1)) == pytest.approx(0.003)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_every_parameter_is_in_one_group_with_its_rate_and_decay(backbone: str):
    network = build_network(NetworkSettings(backbone=backbone), 11, pretrained=False)
    optimizer = build_optimizer(network, SETTINGS)
    set_learning_rate(optimizer, 0.002)
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(rate) == len(list(network.parameters()))
    backbone_ids = {id(p) for p in network.backbone_parameters()}
    assert 0 < len(backbone_ids) < len(rate)
    for name, parameter in network.named_parameters():
        lr, decay = rate[id(parameter)]
        assert lr == pytest.approx(0.002 if id(parameter) in backbone_ids else 0.02), name
        no_decay = name.endswith("bias") or parameter.ndim == 1
        assert decay == (0.0 if no_decay else 1e-4), name
    assert all(g["momentum"] == 0.9 for g in optimizer.param_groups)


def test_thresholds_by_mode():
    iou = torch.tensor([0.8, 0.4])
    fixed = SETTINGS.model_copy(update={"threshold": 0.3})
    assert thresholds(7, fixed, iou) == 0.3
    whole = SETTINGS.model_copy(update={"threshold_mode": "class"})
    assert threshold_ratio(99, whole) == 1.0
    torch.testing.assert_close(thresholds(99, whole, iou), iou)
    falling = SETTINGS.model_copy(update={"threshold_mode": "class_falling", "iterations": 101})
    assert [threshold_ratio(i, falling) for i in (0, 25, 100)] == pytest.approx([1.0, 0.75, 0.0])
    torch.testing.assert_close(thresholds(50, falling, iou), torch.tensor([0.4, 0.2]))


def test_the_unlabelled_loss_rises_to_its_weight():
    assert unlabelled_weight(0, SETTINGS) == 1.0, "the paper's: the same weight from the start"
    rising = SETTINGS.model_copy(update={"unlabelled_weight": 0.5, "unlabelled_ramp": 0.5})
    assert [unlabelled_weight(at, rising) for at in (0, 25, 50, 99)] == pytest.approx([0.0, 0.25, 0.5, 0.5])
    late = rising.model_copy(update={"unlabelled_start": 0.4})
    assert [unlabelled_weight(at, late) for at in (39, 40, 65, 90, 99)] == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.5])


def test_the_teachers_decay_warms_up():
    values = [teacher_decay(i, 0.999) for i in (0, 1, 9, 999, 5000)]
    assert values == pytest.approx([0.0, 0.5, 0.9, 0.999, 0.999])


def test_the_teacher_follows_weights_statistics_and_counters():
    torch.manual_seed(0)
    teacher, student = TinyNetwork(3), TinyNetwork(3)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student.train()(torch.randn(2, 3, 16, 16))  # moves the running statistics
    update_teacher(teacher, student, 0.75)
    for name, value in teacher.state_dict().items():
        target = student.state_dict()[name]
        expected = 0.75 * before[name] + 0.25 * target if value.is_floating_point() else target
        torch.testing.assert_close(value, expected, msg=name)
    update_teacher(teacher, student, 0.0)
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, student.state_dict()[name], msg=name)
