"""Classes stay apart for the colour-blind, on the page's own colours and patterns."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from ssada_core.annotation.colours import COLOURS, PATTERNS, class_style
from ssada_core.labels import LABEL_SPACES

# Machado, Oliveira, Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
APART = 14.0
"""CIE76 difference; 2.3 is just noticeable."""


def seen(colours: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """L*a*b* of sRGB colours as somebody sees them."""
    values = colours / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    shifted = np.clip(linear @ np.asarray(matrix).T, 0, 1)
    srgb = np.where(shifted <= 0.0031308, 12.92 * shifted, 1.055 * shifted ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(srgb[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_one_pattern_stay_apart(vision):
    lab = seen(np.array(COLOURS, float), VISION[vision])
    nearest = min(np.linalg.norm(lab[one] - lab[two]) for one, two in combinations(range(len(COLOURS)), 2))
    assert nearest > APART


@pytest.mark.parametrize("space", LABEL_SPACES.values(), ids=lambda space: space.name)
def test_no_two_classes_look_the_same(space):
    styles = [str(class_style(index)) for index in range(space.num_classes)]
    assert len(set(styles)) == space.num_classes <= len(COLOURS) * len(PATTERNS)
