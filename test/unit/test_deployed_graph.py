from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fixtures import lively_network
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssada_core.inference.convert import export_onnx
from ssada_core.inference.graph import OUTPUT_NAMES, DeployedGraph, enlarge, mean_log, pixel_statistics
from ssada_core.networks.blocks import upsample
from ssada_core.networks.settings import NetworkSettings

SETTINGS = NetworkSettings(input_height=64, input_width=96)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def reference(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arg max, largest probability, entropy, by the definitions and in float64."""
    z = logits.astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)
    return z.argmax(axis=1), p.max(axis=1), -terms.sum(axis=1)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)),
        elements=st.floats(-80, 80, width=32),
    )
)
def test_pixel_statistics_are_the_definitions(logits: np.ndarray) -> None:
    label, probability, entropy = (part.numpy() for part in pixel_statistics(torch.from_numpy(logits)))
    expected_label, expected_probability, expected_entropy = reference(logits)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, expected_label)
    np.testing.assert_allclose(probability, expected_probability, rtol=1e-5)
    np.testing.assert_allclose(entropy, expected_entropy, atol=2e-5)


def test_hand_computed_pixel() -> None:
    logits = torch.log(torch.tensor([0.2, 0.5, 0.3])).view(1, 3, 1, 1) + 7.0
    label, probability, entropy = pixel_statistics(logits)
    assert label.item() == 1
    assert probability.item() == pytest.approx(0.5, abs=1e-6)
    assert entropy.item() == pytest.approx(-(0.2 * math.log(0.2) + 0.5 * math.log(0.5) + 0.3 * math.log(0.3)), abs=1e-6)


def test_of_equal_logits_the_lowest_class_wins() -> None:
    assert pixel_statistics(torch.zeros(1, 4, 1, 1))[0].item() == 0


@pytest.mark.parametrize(
    ("small", "factor", "size"), [((3, 4), 8, (24, 32)), ((3, 4), 8, (18, 25)), ((5, 2), 2, (9, 3))]
)
def test_enlarging_is_bilinear_interpolation(small: tuple[int, int], factor: int, size: tuple[int, int]) -> None:
    logits = torch.randn(2, 3, *small, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(enlarge(logits, factor, size), upsample(logits, factor, size), atol=1e-5, rtol=1e-5)
    assert enlarge(logits, 1, small) is not None
    torch.testing.assert_close(enlarge(logits, 1, (2, 2)), logits[..., :2, :2])


@pytest.mark.parametrize("shape", [(2, 32, 48), (1, 7, 5), (1, 6, 5), (3, 1, 1)])
@pytest.mark.parametrize("highest", [11.0, 255.0])
def test_mean_of_logarithms(shape: tuple[int, int, int], highest: float) -> None:
    values = 1 + (highest - 1) * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_log(values, highest), values.double().log().mean(dim=(1, 2)).float())
    full = torch.full(shape, highest)
    assert torch.isfinite(mean_log(full, highest)).all()


def test_graph_is_the_network_on_normalised_rgb() -> None:
    network = lively_network(SETTINGS)
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    rgb = (frames[..., ::-1] / 255.0 - MEAN) / STD
    with torch.no_grad():
        x = torch.from_numpy(rgb.transpose(0, 3, 1, 2).astype(np.float32))
        logits, features = network.forward_with_features(x)
        output = DeployedGraph(network)(torch.from_numpy(frames))
    label, probability, entropy = reference(logits.numpy())
    assert output.label.shape == (2, 64, 96)
    assert output.label.dtype == output.confidence.dtype == torch.uint8
    assert len(np.unique(label)) > 3, "the network must say something"
    assert np.mean(output.label.numpy() == label) > 0.9999
    assert np.abs(output.confidence.numpy() - 255 * probability).max() <= 0.51
    np.testing.assert_allclose(output.uncertainty.numpy(), entropy.mean(axis=(1, 2)) / math.log(11), rtol=1e-4)
    torch.testing.assert_close(output.features, features, atol=1e-4, rtol=1e-4)


def test_colour_order_matters() -> None:
    graph = DeployedGraph(lively_network(SETTINGS))
    blue = torch.zeros((1, 64, 96, 3), dtype=torch.uint8)
    blue[..., 0] = 255
    with torch.no_grad():
        assert (graph(blue).features - graph(blue.flip(-1)).features).abs().max() > 1e-3


def test_own_mean_and_deviation_are_used() -> None:
    network = lively_network(SETTINGS)
    graph = DeployedGraph(network, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    frames = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    x = frames.numpy()[..., ::-1] / 255.0
    x = (x - np.array([0.0, 0.5, 1.0])) / np.array([1.0, 0.5, 0.25])
    with torch.no_grad():
        features = network.forward_with_features(torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32)))[1]
        torch.testing.assert_close(graph(frames).features, features, atol=1e-4, rtol=1e-4)


def test_graph_is_deterministic_and_in_evaluation() -> None:
    network = lively_network(SETTINGS)
    network.train()
    graph = DeployedGraph(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    frames = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        one, two = graph(frames), graph(frames)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in before.items())


@pytest.mark.parametrize("size", [(64, 96), (90, 100)])
def test_onnx_file_answers_as_torch(tmp_path: Path, size: tuple[int, int]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    settings = NetworkSettings(input_height=size[0], input_width=size[1])
    network = lively_network(settings)
    path = tmp_path / "model.onnx"
    export_onnx(network, settings, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert tuple(output.name for output in session.get_outputs()) == OUTPUT_NAMES
    assert session.get_inputs()[0].shape == [1, *size, 3]
    frames = np.random.default_rng(1).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    label, confidence, uncertainty, features = session.run(None, {"frames": frames})
    with torch.no_grad():
        expected = DeployedGraph(network)(torch.from_numpy(frames))
    assert label.dtype == confidence.dtype == np.uint8
    assert np.mean(label == expected.label.numpy()) > 0.999
    assert np.abs(confidence.astype(int) - expected.confidence.numpy()).max() <= 1
    np.testing.assert_allclose(uncertainty, expected.uncertainty.numpy(), rtol=1e-3)
    np.testing.assert_allclose(features, expected.features.numpy(), atol=1e-3)
