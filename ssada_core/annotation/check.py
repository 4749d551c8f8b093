"""Is this a label? What is no label is refused; what looks wrong is held for a second look.

Refusing needs proof (size, type, ids, too little labelled). Holding needs strong suspicion only: a
model in a new place is often wrong, and a label that says so is exactly what is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from ssada_core.data.resized import resize_label
from ssada_core.data.samples import Array
from ssada_core.errors import LabelError
from ssada_core.labels import IGNORE, LabelSpace
from ssada_core.settings import Settings

Status = Literal["accepted", "held", "refused"]


class LabelCheckSettings(Settings):
    """When a label is refused, and when it is held."""

    min_labelled_share: float = Field(
        0.05, ge=0, le=1, description="Share of the pixels that must be labelled; labels with less are refused."
    )
    constant_share: float = Field(
        0.5, ge=0, le=1, description="A label of one class only that covers more than this share is held."
    )
    confident: float = Field(
        0.9, ge=0, le=1, description="Class probability from which the model's prediction speaks against a label."
    )
    min_confident_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the labelled pixels that must be confident for agreement to count.",
    )
    max_disagreement: float = Field(
        0.85,
        ge=0,
        le=1,
        description="A label that contradicts more than this share of the confident predictions is held; "
        "1 switches this off.",
    )
    hold_unchanged: bool = Field(
        True, description="Hold a label that says nothing but what the model predicts: nobody may have looked at it."
    )
    hold_duplicates: bool = Field(
        True, description="Hold a label that is, pixel by pixel, another frame's: it may be the wrong file."
    )


@dataclass(frozen=True)
class CheckResult:
    """The verdict on a label.

    Attributes:
        status: accepted, held (suspicious) or refused (cannot be used).
        why: one sentence; empty when accepted.
        label: uint8 H×W of class ids and 255, None when refused.
        labelled_share: share of the pixels that are labelled.
        agreement: share of the confidently predicted labelled pixels on which the model agrees; None where
            there is no prediction or too few such pixels.
    """

    status: Status
    why: str
    label: Array | None
    labelled_share: float
    agreement: float | None


def check_label(
    label: Array,
    *,
    size: tuple[int, int],
    label_space: LabelSpace,
    prediction: Array | None = None,
    confidence: Array | None = None,
    settings: LabelCheckSettings,
) -> CheckResult:
    """Judge a label.

    Args:
        label: what came in; right is uint8 H×W of class ids, 255 and the space's own ignored ids.
        size: the frame's height and width.
        label_space: the classes.
        prediction: the model's classes, uint8, of any size.
        confidence: 255 × the largest class probability, uint8, of the prediction's size.
        settings: the limits.
    """
    if label.shape[:2] != size:
        return _refused(f"the label is {_say(label.shape)}, its frame {_say(size)}: send it at the frame's size")
    try:
        # Whoever answers a query sends class ids, whatever raw ids the data set of the space has in its files.
        clean = replace(label_space, id_map={}).decode(label, source="the label")
    except LabelError as error:
        return _refused(str(error))
    share = float(np.count_nonzero(clean != IGNORE)) / clean.size
    if share == 0.0 or share < settings.min_labelled_share:
        least = settings.min_labelled_share
        return _refused(f"only {share:.1%} of the label is labelled, at least {least:.0%} is needed: label more", share)
    agreement = _agreement(clean, prediction, confidence, settings)
    why = _suspicion(clean, share, agreement, label_space, settings) or _repetition(clean, prediction, settings)
    return CheckResult("held" if why else "accepted", why, clean, share, agreement)


def _suspicion(
    label: Array, share: float, agreement: float | None, label_space: LabelSpace, settings: LabelCheckSettings
) -> str:
    present = np.flatnonzero(np.bincount(label.ravel(), minlength=256)[:IGNORE])
    if present.size == 1 and share > settings.constant_share:
        return f"all of it is '{label_space.classes[present[0]]}': confirm it if that is so"
    if agreement is not None and 1.0 - agreement > settings.max_disagreement:
        return (
            f"it contradicts {1.0 - agreement:.0%} of what the model is sure of (at most "
            f"{settings.max_disagreement:.0%}): check class ids and frame, confirm it if it is right"
        )
    return ""


def _repetition(label: Array, prediction: Array | None, settings: LabelCheckSettings) -> str:
    if prediction is None or not settings.hold_unchanged:
        return ""
    predicted = resize_label(prediction, (label.shape[0], label.shape[1]))
    if np.any((label != predicted) & (label != IGNORE)):
        return ""
    return "nothing in it differs from what the model predicts: confirm it if all of it is right"


def _agreement(
    label: Array, prediction: Array | None, confidence: Array | None, settings: LabelCheckSettings
) -> float | None:
    if prediction is None or confidence is None:
        return None
    height, width = label.shape
    predicted = resize_label(prediction, (height, width))
    sure = resize_label(confidence, (height, width)) >= settings.confident * 255
    labelled = label != IGNORE
    counted = labelled & sure
    pixels = np.count_nonzero(counted)
    if pixels == 0 or pixels < settings.min_confident_share * np.count_nonzero(labelled):
        return None
    return float(np.count_nonzero(counted & (predicted == label))) / pixels


def _refused(why: str, share: float = 0.0) -> CheckResult:
    return CheckResult("refused", why, None, share, None)


def _say(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}" if len(shape) >= 2 else f"of shape {shape}"
