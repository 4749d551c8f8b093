"""The demo's witness, fed over real DDS."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from ssada_ros import qos
from ssada_ros.conversions import fill_image, make_header
from ssada_ros.demo_drive import monitored

pytestmark = pytest.mark.ros


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_it_counts_compares_and_copies(ros_domain):
    truth = np.array([[0, 0, 1], [1, 1, 255]], np.uint8)
    answer = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)
    with monitored(11) as monitor:
        node = rclpy.create_node("feeder", use_global_arguments=False)
        executor = SingleThreadedExecutor()
        reliable, latched = qos.reliable_profile(depth=50), qos.latched_profile()
        published = node.create_publisher(CameraInfo, "camera/camera_info", reliable)
        labels = node.create_publisher(Image, "camera/label", reliable)
        masks = node.create_publisher(Image, "segmentation_node/camera/mask", reliable)
        models = node.create_publisher(String, "segmentation_node/model", latched)
        status = node.create_publisher(String, "adaptation_node/status", latched)
        try:
            for publisher in (published, labels, masks, models, status):
                assert wait_for(lambda publisher=publisher: publisher.get_subscription_count() == 1)
            before = monitor.record()
            for stamp in (1_000_000_000, 2_000_000_000):
                published.publish(CameraInfo(header=make_header(stamp, "front")))
            labels.publish(fill_image(Image(), truth, "mono8", make_header(1_000_000_000, "front")))
            models.publish(String(data=json.dumps({"version": "v0001", "first_stamp_ns": {"a": 7, "b": 5}})))
            status.publish(String(data=json.dumps({"labels": 3})))
            time.sleep(0.5)  # topics have no order among each other; the label must be there before its mask
            for stamp in (1_000_000_000, 2_000_000_000):
                masks.publish(fill_image(Image(), answer, "mono8", make_header(stamp, "front")))
            assert wait_for(lambda: len(monitor.record().masks) == 2)
            assert wait_for(lambda: len(monitor.record().published_ns) == 2)
            assert wait_for(lambda: monitor.record().status and monitor.record().versions)
        finally:
            executor.shutdown()
            node.destroy_node()
        record = monitor.record()
    assert before.masks == []
    assert record.published_ns == [1_000_000_000, 2_000_000_000]
    assert record.versions == [("v0001", 5)]
    assert record.status == {"labels": 3}
    first, second = record.masks
    assert second.matrix is None
    assert first.matrix is not None
    assert first.matrix.sum() == 5  # the pixel labelled 255 is not judged
    assert record.live_miou(10) == {"v0001": pytest.approx(100 * (1 / 2 + 3 / 4) / 2)}
    assert first.latency_ms == pytest.approx((first.received_ns - 1_000_000_000) / 1e6)
