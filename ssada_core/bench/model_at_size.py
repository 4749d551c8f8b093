"""The model that is measured: any reference, or random weights, at any size."""

from __future__ import annotations

import shutil
from pathlib import Path

from ssada_core.bench.random_model import PREFIX, write_random_model
from ssada_core.inference.load import read_manifest
from ssada_core.inference.quantise import QuantisationSettings
from ssada_core.store.manifest import WEIGHTS_FILE
from ssada_core.store.model_files import seal
from ssada_core.store.models import resolve_model

CALIBRATION_FRAMES = 24
ANYTHING = QuantisationSettings(min_equal=0.0, frames=CALIBRATION_FRAMES)
"""Speed is measured of whatever comes out of the quantisation; its accuracy is stated beside it."""


def write_at_size(reference: str, folder: Path, size: tuple[int, int]) -> None:
    """Write a model directory, not yet deployed, whose network runs at another size.

    Args:
        reference: as for :func:`resolve_model`, or ``random:ARCHITECTURE-BACKBONE``.
        folder: to be made.
        size: height and width.

    Raises:
        SsadaError: if there is no such model or network.
    """
    if reference.startswith(PREFIX):
        write_random_model(reference, folder, size)
        return
    source = resolve_model(reference)
    manifest = read_manifest(source)
    network = manifest.network.model_copy(update={"input_height": size[0], "input_width": size[1]})
    folder.mkdir(parents=True)
    shutil.copyfile(source / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    seal(folder, manifest.model_copy(update={"network": network, "files": {}}))
