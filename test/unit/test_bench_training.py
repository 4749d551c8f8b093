"""The comparison is fair: both steps have the same loss and the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from learning_fixtures import drive, tiny

from ssada_core.bench.timing import interleaved, torch_threads
from ssada_core.bench.training import TrainingBench, full_batch, run_training_bench, straightforward_loss
from ssada_core.errors import ConfigError
from ssada_core.learning.batches import Batch
from ssada_core.learning.loaders import BatchMaker, TrainingData
from ssada_core.learning.settings import TrainingSettings
from ssada_core.learning.step import ssada_step

SETTINGS = TrainingSettings(crop_height=32, crop_width=32)


def test_both_steps_compute_the_same_loss_and_gradients():
    batch = BatchMaker(TrainingData(drive(4, seed=1), drive(4, seed=2), drive(4, seed=3)), SETTINGS).batch(1)
    assert len(batch.unlabelled.other) > 0
    networks = [tiny(), copy.deepcopy(tiny())]
    for network in networks:
        network.dropout.p = 0.0  # else the two draw different channels
        network.freeze_batch_norm()
    losses = ssada_step(networks[0], batch, SETTINGS).loss, straightforward_loss(networks[1], batch, SETTINGS)
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for ours, naive in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, naive.grad)


def test_the_comparison_needs_all_three_parts():
    with pytest.raises(ConfigError, match="no batch size may be 0"):
        straightforward_loss(tiny(), Batch(None, None, None), SETTINGS)


def test_every_unlabelled_crop_of_the_batch_is_mixed():
    batch = full_batch(SETTINGS)
    assert [len(part) for part in (batch.source.images, batch.labelled.images, batch.unlabelled.weak)] == [2, 2, 2]
    assert len(batch.unlabelled.other) == 2


def test_the_figures_are_named_and_belong_together():
    told = []
    threads = torch.get_num_threads()
    figures = run_training_bench(
        TrainingBench(crop=32, backbone="resnet18", rounds=2), on_round=lambda done, total: told.append((done, total))
    )
    assert torch.get_num_threads() == threads
    assert told == [(1, 2), (2, 2)]
    assert figures["ratio"] == pytest.approx(figures["step_seconds"] / figures["naive_step_seconds"])
    assert figures["cpu_ratio"] == pytest.approx(figures["step_cpu_seconds"] / figures["naive_step_cpu_seconds"])
    assert figures["accepted"] == (figures["ratio"] <= figures["limit"])


def test_candidates_take_turns_and_warm_ups_do_not_count():
    order = []
    with torch_threads(1):
        times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warm_up=2)
    assert order == ["a", "b"] * 5
    assert [len(times[name].wall) for name in "ab"] == [3, 3]
    assert times["a"].wall_median == sorted(times["a"].wall)[1]
    assert times["b"].cpu_median == sorted(times["b"].cpu)[1]
