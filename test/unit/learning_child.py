"""A process that trains the tiny network until it is done or killed: ``learning_child.py RUN_DIR SETTINGS_JSON``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from learning_fixtures import drive, tiny

from ssada_core.learning.loaders import TrainingData
from ssada_core.learning.settings import TrainingSettings
from ssada_core.learning.trainer import Trainer, TrainingResult


def tiny_data() -> TrainingData:
    return TrainingData(drive(6, seed=1), drive(3, seed=2), drive(8, seed=3, labelled=False))


def train(run_dir: Path, settings: TrainingSettings, **options) -> TrainingResult:
    return Trainer(tiny(), tiny_data(), settings, run_dir=run_dir, **options).run()


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), TrainingSettings.model_validate_json(sys.argv[2]))
