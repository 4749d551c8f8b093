"""What a kind of road looks like to a model: mean and spread of its frames, and how far is too far.

A component is probabilistic PCA (Tipping and Bishop, J. R. Stat. Soc. B 61, 1999): the directions in which the frames
vary most keep their own variance, all others share one. The score of a frame is its squared Mahalanobis distance
divided by the number of dimensions, about 1 for frames like those it was made from. How the scores of *other* frames
of the same road lie is learned by leaving stretches out (cross-fitting), so that the bound is no flattery.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssada_core.adaptation.calibration import Gamma
from ssada_core.errors import ModelError
from ssada_core.inference.engine import Prediction
from ssada_core.store.files import DAMAGED_NPZ, write_atomic

Vectors = NDArray[np.float64]

MIN_FRAMES = 16
"""Fewest frames that make a component."""
_KEPT_VARIANCE = 0.9
_FOLDS = 4


@dataclass(frozen=True)
class Component:
    """One kind of road.

    Attributes:
        centre: float64 ``[D]``.
        scale: float64 ``[D]``, standard deviations.
        axes: float64 ``[K, D]``, main directions of the standardised frames.
        variances: float64 ``[K]``, along them.
        rest: variance along every other direction.
        scores: how frames of this road score that it was not made from.
    """

    centre: Vectors
    scale: Vectors
    axes: Vectors
    variances: Vectors
    rest: float
    scores: Gamma

    @classmethod
    def fit(cls, frames: Vectors, *, apart: bool = False) -> Component:
        """Learn from frames, float64 ``[N, D]`` in the drive's order, N at least :data:`MIN_FRAMES`.

        Args:
            frames: described ones.
            apart: they were picked far apart, maybe from several drives, so that neighbours are no near-copies.
                Then every fold has some of each drive; left out whole, a drive would look like another road.

        Raises:
            ModelError: if there are too few, or they are not finite.
        """
        if len(frames) < MIN_FRAMES or not np.isfinite(frames).all():
            raise ModelError(f"{len(frames)} frames cannot describe a road: at least {MIN_FRAMES} with finite figures")
        whole = cls(*_decompose(frames), Gamma(1.0, 1.0, len(frames)))
        left_out = []
        parts = np.arange(len(frames)) % _FOLDS if apart else np.arange(len(frames)) * _FOLDS // len(frames)
        for part in (np.flatnonzero(parts == fold) for fold in range(_FOLDS)):
            other = cls(*_decompose(np.delete(frames, part, axis=0)), whole.scores)
            left_out.append(other.score(frames[part]))
        return cls(*_decompose(frames), Gamma.of(np.concatenate(left_out)))

    def score(self, frames: Vectors) -> Vectors:
        """Score of each frame, float64 ``[N]``, from frames ``[N, D]``."""
        standard = (frames - self.centre) / self.scale
        along = standard @ self.axes.T
        total = np.square(standard).sum(axis=1)
        inside = np.square(along)
        rest = np.maximum(total - inside.sum(axis=1), 0.0) / self.rest
        return np.asarray(((inside / self.variances).sum(axis=1) + rest) / frames.shape[1])


def _decompose(frames: Vectors) -> tuple[Vectors, Vectors, Vectors, Vectors, float]:
    centre, scale = frames.mean(axis=0), frames.std(axis=0)
    scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-12), scale, max(float(scale.max()), 1e-6))
    _, singular, axes = np.linalg.svd((frames - centre) / scale, full_matrices=False)
    variances = singular**2 / len(frames)
    share = np.cumsum(variances) / max(float(variances.sum()), 1e-12)
    kept = min(int(np.searchsorted(share, _KEPT_VARIANCE)) + 1, len(frames) // 4, frames.shape[1] - 1)
    others = frames.shape[1] - kept
    rest = max(float(variances[kept:].sum()) / others, 1e-3)
    return centre, scale, axes[:kept], np.maximum(variances[:kept], rest), rest


def describe(prediction: Prediction) -> Vectors:
    """A frame as its model sees it, float64 ``[D + 1]``: direction of the pooled features, and uncertainty.

    Raises:
        ModelError: if the prediction came without features, or its figures are not finite.
    """
    if prediction.features is None:
        raise ModelError("a prediction without features cannot be compared: infer with features=True")
    features = np.asarray(prediction.features, np.float64)
    length = float(np.linalg.norm(features))
    vector = np.append(features / max(length, 1e-9), np.log(max(prediction.uncertainty, 1e-4)))
    if not np.isfinite(vector).all():
        raise ModelError("the model's features are not finite numbers: roll back to a version before it")
    return vector


@dataclass(frozen=True)
class Reference:
    """All kinds of road that a model was made for, by name."""

    components: Mapping[str, Component]

    def save(self, path: Path) -> None:
        """Write one ``.npz`` file, atomically and without pickle.

        Raises:
            StoreError: if the disk refuses.
        """
        arrays: dict[str, NDArray[np.generic]] = {"names": np.array(json.dumps(list(self.components)))}
        for number, component in enumerate(self.components.values()):
            for field in fields(component):
                value = getattr(component, field.name)
                if isinstance(value, Gamma):
                    value = [value.mean, value.deviation, value.count]
                arrays[f"{number}.{field.name}"] = np.asarray(value, np.float64)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what :meth:`save` wrote.

        Raises:
            ModelError: if the file is missing, cut off, or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = json.loads(str(arrays["names"]))
                return cls({name: _read(arrays, number) for number, name in enumerate(names)})
        except DAMAGED_NPZ as error:
            raise ModelError(f"{path}: no description of a model's roads ({error}): delete it") from error


_SHAPES = {"centre": "D", "scale": "D", "axes": "KD", "variances": "K", "rest": "", "scores": "3"}


def _read(arrays: Mapping[str, Vectors], number: int) -> Component:
    values = {name: np.asarray(arrays[f"{number}.{name}"], np.float64) for name in _SHAPES}
    dimensions, axes = values["centre"].shape[-1:], values["variances"].shape
    for name, shape in _SHAPES.items():
        expected = tuple(size for kind in shape for size in {"D": dimensions, "K": axes, "3": (3,)}[kind])
        if values[name].shape != expected or not np.isfinite(values[name]).all():
            raise ValueError(f"'{name}' has shape {values[name].shape}, expected {expected}, all finite")
    mean, deviation, count = values.pop("scores")
    return Component(
        **{name: value for name, value in values.items() if name != "rest"},
        rest=float(values["rest"]),
        scores=Gamma(float(mean), float(deviation), int(count)),
    )
