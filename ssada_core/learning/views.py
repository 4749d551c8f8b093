"""Weak and strong views of a frame, and CutMix, on uint8 crops (METHOD §4).

Everything random comes from the generator that is passed in. Views are cropped before anything is
coloured or blurred, so their cost follows the crop's size and not the camera's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.labels import IGNORE

Array = NDArray[np.uint8]
Mask = NDArray[np.bool_]

PADDING_BGR = (104, 116, 124)
"""ImageNet's mean colour: padding is about 0 once normalised, as the padding of convolutions is."""

BRIGHTNESS = CONTRAST = SATURATION = 0.5
HUE = 0.25
JITTER_PROBABILITY, GREY_PROBABILITY, BLUR_PROBABILITY, CUTMIX_PROBABILITY = 0.8, 0.2, 0.5, 0.5
SIGMA = (0.1, 2.0)
CUTMIX_AREA = (0.02, 0.4)
CUTMIX_RATIO = (0.3, 3.3)


@dataclass(frozen=True)
class Geometry:
    """Where a weak view is taken from.

    Attributes:
        top: first row of the part of the image that is used.
        left: first column of it.
        height: its rows, before scaling.
        width: its columns, before scaling.
        out_height: rows it fills in the crop; below it is padding.
        out_width: columns it fills in the crop; right of it is padding.
        flip: mirrored left to right.
    """

    top: int
    left: int
    height: int
    width: int
    out_height: int
    out_width: int
    flip: bool


@dataclass(frozen=True)
class WeakView:
    """A crop with what belongs to it.

    Attributes:
        image: uint8 h×w×3 BGR.
        label: uint8 h×w, 255 on padding; None where the frame has none.
        inside: bool h×w, false on padding.
    """

    image: Array
    label: Array | None
    inside: Mask


def sample_geometry(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    crop_size: tuple[int, int],
    scale_range: tuple[float, float] = (0.5, 2.0),
) -> Geometry:
    """Draw a scale, a place and a flip; sizes are ``(height, width)``.

    The part of the image that the scaled crop will show is chosen in the image's own pixels.
    """
    scale = rng.uniform(*scale_range)
    (height, out_height), (width, out_width) = (
        _extent(image, crop, scale) for image, crop in zip(image_size, crop_size, strict=True)
    )
    top = int(rng.integers(0, image_size[0] - height + 1))
    left = int(rng.integers(0, image_size[1] - width + 1))
    return Geometry(top, left, height, width, out_height, out_width, bool(rng.random() < 0.5))


def _extent(image: int, crop: int, scale: float) -> tuple[int, int]:
    """Pixels used of one side of the image, and pixels filled of the crop's."""
    wanted = max(1, round(crop / scale))
    if wanted <= image:
        return wanted, crop
    return image, min(crop, max(1, round(image * scale)))


def weak_view(image: Array, label: Array | None, geometry: Geometry, crop_size: tuple[int, int]) -> WeakView:
    """Cut, scale, mirror and pad an image (uint8 H×W×3) and its label (uint8 H×W) alike."""
    rows, columns = slice(0, geometry.out_height), slice(0, geometry.out_width)
    smaller = geometry.out_height < geometry.height
    crop = np.empty((*crop_size, 3), np.uint8)
    crop[:] = PADDING_BGR
    crop[rows, columns] = _cut(image, geometry, cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    inside = np.zeros(crop_size, np.bool_)
    inside[rows, columns] = True
    if label is None:
        return WeakView(crop, None, inside)
    cropped = np.full(crop_size, IGNORE, np.uint8)
    cropped[rows, columns] = _cut(label, geometry, cv2.INTER_NEAREST_EXACT)
    return WeakView(crop, cropped, inside)


def _cut(image: Array, geometry: Geometry, interpolation: int) -> NDArray[np.generic]:
    bottom, right = geometry.top + geometry.height, geometry.left + geometry.width
    part = image[geometry.top : bottom, geometry.left : right]
    scaled = cv2.resize(part, (geometry.out_width, geometry.out_height), interpolation=interpolation)
    return cv2.flip(scaled, 1) if geometry.flip else scaled


def strong_view(rng: np.random.Generator, image: Array) -> Array:
    """Colour jitter, grey and blur of a crop (uint8 h×w×3 BGR); the crop itself stays as it is."""
    view = image
    if rng.random() < JITTER_PROBABILITY:
        view = color_jitter(rng, view)
    if rng.random() < GREY_PROBABILITY:
        view = _grey(view)
    if rng.random() < BLUR_PROBABILITY:
        view = np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(*SIGMA)), np.uint8)
    return view


def color_jitter(rng: np.random.Generator, image: Array) -> Array:
    """Brightness, contrast, saturation and hue, each by a random factor, in random order."""
    factors = [rng.uniform(1 - reach, 1 + reach) for reach in (BRIGHTNESS, CONTRAST, SATURATION)]
    factors.append(rng.uniform(-HUE, HUE))
    operations = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    for index in rng.permutation(len(operations)):
        image = operations[index](image, factors[index])
    return image


def adjust_brightness(image: Array, factor: float) -> Array:
    """Blend with black: ``factor · image``."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=factor), np.uint8)


def adjust_contrast(image: Array, factor: float) -> Array:
    """Blend with the mean of the grey image."""
    mean = float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean())
    table = np.clip(np.rint(np.arange(256) * factor + mean * (1 - factor)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)


def adjust_saturation(image: Array, factor: float) -> Array:
    """Blend with the grey image."""
    return np.asarray(cv2.addWeighted(image, factor, _grey(image), 1 - factor, 0), np.uint8)


def adjust_hue(image: Array, shift: float) -> Array:
    """Turn the hue by ``shift`` of the full circle."""
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL), np.uint8)
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)  # uint8 wraps round, as hue does
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL), np.uint8)


def _grey(image: Array) -> Array:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


@dataclass(frozen=True)
class Box:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int


def sample_cutmix(rng: np.random.Generator, size: tuple[int, int]) -> Box | None:
    """A CutMix box within ``(height, width)``, or None (half the time).

    The area is uniform in 2–40 % of the crop; the ratio height/width is uniform on a logarithmic scale in
    0.3–3.3, cut to what fits into the crop.
    """
    if rng.random() >= CUTMIX_PROBABILITY:
        return None
    height, width = size
    area = rng.uniform(*CUTMIX_AREA) * height * width
    ratio = math.exp(rng.uniform(math.log(CUTMIX_RATIO[0]), math.log(CUTMIX_RATIO[1])))
    ratio = min(max(ratio, area / width**2), height**2 / area)
    box_height = min(height, max(1, round(math.sqrt(area * ratio))))
    box_width = min(width, max(1, round(math.sqrt(area / ratio))))
    top = int(rng.integers(0, height - box_height + 1))
    left = int(rng.integers(0, width - box_width + 1))
    return Box(top, left, top + box_height, left + box_width)


def box_mask(box: Box | None, size: tuple[int, int]) -> Mask:
    """Bool h×w, true within the box.

    Pseudo-labels, confidences and padding masks are mixed by it: ``torch.where(mask, other, own)``.
    """
    mask = np.zeros(size, np.bool_)
    if box is not None:
        mask[box.top : box.bottom, box.left : box.right] = True
    return mask


def paste(own: Array, other: Array, box: Box) -> Array:
    """A copy of ``own`` with the box taken from ``other`` (both h×w×3)."""
    mixed = own.copy()
    mixed[box.top : box.bottom, box.left : box.right] = other[box.top : box.bottom, box.left : box.right]
    return mixed
