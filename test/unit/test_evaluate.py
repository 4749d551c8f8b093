from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from ssada_core.data.samples import ArraySamples
from ssada_core.errors import DataError, EngineError, LabelError
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.engine import Prediction
from ssada_core.labels import LabelSpace

SPACE = LabelSpace(name="three", classes=("a", "b", "c"), colors=((1, 1, 1), (2, 2, 2), (3, 3, 3)))


class BlueChannelEngine:
    """A real, exact segmenter of pictures whose blue channel holds the class."""

    backend = "blue"
    precision = "fp32"

    def __init__(self, input_size=(6, 8), network_size=False, uncertainty=0.25, answers=1):
        self.input_size = input_size
        self._network_size = network_size
        self._uncertainty = uncertainty
        self._answers = answers
        self.frames = 0

    def infer(self, frames, *, features=False):
        self.frames += len(frames)
        return [self._one(frame) for frame in frames] * self._answers

    def _one(self, frame):
        label = np.ascontiguousarray(frame[..., 0])
        if self._network_size:
            height, width = self.input_size
            label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return Prediction(label, np.full(label.shape, 255, np.uint8), self._uncertainty)

    def close(self):
        pass


def picture(label):
    return np.stack([label, label, label], axis=-1).astype(np.uint8)


@pytest.fixture
def frames():
    rng = np.random.default_rng(3)
    predicted = [rng.integers(0, 3, (6, 8)).astype(np.uint8) for _ in range(3)]
    truth = [label.copy() for label in predicted]
    truth[0][:3] = 255
    truth[1][0] = 2
    return predicted, truth


def test_matrices_are_per_frame_and_unlabelled_frames_are_skipped_and_counted(frames):
    predicted, truth = frames
    engine, seen = BlueChannelEngine(), []
    samples = ArraySamples([picture(p) for p in predicted], [truth[0], None, truth[1]], ["x", "y", "z"])
    # Frame z shows picture 2 but is labelled as picture 1, so most of it is wrong.
    result = evaluate(engine, samples, 3, on_progress=lambda done, total: seen.append((done, total)))
    assert result.names == ("x", "z")
    assert result.skipped == 1
    assert engine.frames == 2
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for matrix, guess, answer in zip(result.matrices, (predicted[0], predicted[2]), truth[:2], strict=True):
        for row in range(3):
            for column in range(3):
                assert matrix[row, column] == np.sum((answer == row) & (guess == column))
    np.testing.assert_array_equal(result.matrix, result.matrices[0] + result.matrices[1])
    assert result.histograms.sum(axis=1).tolist() == [48, 48]
    assert result.histograms[0].tolist() == [int(np.sum(predicted[0] == index)) for index in range(3)]
    assert result.latencies_s.shape == (2,)
    assert (result.latencies_s > 0).all()


def test_a_perfect_model_scores_100_and_its_summary_is_json(frames):
    predicted, _ = frames
    result = evaluate(BlueChannelEngine(), ArraySamples([picture(p) for p in predicted], predicted), 3)
    assert result.miou == 100.0
    assert result.pixel_accuracy == 100.0
    summary = json.loads(json.dumps(result.summary(SPACE), allow_nan=False))
    assert summary["iou"] == {"a": 100.0, "b": 100.0, "c": 100.0}
    assert summary["frames"] == 3
    assert summary["latency_ms"]["p99"] >= summary["latency_ms"]["p50"] > 0


def test_predictions_at_the_networks_size_are_compared_at_the_frames_size():
    truth = np.kron(np.arange(2, dtype=np.uint8).repeat(2).reshape(2, 2), np.ones((8, 8), np.uint8))
    result = evaluate(
        BlueChannelEngine(input_size=(2, 2), network_size=True), ArraySamples([picture(truth)], [truth]), 3
    )
    assert result.matrix.sum() == truth.size
    assert result.miou == 100.0


def test_nothing_to_evaluate_is_an_empty_evaluation_with_none_for_figures(frames):
    predicted, _ = frames
    result = evaluate(BlueChannelEngine(), ArraySamples([picture(p) for p in predicted]), 3)
    assert result.matrices.shape == (0, 3, 3)
    assert result.histograms.shape == (0, 3)
    assert result.skipped == 3
    assert result.summary(SPACE)["miou"] is None
    json.dumps(result.summary(SPACE), allow_nan=False)


def test_numbers_that_are_not_finite_are_seen(frames):
    predicted, _ = frames
    samples = ArraySamples([picture(p) for p in predicted], predicted)
    assert evaluate(BlueChannelEngine(), samples, 3).finite
    assert not evaluate(BlueChannelEngine(uncertainty=float("nan")), samples, 3).finite


def test_wrong_answers_and_wrong_labels_are_errors_that_say_so(frames):
    predicted, _ = frames
    samples = ArraySamples([picture(predicted[0])], [predicted[0]])
    with pytest.raises(EngineError, match="one frame with 2 predictions"):
        evaluate(BlueChannelEngine(answers=2), samples, 3)
    with pytest.raises(LabelError, match="class id 2"):
        evaluate(BlueChannelEngine(), samples, 2)

    class Misfit(ArraySamples):
        def label(self, index):
            return np.zeros((3, 3), np.uint8)

    with pytest.raises(DataError, match="3x3 but the image is 8x6"):
        evaluate(BlueChannelEngine(), Misfit([picture(predicted[0])]), 3)
