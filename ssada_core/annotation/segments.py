"""Superpixels: patches of one colour that a click relabels whole."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.data.samples import Array

LEVELS = (8, 16, 32)
"""Side of a patch in pixels, from fine to coarse, in a frame of :data:`REFERENCE_SIDE` pixels on its shorter side."""
REFERENCE_SIDE = 360
MIN_SIDE = 12
"""Smaller frames are one patch: SLIC needs some room."""
_RULER = 20.0
"""Weight of compactness against colour, as measured on dusk frames (docs/results/annotation.md)."""
_ITERATIONS = 5


def patch_side(height: int, width: int, level: int) -> int:
    """Side of a level's patches: it grows with the root of the frame's side, so that larger frames get more of them."""
    scale = math.sqrt(max(1.0, min(height, width) / REFERENCE_SIDE))
    return round(LEVELS[level] * scale)


def superpixels(bgr: Array, level: int) -> NDArray[np.int32]:
    """Number the patches of a frame: SLIC in CIE L*a*b* (Achanta et al. 2012).

    Args:
        bgr: uint8 H×W×3.
        level: index into :data:`LEVELS`.

    Returns:
        int32 H×W; patches are 0, 1, …, each connected.
    """
    height, width = bgr.shape[:2]
    side = patch_side(height, width, level)
    if min(height, width) < max(MIN_SIDE, side):
        return np.zeros((height, width), np.int32)
    slic = cv2.ximgproc.createSuperpixelSLIC(cv2.cvtColor(bgr, cv2.COLOR_BGR2LAB), cv2.ximgproc.SLIC, side, _RULER)
    slic.iterate(_ITERATIONS)
    slic.enforceLabelConnectivity(25)
    return np.asarray(slic.getLabels(), np.int32)
