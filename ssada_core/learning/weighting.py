"""Class weights of the supervised loss (METHOD §6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssada_core.data.samples import Samples
from ssada_core.errors import ConfigError
from ssada_core.learning.settings import TrainingSettings

UPPER = 2.0
"""u of METHOD §6: the weight of a class that is never right, or has never been seen."""


def fill_unknown(iou: NDArray[np.floating], *, default: float = 0.0) -> NDArray[np.float64]:
    """Give classes without an IoU (NaN) the mean of the others (METHOD §5), or ``default`` if all are unknown.

    Args:
        iou: ``[C]`` in [0, 1], NaN where the class has no pixel in the ground truth.
        default: what to assume if nothing is known. With 0 every threshold ``r·IoU`` lets all pixels pass,
            as the authors' fixed τ = 0 does.
    """
    known = ~np.isnan(iou)
    mean = float(iou[known].mean()) if known.any() else default
    return np.where(known, iou, mean).astype(np.float64)


def iou_weights(iou: NDArray[np.floating], *, upper: float = UPPER) -> NDArray[np.float64]:
    """``w_c = 1 + (u−1)·(1 − IoU_c)`` float64 ``[C]``; an unknown class takes the mean of the others."""
    return 1.0 + (upper - 1.0) * (1.0 - fill_unknown(iou))


def median_frequency_weights(pixels: NDArray[np.integer], *, upper: float = UPPER) -> NDArray[np.float64]:
    """Median frequency balancing, scaled linearly to ``[1, u]`` (METHOD §6, the alternative).

    Args:
        pixels: labelled pixels per class, ``[C]``.
        upper: u, which a class without a pixel gets too.
    """
    seen = pixels > 0
    weights = np.full(pixels.shape, float(upper))
    if not seen.any():
        return weights
    ratio = np.median(pixels[seen]) / pixels[seen]
    span = float(ratio.max() - ratio.min())
    scaled = (ratio - ratio.min()) / span if span > 0 else np.zeros_like(ratio)
    weights[seen] = 1.0 + (upper - 1.0) * scaled
    return weights


def class_weights(
    settings: TrainingSettings, iou: NDArray[np.floating], samples: Samples | None
) -> NDArray[np.float64]:
    """Weights ``[C]`` as the settings ask; all 1 for ``none``.

    Args:
        settings: which kind, and u.
        iou: per class ``[C]``, NaN where unknown.
        samples: whose labels the median frequency counts.
    """
    if settings.class_weights == "iou":
        return iou_weights(iou, upper=settings.class_weight_upper)
    if settings.class_weights == "frequency":
        return median_frequency_weights(count_pixels(samples, len(iou)), upper=settings.class_weight_upper)
    return np.ones(len(iou))


def count_pixels(samples: Samples | None, num_classes: int) -> NDArray[np.int64]:
    """Labelled pixels per class ``[C]`` over all frames that have a label."""
    counts = np.zeros(num_classes, np.int64)
    labels = (samples.label(index) for index in range(len(samples))) if samples is not None else ()
    for label in labels:
        if label is not None:
            counts += np.bincount(label.ravel(), minlength=256)[:num_classes]
    return counts


def checked_iou(iou: NDArray[np.floating] | None, num_classes: int) -> NDArray[np.floating]:
    """IoU per class ``[C]`` as given, or all unknown for None.

    Raises:
        ConfigError: if it is of another number of classes.
    """
    if iou is None:
        return np.full(num_classes, np.nan)
    if len(iou) != num_classes:
        raise ConfigError(f"class_iou has {len(iou)} values but the network has {num_classes} classes: use its own")
    return iou
