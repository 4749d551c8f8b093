"""One of the processes that ``torchrun`` starts for the tests: ``distributed_child.py FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from learning_child import tiny_data
from learning_fixtures import drive, tiny
from safetensors.torch import save_file

from ssada_core.learning.batches import Batch, LabelledCrops
from ssada_core.learning.budget import Part
from ssada_core.learning.distributed import World, joined_world
from ssada_core.learning.loaders import BatchMaker
from ssada_core.learning.reveals import LabelReveals, Target
from ssada_core.learning.settings import AcquisitionSettings, TrainingSettings
from ssada_core.learning.trainer import Trainer

SETTINGS = TrainingSettings(iterations=8, crop_height=32, crop_width=32, learning_rate=0.02, checkpoint_every=3)
PLAIN = SETTINGS.model_copy(update={"ohem_threshold": 1.0, "scale_min": 1.0, "scale_max": 1.2, "unlabelled_batch": 0})
"""Plain cross-entropy on crops without padding: every process has as many valid pixels."""


def gradients(folder: Path, world: World) -> dict[str, torch.Tensor]:
    """Gradients of one step on this process's part of a batch of four plus four crops."""
    double = PLAIN.model_copy(update={"source_batch": 4, "labelled_batch": 4})
    batch = BatchMaker(tiny_data(), double).batch(0)
    own = slice(world.rank * 4 // world.size, (world.rank + 1) * 4 // world.size)

    def part(crops: LabelledCrops) -> LabelledCrops:
        assert bool((crops.labels != 255).all())
        return LabelledCrops(crops.images[own], crops.labels[own])

    trainer = Trainer(tiny(), tiny_data(), PLAIN, run_dir=folder, world=world)
    module = trainer._distributed()
    loss, _ = module(0, Batch(part(batch.source), part(batch.labelled), None))
    loss.backward()
    return {name: value.grad.contiguous() for name, value in trainer.network.named_parameters()}


def train(folder: Path, world: World, settings: TrainingSettings, **options: object) -> int:
    """Train with labels that come in; the iterations done."""
    target = Target(drive(6, seed=1), drive(12, seed=3), AcquisitionSettings(audit_every=0), True, 5, folder)
    reveals = LabelReveals(target, (Part(0, 3), Part(4, 2)))
    trainer = Trainer(tiny(), reveals.data(), settings, run_dir=folder, reveals=reveals, world=world, **options)
    result = trainer.run()
    assert all(torch.isfinite(value).all() for value in trainer.network.state_dict().values())
    return result.iterations


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined_world() as world:
        found = gradients(folder / "gradients", world)
        if world.leads:
            save_file(found, folder / "gradients.safetensors")
        train(folder / "whole", world, SETTINGS)
        calls = iter(range(100))
        # Only the last process is asked to stop; both do, together.
        stopped = train(folder / "parts", world, SETTINGS, should_stop=lambda: world.rank == 1 and next(calls) >= 4)
        resumed = train(folder / "parts", world, SETTINGS)
        mine = {name: int(batch_of(world, name).float().sum()) for name in ("source", "unlabelled")}
        (folder / f"rank{world.rank}.json").write_text(json.dumps({"stopped": stopped, "resumed": resumed, **mine}))


def batch_of(world: World, part: str) -> torch.Tensor:
    batch = BatchMaker(tiny_data(), SETTINGS, rank=world.rank, processes=world.size).batch(0)
    return batch.source.images if part == "source" else batch.unlabelled.weak


if __name__ == "__main__":
    main(Path(sys.argv[1]))
