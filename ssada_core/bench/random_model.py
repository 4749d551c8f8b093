"""Networks without a training, for measuring speed where no weights are at hand."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ssada_core.errors import ConfigError
from ssada_core.labels import CAMVID
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings
from ssada_core.networks.weights import weights_bytes
from ssada_core.settings import parse_settings
from ssada_core.store.files import write_atomic
from ssada_core.store.manifest import WEIGHTS_FILE, ModelManifest
from ssada_core.store.model_files import seal

PREFIX = "random:"
_FORM = re.compile(r"random:(?P<architecture>[a-z0-9_]+)(-(?P<backbone>[A-Za-z0-9_:.]+))?")
_PASSES = 3
_BATCH = (2, 3, 128, 192)


def write_random_model(reference: str, folder: Path, size: tuple[int, int]) -> None:
    """Write a model directory with seeded random weights, CamVid's classes.

    Batch norm learns its statistics from a few batches of noise, so that activations have the range of a trained
    network's: otherwise they would overflow or vanish, and quantising them would be another task.

    Args:
        reference: ``random:bisenet_v1-resnet18``, ``random:bisenet_v2``.
        folder: to be made.
        size: height and width at which it runs.

    Raises:
        ConfigError: if there is no such network.
    """
    found = _FORM.fullmatch(reference)
    if found is None:
        raise ConfigError(
            f"'{reference}' is no network: write {PREFIX}ARCHITECTURE-BACKBONE, {PREFIX}bisenet_v1-resnet18"
        )
    named = {key: value for key, value in found.groupdict().items() if value}
    values = {**named, "input_height": size[0], "input_width": size[1]}
    settings = parse_settings(NetworkSettings, values, source=reference)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(settings, CAMVID.num_classes, pretrained=False).train()
        with torch.no_grad():
            for _ in range(_PASSES):
                network.train_forward(torch.randn(_BATCH))
    folder.mkdir(parents=True)
    write_atomic(folder / WEIGHTS_FILE, weights_bytes(network.eval(), half=True))
    seal(folder, ModelManifest(version=reference, created="", network=settings, label_space=CAMVID.to_dict()))
