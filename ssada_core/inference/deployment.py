"""Deploy a model for those who will run it: every exact form, and int8 where it is asked for."""

from __future__ import annotations

from pathlib import Path

from ssada_core.data.samples import Samples, spread
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import DeployReport, deploy
from ssada_core.inference.load import read_model
from ssada_core.inference.targets import INT8_TARGETS, TARGETS, installed_targets, targets_for
from ssada_core.store.registry import ModelRegistry

PARITY_FRAMES = 2
"""Real frames on which an exact form is compared with torch."""
INT8_FRAMES = 24
"""Real frames on which int8 is calibrated and judged."""


def deploy_for(model_dir: Path, settings: EngineSettings, samples: Samples) -> DeployReport:
    """Build the forms that an engine of these settings, or of another backend, may load.

    Args:
        model_dir: as :func:`ssada_core.inference.export.deploy` takes it.
        settings: int8 takes the longest and is built only if these may use it.
        samples: frames of the road, for comparison and calibration.

    Raises:
        EngineError: if a form does not answer as torch does.
    """
    int8 = [name for name in targets_for(settings) if name in INT8_TARGETS]
    targets = [*(name for name in installed_targets() if name in TARGETS), *int8]
    shown = spread(samples, INT8_FRAMES if int8 else PARITY_FRAMES)
    return deploy(model_dir, targets=targets, frames=[shown.image(index) for index in range(len(shown))])


def enter_model(registry: ModelRegistry, model_dir: Path, engine: EngineSettings, source: Samples) -> str:
    """Register a model with its deployed forms and make it the current one; returns its version.

    Args:
        registry: where to.
        model_dir: the model.
        engine: how it will be run.
        source: frames on which its deployed forms are compared with torch, and int8 is calibrated.

    Raises:
        ModelError: if the model cannot be read or deployed.
    """
    network, manifest = read_model(model_dir)
    version = registry.add(network.state_dict(), manifest, deploy=lambda folder: _deploy(folder, engine, source))
    registry.promote(version, decision=None)
    return version


def _deploy(folder: Path, engine: EngineSettings, source: Samples) -> None:
    deploy_for(folder, engine, source)
