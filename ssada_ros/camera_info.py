"""A camera's calibration, passed on for the masks: the same lens, seen through another size."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from ssada_ros.qos import camera_profile
from ssada_ros.regions import Region


@dataclass(frozen=True)
class View:
    """What a mask shows of its frame, in pixels.

    Attributes:
        frame: height and width of the frame.
        top: first row of the frame that the mask shows.
        left: first column.
        shown: height and width of that part of the frame.
        mask: height and width of the mask.
    """

    frame: tuple[int, int]
    top: int
    left: int
    shown: tuple[int, int]
    mask: tuple[int, int]

    @classmethod
    def of(cls, region: Region, frame: tuple[int, int], mask: tuple[int, int]) -> View:
        """The view of a mask that shows a region of its frame."""
        rows, columns = region.pixels(*frame)
        return cls(frame, rows.start, columns.start, (rows.stop - rows.start, columns.stop - columns.start), mask)


class InfoFollower:
    """Keeps the newest ``CameraInfo`` of a camera; :meth:`newest` may be called by another thread."""

    def __init__(self, node: Node, topic: str, undo: ExitStack) -> None:
        """Subscribe; ``undo`` ends it."""
        self._raw = b""
        self._read = b""
        self._info: CameraInfo | None = None
        subscription = node.create_subscription(CameraInfo, topic, self._store, camera_profile(), raw=True)
        undo.callback(node.destroy_subscription, subscription)

    def newest(self) -> CameraInfo | None:
        """The newest one, None before the first and for one that cannot be read."""
        raw = self._raw
        if raw != self._read:
            self._read = raw
            self._info = _deserialized(raw)
        return self._info

    def _store(self, message: bytes) -> None:
        self._raw = message


def scaled_info(info: CameraInfo, view: View) -> CameraInfo | None:
    """The calibration of a mask that shows ``view``; None if ``info`` belongs to frames of another shape.

    Pixel (0, 0)'s centre is at (0, 0), as in ``image_geometry`` and in OpenCV, which resized the mask: so the
    principal point moves by half a pixel more than the plain scale. Distortion and rotation stay as they are.
    """
    # The driver's own binning and region come first: the matrices are those of its full picture.
    bins = (max(info.binning_x, 1), max(info.binning_y, 1))
    whole = not (info.roi.width and info.roi.height)
    width, height = (info.width, info.height) if whole else (info.roi.width, info.roi.height)
    if (height // bins[1], width // bins[0]) != view.frame:
        return None
    steps = [
        ((1.0 / bins[0], info.roi.x_offset), (1.0 / bins[1], info.roi.y_offset)),
        ((view.mask[1] / view.shown[1], view.left), (view.mask[0] / view.shown[0], view.top)),
    ]
    k, p = list(info.k), list(info.p)
    for x, y in steps:
        k, p = _scaled(k, 3, x, y), _scaled(p, 4, x, y)
    scaled = CameraInfo(header=info.header, distortion_model=info.distortion_model, d=info.d, r=info.r, k=k, p=p)
    scaled.height, scaled.width = view.mask
    scaled.roi = RegionOfInterest(do_rectify=info.roi.do_rectify)
    return scaled


def _scaled(matrix: list[float], columns: int, x: tuple[float, float], y: tuple[float, float]) -> list[float]:
    """A row-major camera matrix after the pixels were cut by the offsets and then scaled."""
    result = list(matrix)
    for row, (scale, offset) in enumerate((x, y)):
        # u' = scale·(u - offset) + (scale - 1)/2, and the third row of the matrix is the divisor of u.
        shift = (scale - 1.0) / 2.0 - scale * offset
        for column in range(columns):
            below = matrix[2 * columns + column]
            result[row * columns + column] = scale * matrix[row * columns + column] + shift * below
    return result


def _deserialized(raw: bytes) -> CameraInfo | None:
    try:
        info: CameraInfo = deserialize_message(raw, CameraInfo)
    except RuntimeError:  # rclpy's RMWError: what calls itself CameraInfo is something else
        return None
    return info
