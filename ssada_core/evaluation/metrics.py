"""Confusion matrices and what is read from them (METHOD §9).

A confusion matrix is int64 ``[C, C]``: the row is the class in the ground truth, the column the class
that was predicted. Matrices of frames add up to the matrix of the set; mIoU is read from that sum and
is never a mean over frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssada_core.errors import LabelError
from ssada_core.labels import IGNORE

Matrix = NDArray[np.int64]


def confusion(label: NDArray[np.uint8], target: NDArray[np.uint8], num_classes: int) -> Matrix:
    """Count pixels by (ground truth, prediction).

    Args:
        label: predicted class ids, uint8 of any shape.
        target: ground truth, uint8 of the same shape; 255 is not counted.
        num_classes: C, 1 to 255.

    Returns:
        int64 ``[C, C]``, rows ground truth, columns prediction.

    Raises:
        LabelError: if the shapes differ, an array is not uint8, or a counted pixel has an id outside ``[0, C)``.
    """
    if label.shape != target.shape:
        raise LabelError(f"prediction has shape {label.shape} but its label {target.shape}: give both the same size")
    if label.dtype != np.uint8 or target.dtype != np.uint8:
        raise LabelError(f"prediction is {label.dtype} and its label {target.dtype}: both must be uint8 class ids")
    pairs = target.astype(np.int32).ravel() * 256 + label.ravel()
    table = np.bincount(pairs, minlength=256 * 256).reshape(256, 256)
    table[IGNORE] = 0
    matrix = np.ascontiguousarray(table[:num_classes, :num_classes])
    if matrix.sum() != table.sum():
        raise LabelError(_outside(table, num_classes))
    return matrix


def _outside(table: Matrix, num_classes: int) -> str:
    rows = np.flatnonzero(table.any(axis=1))
    columns = np.flatnonzero(table.any(axis=0))
    where, worst = ("ground truth", int(rows[-1])) if rows[-1] >= num_classes else ("prediction", int(columns[-1]))
    return f"class id {worst} in the {where} is outside 0-{num_classes - 1}: check the label space"


def present(matrix: Matrix) -> NDArray[np.bool_]:
    """Which classes have at least one pixel in the ground truth, bool ``[C]``; leading axes are kept."""
    return np.asarray(matrix.sum(axis=-1) > 0)


def iou(matrix: Matrix | NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union per class, in [0, 1].

    Args:
        matrix: ``[..., C, C]``, counts of pixels, or weighted counts.

    Returns:
        float64 ``[..., C]``, NaN where the class is absent from the ground truth.
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1).astype(np.float64)
    truth = matrix.sum(axis=-1)
    union = truth + matrix.sum(axis=-2) - hits
    values = np.full(hits.shape, np.nan)
    np.divide(hits, union, out=values, where=truth > 0)
    return values


def miou(matrix: Matrix) -> float:
    """Mean IoU over the classes present in the ground truth, in percent; NaN for an empty matrix."""
    values = iou(matrix)[present(matrix)]
    return float(100.0 * values.mean()) if values.size else float("nan")


def pixel_accuracy(matrix: Matrix) -> float:
    """Share of labelled pixels that are right, in percent; NaN for an empty matrix."""
    total = int(matrix.sum())
    return 100.0 * int(np.trace(matrix)) / total if total else float("nan")
