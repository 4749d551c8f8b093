"""Patches of one colour that a click relabels whole, from fine to coarse; coarse ones are made of fine ones."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.annotation.merging import merge_patches
from ssada_core.data.samples import Array

LEVELS = (2000, 600, 200, 60, 20)
"""Patches of a frame at each level, at most, from fine to coarse: what took the fewest clicks on dusk frames
(docs/results/annotation.md). The number does not grow with the frame, as little as the number of things in it does."""
FINEST = 4800
"""Superpixels that the merging starts from, about."""
MIN_SIDE = 12
"""Smaller frames are one patch: SLIC needs some room."""
_RULER = 20.0
"""Weight of compactness against colour in SLIC."""
_ITERATIONS = 5
_CONTRAST, _TILES = 4.0, (4, 4)
"""Local contrast of the lightness is equalised first: half of a dusk frame is nearly black."""
_PLACE = 0.2 * 480
"""What the frame's width in distance counts as, in steps of L*a*b*, when patches are merged."""


def superpixels(bgr: Array) -> list[NDArray[np.int32]]:
    """Number the patches of a frame, once for each level.

    The finest are SLIC superpixels (Achanta et al. 2012) in CIE L*a*b*; neighbours are then merged in Ward's order, by
    colour and place.

    Args:
        bgr: uint8 H×W×3.

    Returns:
        int32 H×W for each of :data:`LEVELS`; patches are 0, 1, …, each connected, each inside one of the next level.
    """
    height, width = bgr.shape[:2]
    if min(height, width) < MIN_SIDE:
        return [np.zeros((height, width), np.int32)] * len(LEVELS)
    lab = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2LAB), np.uint8)
    lab[..., 0] = cv2.createCLAHE(_CONTRAST, _TILES).apply(lab[..., 0])
    return merge_patches(_slic(lab), _features(lab), LEVELS)


def _slic(lab: Array) -> NDArray[np.int32]:
    height, width = lab.shape[:2]
    side = max(3, min(round(math.sqrt(height * width / FINEST)), min(height, width) // 4))
    slic = cv2.ximgproc.createSuperpixelSLIC(lab, cv2.ximgproc.SLIC, side, _RULER)
    slic.iterate(_ITERATIONS)
    slic.enforceLabelConnectivity(25)
    return np.asarray(slic.getLabels(), np.int32)


def _features(lab: Array) -> NDArray[np.float64]:
    height, width = lab.shape[:2]
    ys, xs = np.mgrid[:height, :width] * (_PLACE / width)
    sigma = width / 480
    return np.dstack([cv2.GaussianBlur(lab, (0, 0), sigma).astype(np.float64), ys, xs])
