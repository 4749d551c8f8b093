from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from engine_fixtures import write_model

from ssada_core.errors import ConfigError, ModelError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import deploy
from ssada_core.inference.load import load_engine
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD, NetworkSettings
from ssada_core.networks.timm_backbone import TimmBackbone
from ssada_core.settings import parse_settings

# depthwise with squeeze and excitation, plain residual, and one whose first stage lies elsewhere
NAMES = ("mobilenetv3_large_100", "resnet10t", "convnext_atto")


@pytest.mark.parametrize("name", NAMES)
def test_features_lie_at_the_three_scales(name: str) -> None:
    backbone = TimmBackbone(name, pretrained=False).eval()
    with torch.no_grad():
        found = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(f.shape[2:]) for f in found] == [(8, 12), (4, 6), (2, 3)]
    assert tuple(f.shape[1] for f in found) == backbone.channels


def test_features_are_the_models_own() -> None:
    backbone = TimmBackbone("resnet10t", pretrained=False).eval()
    whole = timm.create_model("resnet10t", pretrained=False).eval()
    whole.load_state_dict(backbone.net.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[-1], whole.forward_features(x))


def test_the_network_learns_and_any_size_works() -> None:
    torch.manual_seed(0)
    net = build_network(NetworkSettings(backbone="timm:mobilenetv3_large_100"), 5, pretrained=False)
    out = net.train_forward(torch.randn(2, 3, 50, 70), perturb=True)
    assert out.logits.shape == (2, 5, 50, 70)
    assert out.perturbed is not None
    (out.logits.square().mean() + sum(a.square().mean() for a in out.auxiliary)).backward()
    assert any(torch.any(p.grad != 0) for p in net.backbone_parameters() if p.grad is not None)


def test_images_are_normalised_as_the_models_weights_want_them() -> None:
    name = "tf_mobilenetv3_small_minimal_100"
    config = timm.get_pretrained_cfg(name)
    assert tuple(config.mean) != IMAGENET_MEAN
    backbone = TimmBackbone(name, pretrained=False).eval()
    image = torch.rand(1, 3, 64, 64)

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)

    with torch.no_grad():
        found = backbone(normalised(IMAGENET_MEAN, IMAGENET_STD))
        expected = backbone.net(normalised(config.mean, config.std))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilenetv3_large_10", "did you mean 'mobilenetv3_large_100'"),
        ("vit_tiny_patch16_224", "no features at 1/8"),
        ("swin_tiny_patch4_window7_224", "no features at 1/8"),
        ("inception_v3", "no features at 1/8"),
        ("mobilenetv3_large_100.nowhere", "Invalid pretrained tag"),
    ],
)
def test_what_cannot_be_a_backbone_says_why(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_network(NetworkSettings(backbone=f"timm:{name}"), 5, pretrained=False)


def test_weights_that_cannot_be_downloaded_are_a_model_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be downloaded.*efficientnet_lite0"):
        TimmBackbone("mobilenetv3_large_100", pretrained=True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet81", "did you mean 'resnet18'"), ("timm:", "did you mean 'timm:name'"), ("mobilenetv3_large_100", "")],
)
def test_a_misspelt_backbone_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="no such backbone") as caught:
        parse_settings(NetworkSettings, {"backbone": name}, source="x.yaml")
    assert hint in str(caught.value)


def test_a_timm_model_is_deployed_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    settings = NetworkSettings(backbone="timm:mobilenetv3_large_100", input_height=64, input_width=96)
    folder = write_model(tmp_path / "model", settings)
    assert deploy(folder, targets=("onnx-fp32",)).targets[0].equal >= 0.999
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with closing(load_engine(folder, EngineSettings(backend="onnxruntime", threads=1))) as engine:
        assert engine.infer([frame])[0].label.shape == (64, 96)
