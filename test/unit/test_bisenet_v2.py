from __future__ import annotations

from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from engine_fixtures import write_model
from torch import nn

from ssada_core.errors import ModelError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import deploy
from ssada_core.inference.load import load_engine, read_model
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.build import build_network
from ssada_core.networks.cost import flops, parameters
from ssada_core.networks.settings import NetworkSettings

CLASSES = 5
V2 = NetworkSettings(architecture="bisenet_v2", input_height=96, input_width=128)


def network(seed: int = 0) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return build_network(V2, CLASSES, pretrained=False)


@pytest.mark.parametrize("size", [(90, 120), (100, 150), (32, 32), (33, 65), (1, 1)])
def test_logits_have_the_input_size(size: tuple[int, int]) -> None:
    net = network().eval()
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        logits, features = net.forward_with_features(x)
        assert logits.shape == (1, CLASSES, *size)
        assert features.shape == (1, net.feature_size)
        torch.testing.assert_close(net(x), logits)


def test_strides_and_channels_are_those_of_the_paper() -> None:
    net = network().eval()
    shapes = {}
    for name in ("detail", "semantic.stem", "semantic.stage3", "semantic.stage4", "semantic.stage5", "aggregation"):
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: out.shape}))
    with torch.no_grad():
        net(torch.randn(1, 3, 64, 96))
    assert shapes == {
        "detail": (1, 128, 8, 12),
        "semantic.stem": (1, 16, 16, 24),
        "semantic.stage3": (1, 32, 8, 12),
        "semantic.stage4": (1, 64, 4, 6),
        "semantic.stage5": (1, 128, 2, 3),
        "aggregation": (1, 128, 8, 12),
    }


def test_gradients_reach_every_parameter_through_four_boosters() -> None:
    net = network()
    x = torch.randn(2, 3, 64, 70)
    out = net.train_forward(x, perturb=True)
    assert [tuple(a.shape) for a in out.auxiliary] == [(2, CLASSES, 64, 70)] * 4
    assert out.perturbed is not None
    total = out.logits.square().mean() + out.perturbed.square().mean() + sum(a.square().mean() for a in out.auxiliary)
    total.backward()
    without = {n for n, p in net.named_parameters() if p.grad is None or not torch.any(p.grad != 0)}
    # This shift goes through a convolution into a batch norm, whose learning statistics take it out again.
    assert without <= {"semantic.context.norm.bias"}


def test_half_of_the_aggregations_input_channels_are_dropped_per_image() -> None:
    net = network()
    seen: list[tuple[torch.Tensor, ...]] = []
    net.get_submodule("aggregation").register_forward_hook(lambda _m, inputs, _o: seen.append(inputs))
    out = net.train_forward(torch.randn(4, 3, 64, 64), perturb=slice(2, 4))
    ((detail, semantic),) = seen
    assert out.logits.shape[0] == 4
    assert out.perturbed is not None
    assert out.perturbed.shape[0] == 2
    for path in (detail, semantic):
        clean, dropped = path[2:4], path[4:]
        zero = (dropped == 0).all(dim=(2, 3))
        assert 0.3 < zero.float().mean() < 0.7
        torch.testing.assert_close(dropped[~zero], 2 * clean[~zero])
        assert not torch.equal(zero[0], zero[1])


def test_branches_run_once_and_parts_cost_only_what_they_hold() -> None:
    net = network()
    batches: dict[str, list[int]] = {}
    for name in ("detail", "semantic", "aggregation", "head", "boosters.0", "boosters.3"):
        net.get_submodule(name).register_forward_hook(
            lambda _m, inputs, _o, name=name: batches.setdefault(name, []).append(inputs[0].shape[0])
        )
    net.train_forward(torch.randn(5, 3, 64, 64), perturb=slice(3, 5), auxiliary=slice(0, 3))
    assert batches == {
        "detail": [5], "semantic": [5], "aggregation": [7], "head": [7], "boosters.0": [3], "boosters.3": [3],
    }  # fmt: skip
    batches.clear()
    out = net.train_forward(torch.randn(5, 3, 64, 64), auxiliary=False)
    assert batches == {"detail": [5], "semantic": [5], "aggregation": [5], "head": [5]}
    assert (out.perturbed, out.auxiliary) == (None, ())


def test_the_branches_learn_at_the_base_rate_and_the_rest_faster() -> None:
    net = network()
    slow = {id(p) for p in net.backbone_parameters()}
    named = {name: id(p) in slow for name, p in net.named_parameters()}
    assert all(is_slow == name.startswith(("detail.", "semantic.")) for name, is_slow in named.items())
    assert {id(p) for p in net.head_parameters()} == {id(p) for p in net.parameters()} - slow


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    net = network()
    with pytest.raises(ModelError, match="batch of 1 image"):
        net.train_forward(torch.randn(1, 3, 64, 64))
    net.freeze_batch_norm()
    net.eval().train()
    norms = {n: m.running_mean.clone() for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    net.train_forward(torch.randn(1, 3, 64, 64) + 3)
    assert all(torch.equal(mean, net.get_submodule(name).running_mean) for name, mean in norms.items())
    net.freeze_batch_norm(False)
    net.train_forward(torch.randn(2, 3, 64, 64) + 3)
    assert not any(torch.equal(mean, net.get_submodule(name).running_mean) for name, mean in norms.items())


def test_flops_and_parameters_of_a_convolution_by_hand() -> None:
    conv = nn.Conv2d(3, 7, 5, stride=2, padding=2)
    conv.train()
    assert parameters(conv) == 3 * 7 * 25 + 7
    assert flops(conv, (12, 20)) == 2 * 3 * 25 * 7 * 6 * 10
    assert conv.training


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("v2") / "model", V2)
    deploy(folder, targets=("onnx-fp32",))
    return folder


def test_onnxruntime_answers_as_torch(deployed: Path) -> None:
    pytest.importorskip("onnxruntime")
    generator = np.random.default_rng(3)
    coarse = generator.integers(0, 256, (4, 12, 16, 3), dtype=np.uint8)
    frames = [cv2.resize(small, (128, 96), interpolation=cv2.INTER_CUBIC) for small in coarse]
    answers = []
    for backend in ("torch", "onnxruntime"):
        chosen = EngineSettings(backend=backend, threads=1, output_size="network")
        with closing(load_engine(deployed, chosen)) as engine:
            answers.append(engine.infer(frames, features=True))
    equal = [np.mean(ours.label == theirs.label) for theirs, ours in zip(*answers, strict=True)]
    assert len(np.unique(answers[0][0].label)) > 2
    assert np.mean(equal) >= 0.999
    for theirs, ours in zip(*answers, strict=True):
        np.testing.assert_allclose(ours.features, theirs.features, atol=1e-3)


def test_a_manifest_brings_the_network_back(deployed: Path) -> None:
    network, manifest = read_model(deployed)
    assert type(network).__name__ == "BiSeNetV2"
    assert manifest.network == V2
