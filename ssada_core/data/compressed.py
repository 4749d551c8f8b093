"""JPEG and PNG bytes ↔ arrays.

Frames may be JPEG or PNG. Labels are PNG only: JPEG changes pixel values, so it never carries class
ids. Structure (length, checksums, end marker, size) is checked before anything is decoded, because
decoders return half a picture for half a file.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssada_core.data.samples import Array
from ssada_core.errors import EncodingError

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_PIXELS = 1 << 27
"""Larger pictures are refused before memory is taken for them (134 megapixels)."""

_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# Cameras pad JPEG frames with zeros or a few stray bytes; a cut frame has no end marker near its end.
_JPEG_PADDING = 1024
_NOT_FRAME_HEADERS = frozenset({0xC4, 0xC8, 0xCC})
_GREY, _PALETTE = 0, 3
_EXIF_WITHIN = 1 << 16
_ORIENTATION, _SIDEWAYS = 0x0112, frozenset({5, 6, 7, 8})


def sniff(data: Buffer) -> Literal["jpeg", "png"] | None:
    """Tell JPEG from PNG by the first bytes; None for anything else."""
    head = bytes(memoryview(data)[:8])
    if head.startswith(_JPEG_START):
        return "jpeg"
    return "png" if head == _PNG_START else None


def decode_compressed(data: Buffer) -> Array:
    """Decode a JPEG or PNG frame to uint8 H×W×3 BGR.

    Grey becomes three equal channels, alpha is dropped, 16-bit PNG keeps its high bytes, and the
    orientation in EXIF is applied, as browsers do.

    Raises:
        EncodingError: if the bytes are neither, cut short, corrupt, or of an absurd size.
    """
    kind = sniff(data)
    raw = bytes(data)
    if kind is None:
        raise _foreign(raw)
    if kind == "jpeg":
        _check_jpeg(raw)
    else:
        _read_png_header(raw)
    return _imdecode(raw, kind)


def picture_size(data: Buffer) -> tuple[int, int]:
    """Height and width in pixels of JPEG or PNG bytes, from the header alone, without EXIF's orientation.

    Raises:
        EncodingError: as :func:`decode_compressed`.
    """
    raw = bytes(data)
    if sniff(raw) == "png":
        header = _read_png_header(raw)
        return header.height, header.width
    if sniff(raw) == "jpeg":
        return _check_jpeg(raw)
    raise _foreign(raw)


def displayed_size(data: Buffer) -> tuple[int, int]:
    """Height and width of what :func:`decode_compressed` makes of JPEG or PNG bytes, without decoding them.

    Raises:
        EncodingError: as :func:`decode_compressed`.
    """
    height, width = picture_size(data)
    return (width, height) if _lies_on_its_side(bytes(data)) else (height, width)


def _lies_on_its_side(raw: bytes) -> bool:
    if b"Exif\0\0" not in raw[:_EXIF_WITHIN] or sniff(raw) != "jpeg":
        return False
    try:
        with Image.open(io.BytesIO(raw)) as picture:
            return picture.getexif().get(_ORIENTATION) in _SIDEWAYS
    except (OSError, SyntaxError, ValueError, struct.error):  # damaged EXIF turns nothing
        return False


def decode_label(data: Buffer) -> Array:
    """Decode a label PNG to the raw ids in it, uint8 H×W. Palette files give their indices, not their colours.

    Raises:
        EncodingError: for JPEG, colour, 16-bit and other PNGs that cannot hold class ids, or corrupt bytes.
    """
    kind = sniff(data)
    raw = bytes(data)
    if kind == "jpeg":
        raise EncodingError("a label came as JPEG: JPEG never carries class ids, save the label as PNG")
    if kind is None:
        raise EncodingError(f"a label of {len(raw)} bytes starting {raw[:4].hex()!r} is not a PNG: save it as PNG")
    header = _read_png_header(raw)
    if header.color not in {_GREY, _PALETTE}:
        raise EncodingError("a label PNG holds colours, not class ids: save a single-channel or palette PNG")
    if header.color == _GREY and header.bits != 8:
        raise EncodingError(f"a label PNG has {header.bits} bits per pixel: save class ids with 8 bits")
    return _read_indices(raw)


def decode_wide_label(data: Buffer) -> Array:
    """Decode a 16-bit label PNG whose first channel holds the class ids, as SYNTHIA ships them, to uint8 H×W.

    Raises:
        EncodingError: for anything but a 16-bit PNG, ids above 255, or corrupt bytes.
    """
    raw = bytes(data)
    if sniff(data) != "png":
        raise EncodingError(f"a label of {len(raw)} bytes starting {raw[:4].hex()!r} is not a PNG: save it as PNG")
    header = _read_png_header(raw)
    if header.bits != 16:
        raise EncodingError(f"a label PNG has {header.bits} bits per channel where this data set has 16")
    picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise EncodingError(f"label PNG of {len(raw)} bytes cannot be decoded")
    ids = picture if picture.ndim == 2 else picture[..., 2]  # OpenCV gives the first channel, red, as the third
    if ids.max() > 255:
        raise EncodingError(f"a label PNG holds class id {ids.max()} in its first channel: ids go to 255")
    return ids.astype(np.uint8)


def encode_jpeg(bgr: Array, quality: int = 95) -> bytes:
    """Encode uint8 H×W×3 BGR (or H×W grey) as JPEG.

    Raises:
        EncodingError: if the array is not such an image, or the quality is not 1-100.
    """
    if not 1 <= quality <= 100:
        raise EncodingError(f"JPEG quality {quality} is not between 1 and 100")
    return _imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(array: Array) -> bytes:
    """Encode a label (uint8 H×W) or an image (uint8 H×W×3 BGR) as PNG, losslessly.

    Raises:
        EncodingError: if the array is neither.
    """
    return _imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 3])


@dataclass(frozen=True)
class _PngHeader:
    width: int
    height: int
    bits: int
    color: int


def _foreign(raw: bytes) -> EncodingError:
    return EncodingError(f"{len(raw)} bytes starting {raw[:4].hex()!r} are neither JPEG nor PNG: send one of those")


def _check_jpeg(raw: bytes) -> tuple[int, int]:
    """Check the structure and return height and width."""
    if _JPEG_END not in raw[-_JPEG_PADDING:]:
        raise EncodingError(f"JPEG of {len(raw)} bytes has no end marker: it was cut short, send it again")
    size = _jpeg_size(raw)
    if size is None:
        raise EncodingError(f"JPEG of {len(raw)} bytes has no frame header: it is corrupt, send it again")
    _check_size(*size)
    return size


def _jpeg_size(raw: bytes) -> tuple[int, int] | None:
    """Height and width from the frame header (ISO/IEC 10918-1, B.2.2), or None without one."""
    position = 2
    while position + 9 <= len(raw) and raw[position] == 0xFF:
        marker = raw[position + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAME_HEADERS:
            height, width = struct.unpack(">HH", raw[position + 5 : position + 9])
            return height, width
        else:
            position += 2 + int.from_bytes(raw[position + 2 : position + 4], "big")
    return None


def _read_png_header(raw: bytes) -> _PngHeader:
    """Check every chunk's length and checksum (PNG specification, 5.3) and return the header."""
    header: _PngHeader | None = None
    kind = b""
    for kind, body in _png_chunks(raw):
        if header is None:
            if kind != b"IHDR" or len(body) != 13:
                break
            width, height, bits, color = struct.unpack(">IIBB", body[:10])
            header = _PngHeader(width, height, bits, color)
            _check_size(height, width)
    if header is None or kind != b"IEND":
        raise EncodingError(f"PNG of {len(raw)} bytes is cut short or corrupt: send it again")
    return header


