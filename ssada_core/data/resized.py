"""Frames and labels at the size the network runs at, so that training sees the scale that inference will."""

from __future__ import annotations

import cv2
import numpy as np

from ssada_core.data.samples import Array, Samples


class ResizedSamples:
    """Another collection's frames, resized; labels by nearest neighbour, so that no class id is invented."""

    def __init__(self, samples: Samples, size: tuple[int, int]) -> None:
        """Wrap ``samples``; ``size`` is (height, width)."""
        self._samples = samples
        self._size = size

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self._samples.name(index)

    def image(self, index: int) -> Array:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return resize_image(self._samples.image(index), self._size)

    def label(self, index: int) -> Array | None:
        """See :class:`~ssada_core.data.samples.Samples`."""
        label = self._samples.label(index)
        return None if label is None else resize_label(label, self._size)


def resize_image(image: Array, size: tuple[int, int]) -> Array:
    """Resize uint8 H×W×3 to ``size`` (height, width): area average when it shrinks by more than two, else linear."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    shrinks = height > 2 * size[0] or width > 2 * size[1]
    resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def resize_label(label: Array, size: tuple[int, int]) -> Array:
    """Resize a uint8 H×W plane of class ids, or confidences, to ``size`` (height, width) by nearest neighbour.

    By pixel centres, as images are resized: OpenCV's plain ``INTER_NEAREST`` shifts by up to half a pixel.
    """
    if label.shape == size:
        return label
    return np.asarray(cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
