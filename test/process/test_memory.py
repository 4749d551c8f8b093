"""The segmentation process keeps the memory it has: thousands of frames and model swaps over real DDS."""

from __future__ import annotations

import gc

import psutil
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from ssada_core.inference.engine import EngineSettings
from ssada_ros.bench_stage import BenchStage, running

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(900)]

FRAMES, SWAPS, PARTS = 10_000, 20, 5
RATE = 150.0
SIZE = (96, 160)
MOST_GROWTH = 1.02
"""Of the resident memory, from after the warm-up (which fills every cache and pool) to the end."""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_memory_does_not_grow_over_frames_and_swaps(ros_domain, tmp_path, backend):
    pytest.importorskip(backend)
    engine = EngineSettings.model_validate({"backend": backend, "threads": 1})
    stage = BenchStage(tmp_path, "random:bisenet_v1-resnet18", (64, 96), engine)
    versions = stage.add_versions(2)
    gc.collect()
    with running(stage, camera="reliable") as node:
        process = psutil.Process(node.pid)

        def part(frames: int, swaps: int) -> tuple[int, int]:
            served = len(node.drive(SIZE, RATE, frames).timings)
            job = {"size": SIZE, "rate": 20.0, "versions": versions, "settle": 3, "timeout_s": 300.0}
            done = node.swap({**job, "swaps": swaps})
            changes = len({entry["version"] for entry in done.timings.values()})
            assert changes == 2, "swaps did not happen"
            return served, len(done.swaps)

        part(FRAMES // PARTS, 4)
        before = process.memory_info().rss
        seen = [part(FRAMES // PARTS, SWAPS // PARTS) for _ in range(PARTS)]
        after = process.memory_info().rss
    served, swaps = map(sum, zip(*seen, strict=True))
    print(f"{backend}: {served} frames served, {swaps} swaps: {before / 1e6:.1f} -> {after / 1e6:.1f} MB")  # noqa: T201 (the figures, with -s)
    assert served > FRAMES * 0.5
    assert swaps == SWAPS
    assert after <= MOST_GROWTH * before
