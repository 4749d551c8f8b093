"""Deploy a model for those who will run it: every exact form, and int8 where it is asked for."""

from __future__ import annotations

from pathlib import Path

from ssada_core.data.samples import Samples, spread
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import DeployReport, deploy
from ssada_core.inference.targets import INT8_TARGETS, TARGETS, installed_targets, targets_for

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
