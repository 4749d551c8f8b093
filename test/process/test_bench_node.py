"""``ssada bench node`` and ``ssada bench swap`` with real nodes over real DDS, on a network of a few pixels."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cli_fixtures import ssada_here

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

MODEL = ("--model", "random:bisenet_v1-resnet18", "--network-size", "64x96")
ENGINE = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1")


def ssada_bench(tmp_path, *arguments):
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "ssada_ros.cli", "bench", *arguments, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == figures
    return figures


def test_the_real_node_is_measured_at_every_rate(ros_domain, tmp_path):
    options = ("--sizes", "96x160,120x200", "--rates", "5,10", "--seconds", "2", "--turns", "0")
    found = ssada_bench(tmp_path, "node", *MODEL, *ENGINE, *options)
    assert [(row["size"], row["rate_hz"]) for row in found["rates"]][:1] == [("96x160", 5.0)]
    assert {row["size"] for row in found["rates"]} == {"96x160", "120x200"}
    for row in found["rates"]:
        assert row["frames"] == 20
        assert 0 < row["masks"] <= row["received"] + row["dropped"] <= 2 * row["frames"]
        for name in ("latency_ms", "engine_ms", "overhead_ms", "camera_ms"):
            assert 0 < row[name]["p50"] <= row[name]["p99"]
        # From the end of the publishing: the subscriber may have the mask before that.
        assert -5 < row["mask_ms"]["p50"] <= row["mask_ms"]["p99"]
        assert row["latency_ms"]["p50"] > row["engine_ms"]["p50"]
    whole = {row["size"] for row in found["rates"] if row["masks"] == row["frames"]}
    assert {size for size, rate in found["highest_rate_hz"].items() if rate is not None} == whole


def test_every_swap_is_counted_and_its_cost_seen(ros_domain, tmp_path):
    found = ssada_bench(tmp_path, "swap", *MODEL, *ENGINE, "--size", "96x160", "--swaps", "3", "--settle", "4")
    assert found["swaps"] == 3
    assert found["frames"] >= 3 * 5
    assert found["lost"] <= found["frames"] // 4
    assert found["longest_gap_ms"] >= found["longest_gap_periods"] > 0
    assert found["preparation_ms"]["p50"] > 0


def test_what_reaches_the_node_is_counted_with_and_without_the_profile(ros_domain, tmp_path):
    options = ("--transport", "--frames", "15", "--sizes", "480x640")
    found = ssada_bench(tmp_path, "node", *MODEL, *ENGINE, *options)
    without, with_it = found["transport"]
    assert (without["profile"], with_it["profile"]) == (False, True)
    assert without["frames"] == with_it["frames"] == 15
    assert with_it["received"] >= max(10, without["received"] - 3)


@pytest.mark.slow
def test_a_training_round_goes_on_in_its_turns(ros_domain, tmp_path):
    options = ("--sizes", "96x160", "--rates", "5", "--seconds", "4", "--turns", "2")
    training = ssada_bench(tmp_path, "node", *MODEL, *ENGINE, *options)["training"]
    assert training["training_steps"] >= 2
    assert training["alone"]["frames"] == training["beside"]["frames"] == 80
    assert training["p50_ratio"] > 0
    assert len(training["beside"]["turns_p50_ms"]) == 2


def test_wrong_use_is_one_line(tmp_path):
    for wrong in (("--rates", "10,5"), ("--rates", "fast"), ("--sizes", "640"), ("--backend", "openvin")):
        done = ssada_here("bench", "node", *wrong)
        assert (done.status, done.out) == (2, "")
        assert "error:" in done.err
