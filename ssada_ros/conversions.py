"""Messages to arrays and back. Pure functions; the only place that knows how a ROS image is laid out.

Pixels are read in place wherever the encoding allows it: on receipt ``Image.data`` is an ``array.array``, and a
NumPy view of it costs nothing. Filling is the expensive direction: a NumPy array assigned to ``data`` is copied
element by element (hundreds of milliseconds at 1280×720), ``array.frombytes`` is one memory copy.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from ssada_core.data import encodings
from ssada_core.data.samples import Array
from ssada_core.errors import EncodingError

CompressedImageT = TypeVar("CompressedImageT", bound=CompressedImage)

_NANOSECONDS = 1_000_000_000
_CHANNELS = {"bgr8": 3, "rgb8": 3, "mono8": 1, "8UC1": 1, "8UC3": 3}


def image_to_bgr(message: Image) -> Array:
    """Return the pixels of an ``Image``, uint8 H×W×3 BGR; a view of the message where its encoding allows it.

    Where the encoding is not one of ours and apt's ``cv_bridge`` is there, it is asked.

    Raises:
        EncodingError: if the encoding is unknown or the sizes do not fit the data.
    """
    try:
        return encodings.to_bgr(
            memoryview(message.data),
            encoding=message.encoding,
            height=message.height,
            width=message.width,
            step=message.step,
            is_bigendian=bool(message.is_bigendian),
        )
    except EncodingError as error:
        if message.encoding in encodings.ENCODINGS:
            raise
        return _with_cv_bridge(message, error)


def compressed_to_bgr(message: CompressedImage) -> Array:
    """Decode a ``CompressedImage`` (JPEG or PNG, told by its bytes), uint8 H×W×3 BGR.

    Raises:
        EncodingError: if the bytes are no image.
    """
    return encodings.decode_compressed(memoryview(message.data))


def label_from_image(message: Image) -> Array:
    """Return the class ids of a mono8 or 8UC1 ``Image``, uint8 H×W.

    Raises:
        EncodingError: for any other encoding, or if the sizes do not fit the data.
    """
    return encodings.to_label(
        memoryview(message.data),
        encoding=message.encoding,
        height=message.height,
        width=message.width,
        step=message.step,
    )


def fill_image(message: Image, pixels: NDArray[np.uint8], encoding: str, header: Header) -> Image:
    """Put an 8-bit image into ``message``, one memory copy, and return it.

    The same message may be filled again and again: ``publish`` serialises before it returns.

    Args:
        message: to be overwritten.
        pixels: uint8 H×W or H×W×3; made contiguous if it is not.
        encoding: bgr8, rgb8, mono8, 8UC1 or 8UC3.
        header: kept as it is (a result's header is its frame's).

    Raises:
        EncodingError: if the pixels do not fit the encoding.
    """
    needed = _CHANNELS.get(encoding)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or needed != channels:
        raise EncodingError(
            f"an array of shape {pixels.shape}, {pixels.dtype} cannot be published as '{encoding}': "
            f"give uint8 in one of {', '.join(_CHANNELS)}"
        )
    message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding, message.is_bigendian, message.step = encoding, 0, pixels.shape[1] * channels
    _refill(message.data, np.ascontiguousarray(pixels).data.cast("B"))
    return message


def fill_compressed(message: CompressedImageT, data: bytes, image_format: str, header: Header) -> CompressedImageT:
    """Put encoded image bytes, unchanged, into ``message`` and return it.

    Args:
        message: to be overwritten.
        data: a JPEG or PNG file's content.
        image_format: ``"jpeg"`` or ``"png"``.
        header: kept as it is.
    """
    message.header = header
    message.format = image_format
    _refill(message.data, memoryview(data))
    return message


def stamp_to_ns(stamp: Time) -> int:
    """Return a ROS time in nanoseconds."""
    return int(stamp.sec) * _NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> Time:
    """Return nanoseconds as a ROS time; exact, also for negative ones."""
    seconds, nanoseconds = divmod(stamp_ns, _NANOSECONDS)
    return Time(sec=seconds, nanosec=nanoseconds)


def make_header(stamp_ns: int, frame_id: str) -> Header:
    """Return a header with the given stamp and frame."""
    return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)


def string_message(content: Mapping[str, Any]) -> String:
    """Return a ``String`` that carries JSON; keys in the order given, no NaN (JSON has none)."""
    return String(data=json.dumps(content, allow_nan=False, ensure_ascii=False))


def json_of(message: String) -> dict[str, Any]:
    """Return the JSON object in a ``String``.

    Raises:
        EncodingError: if it is no JSON object.
    """
    try:
        content = json.loads(message.data)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and brackets without end
        raise EncodingError(f"a message is not JSON ({error}): {message.data[:80]!r}") from error
    if not isinstance(content, dict):
        raise EncodingError(f"a message is JSON but no object: {message.data[:80]!r}")
    return content


def _refill(data: array[int], content: memoryview) -> None:
    # In place: the array keeps its memory, so from the second frame of a size on nothing is allocated.
    if len(data) == content.nbytes:
        memoryview(data)[:] = content
        return
    del data[:]
    data.frombytes(content)


def _with_cv_bridge(message: Image, error: EncodingError) -> Array:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        raise error from None
    try:
        converted = CvBridge().imgmsg_to_cv2(message, desired_encoding="bgr8")
    except CvBridgeError as failure:
        raise EncodingError(f"{error}; nor does cv_bridge know it: {failure}") from failure
    return np.asarray(converted, dtype=np.uint8)
