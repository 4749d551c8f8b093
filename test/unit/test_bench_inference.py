from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ssada_core.bench import roofline
from ssada_core.bench.inference import InferenceBench, measure
from ssada_core.bench.random_model import write_random_model
from ssada_core.bench.rows import rows
from ssada_core.commands.bench import parse_size
from ssada_core.errors import ConfigError
from ssada_core.inference.load import read_model


def test_rows_always_hold_the_reference_and_know_both_layouts_of_torch() -> None:
    everything = [(row.backend, row.precision) for row in rows([], [])]
    assert everything[:2] == [("torch", "fp32"), ("torch", "fp32_channels_last")]
    assert {("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "int8")} < set(everything)
    named = [(row.backend, row.precision) for row in rows(["openvino"], ["int8"])]
    assert named == [("torch", "fp32"), ("openvino", "int8")]
    assert {row.precision for row in rows(["torch"], ["fp32"])} == {"fp32", "fp32_channels_last"}
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        rows(["openvin"], [])
    with pytest.raises(ConfigError, match="did you mean 'int8'"):
        rows([], ["int"])


def test_the_int8_product_is_the_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "SIDE", 16)
    session = onnxruntime.InferenceSession(roofline._int8_product(), providers=["CPUExecutionProvider"])
    a = np.random.default_rng(5).integers(0, 16, (16, 16)).astype(np.uint8)
    weights = np.random.default_rng(1).integers(-127, 128, (16, 16))
    expected = np.clip(np.round(a @ weights * 0.02**2 / (0.02 * 16)) + 128, 0, 255)
    (found,) = session.run(None, {"rows": a})
    assert len(np.unique(expected)) > 10
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_random_networks_are_the_same_each_time_and_named_ones_only(tmp_path: Path) -> None:
    for name in "ab":
        write_random_model("random:bisenet_v1-resnet18", tmp_path / name, (64, 96))
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (tmp_path / "b/weights.safetensors").read_bytes()
    network, manifest = read_model(tmp_path / "a")
    assert (manifest.network.backbone, manifest.network.input_width) == ("resnet18", 96)
    assert not network.training
    with pytest.raises(ConfigError, match="resnet19"):
        write_random_model("random:bisenet_v1-resnet19", tmp_path / "c", (64, 96))
    with pytest.raises(ConfigError, match="ARCHITECTURE-BACKBONE"):
        write_random_model("random:", tmp_path / "c", (64, 96))


def test_what_is_measured_is_what_the_engines_did(tmp_path: Path) -> None:
    turns: list[int] = []
    bench = InferenceBench(
        "random:bisenet_v1-resnet18",
        (64, 96),
        backends=["onnxruntime"],
        precisions=["fp32"],
        threads=1,
        turns=2,
        data="sim:day:3:0-40:8",
        frame_size=(70, 100),
    )
    figures = measure(bench, log=lambda _: None, on_turn=lambda done, _: turns.append(done))
    assert json.loads(json.dumps(figures)) == figures
    assert turns == [1, 2]
    assert [(row["backend"], row["precision"]) for row in figures["results"]] == [
        ("torch", "fp32"),
        ("onnxruntime", "fp32"),
    ]
    for row in figures["results"]:
        assert row["agreement"] >= 0.999
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p90"] <= row["latency_ms"]["p99"]
        assert row["load_s"] < row["startup_s"]
        assert row["size"] == "64x96"
    torch_row, onnx_row = figures["results"]
    assert onnx_row["peak_rss_mb"] < torch_row["peak_rss_mb"]  # without torch in its process
    roof = figures["roofline"]
    assert roof["model_gflop"] == pytest.approx(27.72 * (64 * 96) / (384 * 640), rel=0.02)
    share = roof["model_gflop"] / (torch_row["latency_ms"]["p50"] / 1e3) / roof["fp32_gflops"]
    assert torch_row["roofline_share"] == pytest.approx(share, rel=0.05)
    assert roof["int8_gops"] > 0


@pytest.mark.parametrize("text", ["10x384", "384x5000", "384", "384x", "99999999999x384", "-384x640"])
def test_a_size_that_no_network_takes_is_named(text):
    with pytest.raises(ConfigError, match=f"--size '{re.escape(text)}'"):
        parse_size("--size", text)
