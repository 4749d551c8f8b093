"""What an operator sees when the disk is full, a detector fails, or a worker is killed again and again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

import ros_fixtures
from adaptation_fixtures import DRIVE, POOL, SECOND, TRAINING, adaptation_settings, fill_pool, make_registry, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image

from ssada_core.adaptation.adapter import Adapter
from ssada_ros import qos
from ssada_ros.adaptation_status import adaptation_statuses
from ssada_ros.conversions import fill_image, make_header
from ssada_ros.segmentation_node import SegmentationNode


class Silent:
    def on_queries(self, records):
        pass

    def on_label(self, result):
        pass

    def on_promoted(self, version, reason):
        pass


def status_of(adapter, name):
    statuses = adaptation_statuses("adaptation_node", {**adapter.status(), "trouble": ""})
    return next(status for status in statuses if status.name == f"adaptation_node: {name}")


def offer(adapter, index):
    return adapter.offer(DRIVE.frame(index, "night")[0], jpeg=None, camera="front", stamp_ns=index * SECOND)


@pytest.fixture
def small_disk(tmp_path):
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_shown_until_there_is_room(tmp_path, small_disk):
    make_registry(tmp_path / "registry")
    settings = adaptation_settings(tmp_path, pool_dir=str(small_disk / "pool"))
    adapter = Adapter(settings, Silent(), lambda _: None)
    try:
        assert offer(adapter, 0).reason == "stored"
        assert status_of(adapter, "pool").level == DiagnosticStatus.OK
        with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        assert offer(adapter, 1).reason == "disk"
        shown = status_of(adapter, "pool")
        assert shown.level == DiagnosticStatus.ERROR
        assert "frames are no longer stored" in shown.message
        assert "disk" in shown.message
        (small_disk / "ballast").unlink()
        assert offer(adapter, 2).reason == "stored"
        assert status_of(adapter, "pool").level == DiagnosticStatus.OK
    finally:
        adapter.close()


def test_a_failing_privacy_detector_is_shown(tmp_path):
    make_registry(tmp_path / "registry")
    pool = POOL.model_copy(update={"privacy": POOL.privacy.model_copy(update={"detectors": ["nowhere:find"]})})
    adapter = Adapter(adaptation_settings(tmp_path, pool=pool), Silent(), lambda _: None)
    try:
        assert offer(adapter, 0).reason == "privacy"
        shown = status_of(adapter, "pool")
        assert shown.level == DiagnosticStatus.ERROR
        assert "privacy detector 'nowhere:find' cannot be imported" in shown.message
    finally:
        adapter.close()


def test_a_worker_that_is_killed_again_and_again_is_shown(tmp_path):
    make_registry(tmp_path / "registry")
    fill_pool(tmp_path / "pool")
    training = TRAINING.model_copy(update={"iterations": 100_000})
    settings = adaptation_settings(tmp_path, training=training, worker_restarts=1)
    adapter = Adapter(settings, Silent(), lambda _: None)
    try:
        adapter.adapt(0.0)
        clock = iter(range(10**6))
        killed = set()

        def kill():
            adapter.tick(next(clock))
            worker = adapter._conductor.rounds._worker
            if worker is not None and worker.pid not in killed:
                killed.add(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
            return adapter.status()["failure"]

        wait_until(kill, "the round to fail", pause=0.05)
        assert len(killed) == 2
        shown = status_of(adapter, "training")
        assert shown.level == DiagnosticStatus.ERROR
        assert "the machine ran out of memory" in shown.message
    finally:
        adapter.close()


def test_masks_come_again_with_the_camera(tmp_path, ros_domain):
    registry = ros_fixtures.make_registry(tmp_path)
    parameters = {"model": registry.root, "engine__backend": "torch", "engine__threads": 1, "silence_s": 1.0}
    with ros_fixtures.Bench(SegmentationNode, **parameters) as bench:
        bench.node.trigger_configure()
        bench.node.trigger_activate()
        arrays = bench.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
        masks = bench.watch(Image, "/segmentation_node/camera/mask", qos.latest_profile())

        def level():
            status = ros_fixtures.newest(arrays, ": camera")
            return status and status.level

        for _ in range(2):  # it goes, and comes back as another publisher, as a restarted driver does
            drive_and_vanish(bench, masks, level)
            assert "no frame for" in ros_fixtures.newest(arrays, ": camera").message


def drive_and_vanish(bench, masks, level):
    """A camera until there are masks of it and the diagnostics are content; then none until they are not."""
    camera = bench.watcher.create_publisher(Image, "camera/image", qos.latest_profile(reliability="reliable"))
    before = len(masks)

    def drive():
        header = make_header(len(masks) * SECOND, "front")
        camera.publish(fill_image(Image(), ros_fixtures.night(len(masks) % 6)[0], "bgr8", header))

    paced = ros_fixtures.steady(drive, 0.25)  # a camera that is too fast for the machine is a warning, too
    bench.until(lambda: len(masks) >= before + 3, every=paced)
    bench.until(lambda: level() == DiagnosticStatus.OK, every=paced)
    bench.watcher.destroy_publisher(camera)
    bench.until(lambda: level() == DiagnosticStatus.ERROR)
