"""A process that adds, promotes and rolls back models until somebody kills it. Says what is current."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ssada_core.labels import CAMVID
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.registry import ModelRegistry, RegistrySettings

KEEP = RegistrySettings(keep=4)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def deploy(folder: Path) -> None:
    for name in ("onnx-fp32/model.onnx", "openvino-fp32/model.xml"):
        path = folder / "deploy" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode() * 1000)


def main(root: str, seed: int) -> None:
    rng = random.Random(seed)
    registry = ModelRegistry(root, KEEP)
    say("open")
    while True:
        manifest = ModelManifest(version="", created="", network=NetworkSettings(), label_space=CAMVID.to_dict())
        version = registry.add({"weight": torch.full((64, 64), rng.random())}, manifest, deploy)
        registry.promote(version, {"verdict": "promote", "gain": rng.random()})
        say(f"current {version}")
        if rng.random() < 0.3 and len(registry.history()) > 2:
            say(f"current {registry.rollback('asked')}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
