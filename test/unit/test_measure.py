"""Measurements of real models, and the gate's judgement of a challenger that was made worse on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adaptation_fixtures import DRIVE, ENGINE, NETWORK, SECOND, TRAINING

from ssada_core.adaptation.gate import GateSettings, decide
from ssada_core.adaptation.measure import CONFIDENT, LATENCY_ROUNDS, agreement, measure
from ssada_core.data.samples import ArraySamples
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.torch_engine import TorchEngine
from ssada_core.labels import CAMVID
from ssada_core.learning.loaders import TrainingData
from ssada_core.learning.trainer import Trainer
from ssada_core.networks.build import build_network

SIZE = (64, 96)


def frames(indices, domain="day"):
    drawn = [DRIVE.frame(index, domain) for index in indices]
    return ArraySamples([image for image, _ in drawn], [label for _, label in drawn])


def train(folder, network, labels, iterations):
    settings = TRAINING.model_copy(
        update={
            "iterations": iterations,
            "labelled_batch": 4,
            "unlabelled_batch": 0,
            "freeze_batch_norm": False,
            "learning_rate": 0.01,
            "checkpoint_every": 1000,
        }
    )
    data = TrainingData(labelled=labels)
    Trainer(network, data, settings, run_dir=folder).run()
    return network.eval()


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    """A model that has learned the day for some seconds."""
    torch.manual_seed(0)
    network = build_network(NETWORK, CAMVID.num_classes, pretrained=True)
    return train(tmp_path_factory.mktemp("champion"), network, frames(range(0, 200, 10)), 30)


def copy_of(network):
    twin = build_network(NETWORK, CAMVID.num_classes, pretrained=False)
    twin.load_state_dict(network.state_dict())
    return twin.eval()


def engine(network):
    return TorchEngine(network, SIZE, ENGINE)


def measured(champion, challenger, *, source=None, count=10):
    engines = {"champion": engine(champion), "challenger": engine(challenger)}
    return measure(
        {**engines, "first": engines["champion"]},
        audit=frames(range(5, 5 + 20 * count, 20)),
        stamps_ns=[20 * SECOND * index for index in range(count)],
        source=source,
        labelled=frames([1, 2]),
        num_classes=CAMVID.num_classes,
    )


def test_every_model_is_measured_on_every_frame(champion):
    source = frames([3, 4, 5])
    found = measured(champion, copy_of(champion), source=source, count=4)
    expected = evaluate(engine(champion), frames([5, 25, 45, 65]), CAMVID.num_classes)
    for model in (found.champion, found.challenger, found.first):
        np.testing.assert_array_equal(model.audit, expected.matrices)
        np.testing.assert_array_equal(model.histogram, expected.histograms.sum(0))
        assert model.source.shape == (3, 11, 11)
        assert model.latencies_s.shape == (LATENCY_ROUNDS,)
        assert model.latencies_s.min() > 0
        assert model.finite
    assert found.agreement is None, "the source frames themselves speak of forgetting"
    assert found.stamps_ns.tolist() == [0, 20 * SECOND, 40 * SECOND, 60 * SECOND]


def test_agreement_counts_the_first_models_confident_pixels(champion):
    other = shuffled_head(champion)
    sure = alike = 0
    audit, labelled = frames([1, 2]), frames([3])
    for samples in (audit, labelled):
        for index in range(len(samples)):
            (before,) = engine(champion).infer([samples.image(index)])
            (after,) = engine(other).infer([samples.image(index)])
            for old, new, confidence in zip(
                before.label.ravel(), after.label.ravel(), before.confidence.ravel(), strict=True
            ):
                if confidence / 255 >= CONFIDENT:
                    sure += 1
                    alike += old == new
    assert sure > 100
    share = agreement(engine(champion), engine(other), [audit, labelled])
    assert share == pytest.approx(alike / sure)
    assert share < 0.9
    assert agreement(engine(champion), engine(champion), [audit]) == 1.0
    assert agreement(engine(champion), engine(other), [frames([])]) is None


def shuffled_head(network):
    """The same network, whose last layer takes its inputs in another order."""
    twin = copy_of(network)
    weights = [p for name, p in twin.named_parameters() if p.ndim == 4 and p.shape[0] == CAMVID.num_classes]
    order = torch.randperm(CAMVID.num_classes, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for weight in weights:
            weight.copy_(weight[order])
    return twin


def test_a_challenger_with_shuffled_classes_is_refused_with_the_reason(champion):
    decision = decide(measured(champion, shuffled_head(champion)), GateSettings(), CAMVID)
    assert decision.verdict == "refuse"
    assert decision.gain < -5
    assert "the first model's confident pixels are answered alike" in decision.words
    assert f"({decision.gain:+.1f} points" in decision.words

    same = decide(measured(champion, copy_of(champion)), GateSettings(), CAMVID)
    assert (same.verdict, same.gain) == ("refuse", 0.0)
    assert "no gain to speak of" in same.words


@pytest.mark.slow
def test_a_round_on_shuffled_labels_is_refused(champion, tmp_path):
    truth = frames(range(0, 200, 10))
    order = np.random.default_rng(0).permutation(256)
    order[:11] = np.random.default_rng(1).permutation(11)
    wrong = ArraySamples(
        [truth.image(index) for index in range(len(truth))],
        [order[truth.label(index)].astype(np.uint8) for index in range(len(truth))],
    )
    challenger = train(tmp_path, copy_of(champion), wrong, 30)
    decision = decide(measured(champion, challenger), GateSettings(), CAMVID)
    assert decision.verdict == "refuse"
    assert decision.gain < -5
    assert "the target gets worse" in decision.words or "falls from the champion's" in decision.words
