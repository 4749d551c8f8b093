"""Image bytes ↔ arrays, for every encoding that ROS cameras send.

The names are those of ``sensor_msgs/image_encodings``. This is a pure replacement of ``cv_bridge``:
``step`` (padded rows) and ``is_bigendian`` are honoured, nothing is copied where the bytes already are
BGR, and every wrong message ends in an :class:`~ssada_core.errors.EncodingError` of one line.

Conventions:

- ``8UC3`` and ``8UC4`` are taken as BGR and BGRA, as ``cv_bridge`` does.
- 16-bit values keep their high byte (``value >> 8``).
- ``32FC1`` (depth, thermal) is stretched from its finite minimum to its finite maximum over 0-255; what is
  not finite, and an image that is constant, becomes 0.
- YUV is BT.601, limited range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssada_core.data.compressed import (
    decode_compressed,
    decode_label,
    decode_wide_label,
    displayed_size,
    encode_jpeg,
    encode_png,
    picture_size,
    sniff,
)
from ssada_core.data.samples import Array
from ssada_core.errors import EncodingError
from ssada_core.settings import nearest

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "ENCODINGS",
    "LABEL_ENCODINGS",
    "decode_compressed",
    "decode_label",
    "decode_wide_label",
    "displayed_size",
    "encode_jpeg",
    "encode_png",
    "picture_size",
    "sniff",
    "to_bgr",
    "to_label",
]

Decode = Callable[[NDArray[Any]], Array]
LABEL_ENCODINGS = ("mono8", "8UC1")


@dataclass(frozen=True)
class _Format:
    """How an encoding lies in memory, and the decoder of its 8-bit (or float) values.

    Attributes:
        channels: values per pixel within a row.
        decode: array H×W (one channel) or H×W×channels → BGR.
        value_bytes: 1, 2 (the high byte is decoded) or 4 (float32).
        even_width: chroma is shared by pairs of columns.
        chroma_plane: half as many rows again follow the height (4:2:0, two planes).
        min_side: smaller pictures cannot be decoded (OpenCV blanks Bayer pictures under 3 pixels).
    """

    channels: int
    decode: Decode
    value_bytes: int = 1
    even_width: bool = False
    chroma_plane: bool = False
    min_side: int = 1


def to_bgr(data: Buffer, *, encoding: str, height: int, width: int, step: int, is_bigendian: bool = False) -> Array:
    """Decode the bytes of a ``sensor_msgs/Image``.

    Args:
        data: the message's bytes: ``array.array``, ``bytes``, ``memoryview``, any contiguous buffer.
        encoding: one of :data:`ENCODINGS`.
        height: rows in pixels.
        width: columns in pixels.
        step: bytes from one row to the next.
        is_bigendian: byte order of values wider than 8 bits.

    Returns:
        uint8 H×W×3 BGR. For ``bgr8`` and ``8UC3`` a view of ``data`` (padded rows included): copy it to keep it
        longer than the message.

    Raises:
        EncodingError: if the encoding is not known or the numbers do not fit the data.
    """
    form = ENCODINGS.get(encoding)
    if form is None:
        raise EncodingError(f"unknown image encoding '{encoding}'{nearest(encoding, list(ENCODINGS))}")
    _check(data, form, encoding, height, width, step)
    return form.decode(_view(data, form, height, width, step, is_bigendian=is_bigendian))


def to_label(data: Buffer, *, encoding: str, height: int, width: int, step: int) -> Array:
    """Read a label image: class ids as they are, uint8 H×W, a view of ``data``.

    Raises:
        EncodingError: if the encoding cannot carry class ids or the numbers do not fit the data.
    """
    if encoding not in LABEL_ENCODINGS:
        raise EncodingError(
            f"label encoding '{encoding}' does not carry class ids: send {' or '.join(LABEL_ENCODINGS)}"
        )
    form = ENCODINGS[encoding]
    _check(data, form, encoding, height, width, step)
    return _view(data, form, height, width, step, is_bigendian=False)


def _check(data: Buffer, form: _Format, encoding: str, height: int, width: int, step: int) -> None:
    buffer = memoryview(data)
    what = f"{encoding} image {width}x{height} with step {step}"
    if min(height, width) < form.min_side:
        raise EncodingError(f"{what}: the smallest size is {form.min_side}x{form.min_side}")
    if (form.even_width and width % 2) or (form.chroma_plane and height % 2):
        raise EncodingError(f"{what}: this encoding shares colour between pixels and needs an even size")
    row = width * form.channels * form.value_bytes
    if step < row:
        raise EncodingError(f"{what}: a row needs {row} bytes")
    needed = step * (_rows(form, height) - 1) + row
    if buffer.nbytes < needed:
        raise EncodingError(f"{what}: {needed} bytes needed, {buffer.nbytes} came")
    if not buffer.c_contiguous:
        raise EncodingError(f"{what}: the buffer is not contiguous: send a copy of it")


def _rows(form: _Format, height: int) -> int:
    return height * 3 // 2 if form.chroma_plane else height


def _view(data: Buffer, form: _Format, height: int, width: int, step: int, *, is_bigendian: bool) -> NDArray[Any]:
    """Strided view of ``data``: H×W for one channel, else H×W×channels; 16-bit shows the high bytes only."""
    size = form.value_bytes
    shape = (_rows(form, height), width, form.channels)
    strides = (step, form.channels * size, size)
    if form.channels == 1:
        shape, strides = shape[:2], strides[:2]  # type: ignore[assignment]
    if size == 4:
        return np.ndarray(shape, ">f4" if is_bigendian else "<f4", buffer=memoryview(data), strides=strides)
    high = 1 if size == 2 and not is_bigendian else 0
    return np.ndarray(shape, np.uint8, buffer=memoryview(data), offset=high, strides=strides)


def _as_is(pixels: NDArray[Any]) -> Array:
    return pixels


def _convert(code: int) -> Decode:
    def decode(pixels: NDArray[Any]) -> Array:
        return np.asarray(cv2.cvtColor(pixels, code))

    return decode


def _high(decode: Decode) -> Decode:
    """The decoder for the high bytes of 16-bit values, which are not side by side in memory."""

    def decode_high(pixels: NDArray[Any]) -> Array:
        return decode(np.ascontiguousarray(pixels))

    return decode_high


def _stretch(values: NDArray[Any]) -> Array:
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros((*values.shape, 3), np.uint8)
    known = values[finite]
    low, high = float(known.min()), float(known.max())
    # Single precision is twice as fast, but extreme ranges overflow it.
    kind = np.float32 if 1e-30 < high - low < 1e30 else np.float64
    scaled: NDArray[Any] = np.where(finite, values, low).astype(kind)
    scaled -= kind(low)
    scaled *= kind(255.0 / (high - low) if high > low else 0.0)
    grey = np.where(finite, np.rint(scaled, out=scaled), 0.0).astype(np.uint8)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))


def _formats() -> dict[str, _Format]:
    grey = _convert(cv2.COLOR_GRAY2BGR)
    rgb = _convert(cv2.COLOR_RGB2BGR)
    rgba = _convert(cv2.COLOR_RGBA2BGR)
    bgra = _convert(cv2.COLOR_BGRA2BGR)
    uyvy = _Format(2, _convert(cv2.COLOR_YUV2BGR_UYVY), even_width=True)
    yuyv = _Format(2, _convert(cv2.COLOR_YUV2BGR_YUY2), even_width=True)
    plain: dict[str, tuple[int, Decode]] = {
        "mono": (1, grey),
        "rgb": (3, rgb),
        "bgr": (3, _as_is),
        "rgba": (4, rgba),
        "bgra": (4, bgra),
    }
    # ROS names the pattern's first two rows; so do OpenCV's four-letter constants (its two-letter ones do not).
    bayer = {
        "bayer_rggb": _convert(cv2.COLOR_BayerRGGB2BGR),
        "bayer_bggr": _convert(cv2.COLOR_BayerBGGR2BGR),
        "bayer_gbrg": _convert(cv2.COLOR_BayerGBRG2BGR),
        "bayer_grbg": _convert(cv2.COLOR_BayerGRBG2BGR),
    }
    formats = {f"{name}8": _Format(channels, decode) for name, (channels, decode) in plain.items()}
    formats |= {f"{name}16": _Format(channels, _high(decode), 2) for name, (channels, decode) in plain.items()}
    formats |= {f"{name}8": _Format(1, decode, min_side=3) for name, decode in bayer.items()}
    formats |= {f"{name}16": _Format(1, _high(decode), 2, min_side=3) for name, decode in bayer.items()}
    for channels, name in ((1, "mono"), (3, "bgr"), (4, "bgra")):
        formats[f"8UC{channels}"] = formats[f"{name}8"]
        formats[f"16UC{channels}"] = formats[f"{name}16"]
    return formats | {
        "32FC1": _Format(1, _stretch, 4),
        "yuv422": uyvy,
        "uyvy": uyvy,
        "yuv422_yuy2": yuyv,
        "yuyv": yuyv,
        "nv12": _Format(1, _convert(cv2.COLOR_YUV2BGR_NV12), even_width=True, chroma_plane=True),
        "nv21": _Format(1, _convert(cv2.COLOR_YUV2BGR_NV21), even_width=True, chroma_plane=True),
    }


ENCODINGS: dict[str, _Format] = _formats()
"""Every known encoding by its ROS name."""
