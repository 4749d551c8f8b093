"""Model directories for the tests of the inference room."""

from __future__ import annotations

from pathlib import Path

import torch

from ssada_core.labels import CAMVID
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings
from ssada_core.networks.weights import weights_bytes
from ssada_core.store.manifest import MANIFEST_FILE, WEIGHTS_FILE, ModelManifest


def lively_network(settings: NetworkSettings, seed: int = 0) -> SegmentationNetwork:
    """A network whose logits differ from pixel to pixel and favour several classes."""
    torch.manual_seed(seed)
    network = build_network(settings, CAMVID.num_classes, pretrained=settings.backbone == "efficientnet_lite0")
    network.train()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):  # running statistics that fit the weights
        network.train_forward(torch.randn(2, 3, 96, 128, generator=generator))
    return network.eval()


def write_model(folder: Path, settings: NetworkSettings, *, seed: int = 0) -> Path:
    """A complete model directory, not yet deployed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(weights_bytes(lively_network(settings, seed), half=True))
    manifest = ModelManifest(
        version="test-1", created="2026-01-01T00:00:00Z", network=settings, label_space=CAMVID.to_dict()
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    return folder