def _png_chunks(raw: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(raw)
    position = len(_PNG_START)
    while position + 12 <= len(raw):
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(raw):
            return
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise EncodingError(f"PNG checksum is wrong at byte {end}: the file is corrupt, send it again")
        kind = bytes(view[position + 4 : position + 8])
        yield kind, view[position + 8 : end]
        if kind == b"IEND":
            return
        position = end + 4


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise EncodingError(f"a picture of {width}x{height} pixels is refused (1 to {MAX_PIXELS} pixels are read)")


def _imdecode(raw: bytes, kind: str) -> Array:
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise EncodingError(f"{kind} of {len(raw)} bytes cannot be decoded: {error.err}") from error
    if image is None:
        raise EncodingError(f"{kind} of {len(raw)} bytes cannot be decoded: it is corrupt, send it again")
    return np.asarray(image, np.uint8)


def _read_indices(raw: bytes) -> Array:
    try:
        # Only PNG is allowed here; OpenCV is not used because it expands palettes to colours.
        with Image.open(io.BytesIO(raw), formats=("PNG",)) as picture:
            return np.array(picture, np.uint8)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error) as error:
        raise EncodingError(f"label PNG of {len(raw)} bytes cannot be decoded: {error}") from error


def _imencode(extension: str, array: NDArray[Any], parameters: list[int]) -> bytes:
    flat = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not flat or 0 in array.shape:
        raise EncodingError(
            f"cannot encode an array of shape {array.shape} {array.dtype} as {extension[1:]}: give uint8 HxW or HxWx3"
        )
    try:
        written, data = cv2.imencode(extension, array, parameters)
    except cv2.error as error:
        raise EncodingError(f"cannot encode {array.shape} as {extension[1:]}: {error.err}") from error
    if not written:
        raise EncodingError(f"cannot encode {array.shape} as {extension[1:]}")
    return data.tobytes()
