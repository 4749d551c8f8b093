"""Pairs of target views for TUFL: a plain one, and the same under another light and an affine map (METHOD §8).

An affine map is a float32 2×3 matrix that takes a pixel of the augmented view, ``(x, y, 1)`` with whole numbers
at pixel centres, to its place in the plain view. OpenCV (images) and ``grid_sample`` (predictions) follow the same.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name everybody reads)
from numpy.typing import NDArray
from torch import Tensor

from ssada_core.learning.views import PADDING_BGR, Array, Mask, color_jitter

ROTATION_DEGREES = 30.0
SCALE = (0.8, 1.2)
SHEAR_DEGREES = 5.0

Matrix = NDArray[np.float32]


def affine_matrix(size: tuple[int, int], rotation: float, scale: float, shear: float) -> Matrix:
    """The map of a view rotated, scaled and sheared about its centre.

    Args:
        size: (height, width) of the view.
        rotation: degrees, clockwise as seen.
        scale: how much larger things get.
        shear: degrees by which upright lines lean.
    """
    angle, lean = math.radians(rotation), math.tan(math.radians(shear))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(scale * turn @ np.array([[1.0, lean], [0.0, 1.0]]))
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return np.column_stack((inverse, centre - inverse @ centre)).astype(np.float32)


def sample_affine(rng: np.random.Generator, size: tuple[int, int]) -> Matrix:
    """Draw a rotation of ±30°, a scale of 0.8–1.2 and a shear of ±5° (METHOD §8)."""
    rotation = rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES)
    return affine_matrix(size, rotation, rng.uniform(*SCALE), rng.uniform(-SHEAR_DEGREES, SHEAR_DEGREES))


def augmented_view(rng: np.random.Generator, plain: Array, usable: Mask, matrix: Matrix) -> tuple[Array, Mask]:
    """The plain view in other colours and under the map, and where it shows usable pixels only.

    Args:
        rng: of the colours.
        plain: uint8 h×w×3 BGR.
        usable: bool h×w, false on padding.
        matrix: see :func:`affine_matrix`.

    Returns:
        uint8 h×w×3 BGR and bool h×w.
    """
    height, width = usable.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(color_jitter(rng, plain), matrix, (width, height), flags=flags, borderValue=PADDING_BGR)
    covered = cv2.warpAffine(usable.astype(np.float32), matrix, (width, height), flags=flags, borderValue=0)
    return np.asarray(view, np.uint8), np.asarray(covered, np.float32) > 0.999


def warp(logits: Tensor, matrix: Tensor) -> Tensor:
    """Predictions of plain views as their augmented views show them; differentiable, 0 outside.

    Args:
        logits: float ``[B,C,H,W]``.
        matrix: float32 ``[B,2,3]``, see :func:`affine_matrix`.
    """
    height, width = logits.shape[-2:]
    x = torch.arange(width, device=logits.device, dtype=torch.float32)
    y = torch.arange(height, device=logits.device, dtype=torch.float32)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    last = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=logits.device, dtype=torch.float32)
    with torch.autocast(logits.device.type, enabled=False):  # which would round the places to 8 bits
        places = torch.stack((columns, rows, torch.ones_like(rows)), dim=-1) @ matrix.transpose(1, 2)[:, None]
    grid = places * (2.0 / last) - 1.0
    return F.grid_sample(logits.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True)
