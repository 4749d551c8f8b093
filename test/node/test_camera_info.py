"""A mask's calibration: points of the world land on the mask's pixel that shows what the frame's pixel shows."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from sensor_msgs.msg import CameraInfo, RegionOfInterest

from ssada_ros.camera_info import View, scaled_info
from ssada_ros.regions import WHOLE, Region

pytestmark = pytest.mark.ros

FRAME = (480, 640)


def calibration(height=480, width=640, **more):
    info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.1, -0.2, 0.0, 0.0, 0.05], **more)
    info.k = [500.0, 0.0, 321.5, 0.0, 510.0, 238.25, 0.0, 0.0, 1.0]
    info.p = [480.0, 0.0, 320.0, -48.0, 0.0, 490.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.r = [float(value) for value in np.eye(3).ravel()]
    return info


def projected(matrix, columns):
    """Points in front of the camera, as pixels."""
    points = np.array([[0.0, 0.0, 2.0, 1.0], [1.0, -0.5, 4.0, 1.0], [-2.0, 1.0, 9.0, 1.0]])[:, :columns]
    image = np.asarray(matrix).reshape(3, columns) @ points.T
    return (image[:2] / image[2]).T


@pytest.mark.parametrize(
    ("region", "mask"),
    [
        (WHOLE, (480, 640)),
        (WHOLE, (192, 320)),
        (WHOLE, (960, 1280)),
        (Region(0.25, 0.5, 1.0, 1.0), (240, 480)),
        (Region(0.0, 0.3, 0.8, 0.9), (96, 160)),
    ],
)
def test_a_point_lands_where_the_mask_shows_it(region, mask):
    info = calibration()
    rows, columns = region.pixels(*FRAME)
    scaled = scaled_info(info, View.of(region, FRAME, mask))
    assert (scaled.height, scaled.width) == mask
    assert (scaled.d, scaled.distortion_model, list(scaled.r)) == (info.d, "plumb_bob", list(info.r))
    # OpenCV's resize: a pixel's centre is half a pixel from its edge, before and after.
    scale = np.array([mask[1] / (columns.stop - columns.start), mask[0] / (rows.stop - rows.start)])
    offset = np.array([columns.start, rows.start])
    for before, after, width in ((info.k, scaled.k, 3), (info.p, scaled.p, 4)):
        expected = (projected(before, width) - offset + 0.5) * scale - 0.5
        np.testing.assert_allclose(projected(after, width), expected, atol=1e-9)


def test_a_mask_of_the_frames_size_keeps_the_calibration():
    info = calibration()
    same = scaled_info(info, View.of(WHOLE, FRAME, FRAME))
    np.testing.assert_allclose((*same.k, *same.p), (*info.k, *info.p), atol=1e-12)


def test_the_drivers_own_binning_and_region_come_first():
    info = calibration(height=960, width=1280, binning_x=2, binning_y=2)
    assert (scaled_info(info, View.of(WHOLE, FRAME, FRAME)).k[0]) == pytest.approx(250.0)
    info.roi = RegionOfInterest(x_offset=100, y_offset=50, width=640, height=480)
    assert scaled_info(info, View.of(WHOLE, FRAME, FRAME)) is None
    scaled = scaled_info(info, View.of(WHOLE, (240, 320), (240, 320)))
    assert scaled.k[2] == pytest.approx((321.5 - 100 + 0.5) / 2 - 0.5)
    assert scaled.k[5] == pytest.approx((238.25 - 50 + 0.5) / 2 - 0.5)


def test_what_is_not_calibrated_stays_so():
    bare = CameraInfo(height=480, width=640)
    assert not np.any(scaled_info(bare, View.of(WHOLE, FRAME, (192, 320))).k)


def test_a_calibration_of_other_frames_is_not_passed_on():
    assert scaled_info(calibration(), View.of(WHOLE, (720, 1280), (192, 320))) is None
