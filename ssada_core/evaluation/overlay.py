"""Labels in colour over their frames: for the overlay topic, for reports and for strips of pictures.

:func:`overlay` is on a frame's path: one look-up and one blend in place, into a buffer that the caller
keeps (about 0.2 ms at 640×384). The rest is for reading and prints.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ssada_core.data.samples import Array
from ssada_core.errors import DataError
from ssada_core.labels import IGNORE, LabelSpace

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BACKGROUND = (28, 24, 22)
_TEXT = (240, 240, 240)
_GAP = 4


def colorize(label: Array, palette: Array, *, out: Array | None = None) -> Array:
    """Class ids to colours.

    Args:
        label: uint8 H×W.
        palette: uint8 256×3 BGR, from :meth:`LabelSpace.palette_bgr`.
        out: buffer uint8 H×W×3 to write into; allocated where absent or of another size.

    Returns:
        uint8 H×W×3 BGR, ``out`` where it was usable.
    """
    return np.asarray(cv2.applyColorMap(label, palette.reshape(256, 1, 3), out), np.uint8)


def overlay(
    frame: Array,
    label: Array,
    palette: Array,
    *,
    opacity: float = 0.5,
    out: Array | None = None,
    keep_unlabelled: bool = False,
) -> Array:
    """Blend a label's colours over its frame.

    Args:
        frame: uint8 H×W×3 BGR.
        label: uint8 class ids; of another size than the frame it is enlarged by nearest neighbour.
        palette: uint8 256×3 BGR, from :meth:`LabelSpace.palette_bgr`.
        opacity: weight of the colours, 0 (frame alone) to 1 (colours alone).
        out: buffer uint8 H×W×3 to write into; must not be ``frame``.
        keep_unlabelled: show the bare frame where the label is 255, instead of darkening it.

    Returns:
        uint8 H×W×3 BGR, ``out`` where it was usable.

    Raises:
        DataError: if ``frame`` is not uint8 H×W×3, ``label`` not uint8 H×W, or ``opacity`` outside [0, 1].
    """
    _check(frame, label, opacity)
    if label.shape != frame.shape[:2]:
        size = (frame.shape[1], frame.shape[0])
        label = np.asarray(cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    colors = colorize(label, palette, out=out)
    # Blended in place: the colours are not needed again, and no second buffer is touched.
    blended = cv2.addWeighted(frame, 1.0 - opacity, colors, opacity, 0.0, dst=colors)
    if keep_unlabelled:
        cv2.copyTo(frame, cv2.compare(label, IGNORE, cv2.CMP_EQ), blended)  # type: ignore[call-overload]
    return np.asarray(blended, np.uint8)


def _check(frame: Array, label: Array, opacity: float) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise DataError(f"overlay: frame has shape {frame.shape} {frame.dtype}: expected uint8 HxWx3")
    if label.ndim != 2 or label.dtype != np.uint8:
        raise DataError(f"overlay: label has shape {label.shape} {label.dtype}: expected uint8 HxW")
    if not 0.0 <= opacity <= 1.0:
        raise DataError(f"overlay: opacity is {opacity}: expected 0 to 1")


def legend(label_space: LabelSpace, width: int, *, row_height: int = 22) -> Array:
    """A strip with every class's colour and name, in as many rows as ``width`` pixels ask for.

    Returns:
        uint8 ``[rows·row_height, width, 3]`` BGR.
    """
    scale = row_height / 48
    swatch = row_height - 8
    places, x, row = [], _GAP, 0
    for name in label_space.classes:
        wide = swatch + 3 * _GAP + cv2.getTextSize(name, _FONT, scale, 1)[0][0]
        if x + wide > width and x > _GAP:
            x, row = _GAP, row + 1
        places.append((x, row * row_height))
        x += wide + _GAP
    strip = np.full(((row + 1) * row_height, width, 3), _BACKGROUND, np.uint8)
    for (left, top), name, (red, green, blue) in zip(places, label_space.classes, label_space.colors, strict=True):
        strip[top + 4 : top + 4 + swatch, left : left + swatch] = (blue, green, red)
        baseline = (left + swatch + _GAP, top + row_height - 7)
        cv2.putText(strip, name, baseline, _FONT, scale, _TEXT, 1, cv2.LINE_AA)
    return strip


def strip(images: Sequence[Array], captions: Sequence[str], *, height: int = 240) -> Array:
    """Pictures side by side at one height, each with its caption above: "before", "after", "label".

    Args:
        images: uint8 H×W×3 BGR, of any sizes.
        captions: one line each.
        height: height of the pictures in the result, in pixels.

    Returns:
        uint8 BGR, ``height`` plus the caption's bar high.

    Raises:
        DataError: if there is no image, or not one caption for each.
    """
    if not images or len(images) != len(captions):
        raise DataError(f"strip: {len(images)} images and {len(captions)} captions: give at least one, and one each")
    panels = [_captioned(image, caption, height) for image, caption in zip(images, captions, strict=True)]
    gap = np.full((panels[0].shape[0], _GAP, 3), _BACKGROUND, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)][1:]
    return np.concatenate(parts, axis=1)


def before_after(
    frame: Array, before: Array, after: Array, label_space: LabelSpace, *, opacity: float = 0.55, height: int = 240
) -> Array:
    """One picture that shows what adaptation changed: frame, first model, adapted model, and the legend.

    Args:
        frame: uint8 H×W×3 BGR.
        before: the first model's label, uint8.
        after: the adapted model's label, uint8.
        label_space: names and colours.
        opacity: weight of the colours.
        height: height of each panel, in pixels.

    Raises:
        DataError: if the arrays do not fit, as in :func:`overlay`.
    """
    palette = label_space.palette_bgr()
    panels = [frame, *(overlay(frame, label, palette, opacity=opacity) for label in (before, after))]
    row = strip(panels, ("frame", "before", "after"), height=height)
    return np.concatenate([row, legend(label_space, row.shape[1])], axis=0)


def stacked(rows: Sequence[Array]) -> Array:
    """Pictures one below the other, each padded with black on the right to the widest: uint8 BGR; at least one."""
    width = max(row.shape[1] for row in rows)
    padded = [cv2.copyMakeBorder(row, 0, 0, 0, width - row.shape[1], cv2.BORDER_CONSTANT) for row in rows]
    return np.asarray(np.concatenate(padded, axis=0), np.uint8)


def _captioned(image: Array, caption: str, height: int) -> Array:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    shrinks = height < image.shape[0]
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    bar = np.full((24, width, 3), _BACKGROUND, np.uint8)
    cv2.putText(bar, caption, (6, 17), _FONT, 0.5, _TEXT, 1, cv2.LINE_AA)
    return np.concatenate([bar, np.asarray(scaled, np.uint8)], axis=0)
