"""Public checkpoints become model directories: verified, read without running anything in them, accounted for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ssada_core.errors import ConfigError, ModelError
from ssada_core.labels import LabelSpace, load_label_space
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.files import make_directory
from ssada_core.store.journal import utc_now
from ssada_core.store.manifest import MANIFEST_FILE, ModelManifest
from ssada_core.store.model_files import seal, write_weights
from ssada_core.store.verified import open_verified

if TYPE_CHECKING:
    from ssada_core.networks.foreign import ImportReport

MIN_SHARE = 0.95
"""With fewer of the needed tensors matched than this, a checkpoint is refused."""

_USUAL_SPACES = {19: "cityscapes", 13: "crosscity", 7: "bev"}
"""The label spaces of the public checkpoints by their number of classes."""


def import_weights(
    source: str,
    sha256: str,
    out: Path,
    *,
    label_space: str = "",
    layout: str = "",
    size: tuple[int, int] = (512, 1024),
    min_share: float = MIN_SHARE,
) -> ImportReport:
    """Make a model directory out of a public checkpoint.

    Args:
        source: a file, or an https URL.
        sha256: of its content; nothing is parsed before it is right.
        out: the model directory, which must not hold a model yet.
        label_space: built-in name or YAML file; by default the public one with the checkpoint's number of classes.
        layout: whose checkpoint it is; by default recognised by its names.
        size: height and width at which the model will run.
        min_share: the matched share of needed tensors that is asked for.

    Raises:
        ModelError: if it cannot be had or verified, is of no known layout, or too little of it matches.
        ConfigError: if the label space is not known or cannot be guessed.
        StoreError: if the disk refuses.
    """
    from ssada_core.networks import foreign
    from ssada_core.networks.build import build_network

    if (out / MANIFEST_FILE).exists():
        raise ModelError(f"{out} already holds a model: name another folder")
    with open_verified(source, sha256) as file:
        checkpoint = foreign.unwrap(_load(file, source), source=source)
    known = foreign.find_layout(checkpoint, layout)
    space = _label_space(label_space, foreign.number_of_classes(checkpoint, known))
    values = {**known.network, "input_height": size[0], "input_width": size[1]}
    network = NetworkSettings.model_validate(values)
    expected = build_network(network, space.num_classes, pretrained=False).state_dict()
    weights, report = foreign.fill(expected, checkpoint, known)
    if report.share < min_share:
        raise ModelError(
            f"{source}: only {100 * report.share:.1f} % of the tensors needed match ({'; '.join(report.words()[1:])}): "
            f"name its layout, or lower the share of {100 * min_share:.0f} % that is asked for"
        )
    make_directory(out)
    write_weights(out, weights)
    seal(out, _manifest(network, space, source, sha256, report))
    return report


def _load(file: IO[bytes], source: str) -> Any:  # noqa: ANN401  (whatever a checkpoint holds)
    """Tensors and plain values; nothing in the file is run (``weights_only``)."""
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"{source} is no checkpoint that can be read safely ({reason[0] if reason else 'empty'}): "
            "save its state dict alone, with torch.save(model.state_dict(), …)"
        ) from error


def _numpy_scalars() -> list[Any]:
    """What SS-ADA's ``previous_best`` needs: one NumPy number, stored under NumPy 1's or 2's name."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]


def _label_space(reference: str, classes: int | None) -> LabelSpace:
    if reference:
        return load_label_space(reference)
    if classes not in _USUAL_SPACES:
        found = f"{classes} classes" if classes else "no head"
        raise ConfigError(f"a checkpoint with {found}: say what the classes are, with --label-space")
    return load_label_space(_USUAL_SPACES[classes])


def _manifest(
    network: NetworkSettings, space: LabelSpace, source: str, sha256: str, report: ImportReport
) -> ModelManifest:
    return ModelManifest(
        version=f"imported-{report.layout}",
        created=utc_now(),
        network=network,
        label_space=space.to_dict(),
        training={
            "reason": f"imported from {source.rpartition('/')[2]}",
            "source_sha256": sha256.strip().lower(),
            "layout": report.layout,
            "matched": len(report.matched),
            "share": report.share,
            "random": [*report.missing, *report.wrong_shape],
            "notes": list(report.notes),
        },
    )
