from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from engine_fixtures import write_model

from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.errors import EngineError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import deploy
from ssada_core.inference.load import load_engine, read_manifest
from ssada_core.inference.quantise import QuantisationSettings, miou, split
from ssada_core.inference.targets import INT8_TARGET, installed_targets, targets_for
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.model_files import seal
from ssada_core.store.models import resolve_model

SIZE = (96, 128)
SETTINGS = NetworkSettings(input_height=SIZE[0], input_width=SIZE[1])
DRIVE = SimulatedDrive(seed=1, size=SIZE)
FRAMES = [DRIVE.frame(index * 7, "day")[0] for index in range(9)]
LENIENT = QuantisationSettings(min_equal=0.8)

needs_nncf = pytest.mark.skipif(
    find_spec("nncf") is None or find_spec("openvino") is None, reason="pip install 'ssada_ros[openvino]'"
)


def settings(backend: str = "openvino", **values: object) -> EngineSettings:
    return EngineSettings.model_validate({"backend": backend, "threads": 1, "output_size": "network", **values})


@pytest.fixture(scope="module")
def shared_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Deployed as everything, int8 included; not to be changed by a test."""
    pytest.importorskip("nncf")
    folder = write_model(tmp_path_factory.mktemp("int8") / "model", SETTINGS)
    report = deploy(folder, frames=FRAMES, quantisation=LENIENT)
    assert report.refused == ()
    return folder


@pytest.fixture
def model(shared_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared_model, tmp_path / "model"))


def test_frames_are_split_into_calibration_and_held() -> None:
    assert split(4, QuantisationSettings()) == ([0, 1, 3], [2])
    calibration, held = split(1000, QuantisationSettings(frames=24))
    assert len(calibration) == 16
    assert len(held) == 8
    assert not set(calibration) & set(held)
    assert min(calibration) == 0
    assert max(calibration + held) == 999
    with pytest.raises(EngineError, match="at least 4 are needed, 3 were given"):
        split(3, QuantisationSettings())


def test_miou_by_hand() -> None:
    label = np.array([[0, 0, 1], [1, 255, 200]], np.uint8)
    found = np.array([[0, 1, 1], [1, 2, 0]], np.uint8)
    # Class 0: 1 of 2; class 1: 2 of 3; class 2 is not in the ground truth; 255 and 200 are not judged.
    assert miou([found], [label], 3) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert miou([label], [np.full_like(label, 255)], 3) == 0.0


@needs_nncf
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_int8_answers_close_to_fp32(shared_model: Path, backend: str) -> None:
    unseen = [DRIVE.frame(index, "day")[0] for index in (3, 40, 81)]
    with closing(load_engine(shared_model, settings())) as engine:
        expected = engine.infer(unseen, features=True)
    with closing(load_engine(shared_model, settings(backend, precision="int8"))) as engine:
        assert engine.precision == "int8"
        found = engine.infer(unseen, features=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.mean(ours.label == theirs.label) > 0.9
        assert (
            np.abs(ours.confidence.astype(int) - theirs.confidence).mean() < 16
        )  # 49 with the pixel statistics quantised as well
        assert ours.uncertainty == pytest.approx(theirs.uncertainty, abs=0.02)
        assert ours.features is not None
        assert theirs.features is not None
        assert np.isfinite(ours.features).all()
        assert np.linalg.norm(ours.features - theirs.features) < 0.1 * np.linalg.norm(theirs.features)
    assert any(not np.array_equal(a.confidence, b.confidence) for a, b in zip(found, expected, strict=True))


@needs_nncf
def test_what_is_not_the_network_or_the_depthwise_backbone_is_not_quantised(shared_model: Path) -> None:
    import openvino

    model = openvino.Core().read_model(str(shared_model / "deploy" / INT8_TARGET / "model.xml"))
    read_quantised = {
        consumer.get_node().get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() == "FakeQuantize"
        for consumer in node.output(0).get_target_inputs()
    }
    assert any(name.startswith("/head/") for name in read_quantised)
    assert any(name.startswith("/spatial_path/") for name in read_quantised)
    assert not [name for name in read_quantised if name.startswith("/context_path/backbone/")]
    pixels = {"Exp", "Log", "Maximum", "Greater", "Divide"}
    kinds = {node.get_friendly_name(): node.get_type_name() for node in model.get_ops()}
    assert not [name for name in read_quantised if kinds[name] in pixels]


@needs_nncf
def test_the_shipped_model_keeps_its_miou_in_int8(tmp_path: Path) -> None:
    folder = Path(
        shutil.copytree(resolve_model("sim-day"), tmp_path / "model", ignore=shutil.ignore_patterns("deploy"))
    )
    seen = SimulatedDrive(seed=100, size=(192, 320))
    frames = [seen.frame(index * 120, "day")[0] for index in range(24)]
    report = deploy(folder, targets=["onnx-fp32", INT8_TARGET, "onnx-int8"], frames=frames)
    assert report.refused == ()
    seal(folder, read_manifest(folder))
    unseen = [SimulatedDrive(seed=200, size=(192, 320)).frame(index * 40, "day") for index in range(10)]
    truth = [label for _, label in unseen]
    found = {}
    for backend, precision in [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "int8")]:
        with closing(load_engine(folder, settings(backend, precision=precision))) as engine:
            labels = [prediction.label for prediction in engine.infer([image for image, _ in unseen])]
        found[backend, precision] = miou(labels, truth, 11)
    exact = found.pop(("onnxruntime", "fp32"))
    assert exact > 55
    assert all(value > exact - 1.0 for value in found.values()), found


@needs_nncf
def test_q_and_dq_nodes_are_symmetric_and_leave_the_pixels_alone(shared_model: Path) -> None:
    model = onnx.load(shared_model / "deploy" / "onnx-int8" / "model.onnx")
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    quantised = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantised) > 10
    assert all(not constants[node.input[2]].any() for node in quantised)
    consumers = {name: node for node in model.graph.node for name in node.input}
    dequantised = [consumers[node.output[0]] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert {"Conv"} <= {node.op_type for node in dequantised}
    assert not {"Exp", "Log", "Max", "Greater", "Div"} & {node.op_type for node in dequantised}


@needs_nncf
def test_a_regular_backbone_is_quantised_too(tmp_path: Path) -> None:
    import openvino

    small = NetworkSettings(backbone="resnet18", input_height=64, input_width=64)
    folder = write_model(tmp_path / "model", small)
    report = deploy(folder, targets=[INT8_TARGET], frames=FRAMES[:4], quantisation=QuantisationSettings(min_equal=0))
    assert [target.name for target in report.targets] == [INT8_TARGET]
    model = openvino.Core().read_model(str(report.targets[0].folder / "model.xml"))
    quantised = [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() == "FakeQuantize"]
    assert [name for name in quantised if name.startswith("/context_path/backbone/")]


@needs_nncf
def test_the_report_and_the_folder_say_why_it_was_accepted(shared_model: Path) -> None:
    graph = json.loads((shared_model / "deploy" / INT8_TARGET / "graph.json").read_text())
    assert "held frames" in graph["accepted"]
    assert {path.name for path in (shared_model / "deploy" / INT8_TARGET).iterdir()} == {
        "model.xml",
        "model.bin",
        "graph.json",
    }
    assert not list((shared_model / "deploy").glob("*.tmp"))


@needs_nncf
def test_too_inaccurate_is_refused_and_nothing_is_left(model: Path) -> None:
    report = deploy(model, targets=[INT8_TARGET], frames=FRAMES, quantisation=QuantisationSettings(min_equal=1.0))
    assert report.targets == ()
    assert report.refused[0].name == INT8_TARGET
    assert "needed are 100.0 %" in report.refused[0].reason
    assert not (model / "deploy" / INT8_TARGET).exists()
    assert (model / "deploy" / "openvino-fp32").exists()


@needs_nncf
def test_labels_may_accept_what_agreement_would_not(model: Path) -> None:
    strict = {"min_equal": 1.0}
    with closing(load_engine(model, settings(output_size="frame"))) as engine:
        answers = [prediction.label for prediction in engine.infer(FRAMES)]
    # fp32's own answers as the truth: int8 loses what it disagrees in, a few points.
    refused = deploy(
        model,
        targets=[INT8_TARGET],
        frames=FRAMES,
        labels=answers,
        quantisation=QuantisationSettings.model_validate({**strict, "max_miou_loss": 0.0}),
    )
    assert "points of mIoU lost" in refused.refused[0].reason
    accepted = deploy(
        model,
        targets=[INT8_TARGET],
        frames=FRAMES,
        labels=answers,
        quantisation=QuantisationSettings.model_validate({**strict, "max_miou_loss": 60.0}),
    )
    assert accepted.refused == ()
    assert (model / "deploy" / INT8_TARGET / "model.xml").exists()


@needs_nncf
def test_labels_that_are_all_void_accept_nothing(model: Path) -> None:
    void = [np.full(SIZE, 255, np.uint8)] * len(FRAMES)  # as Cityscapes ships its test set's
    report = deploy(
        model, targets=[INT8_TARGET], frames=FRAMES, labels=void, quantisation=QuantisationSettings(min_equal=1.0)
    )
    assert report.targets == ()
    assert report.refused[0].reason.endswith("; needed are 100.0 %")
    assert not (model / "deploy" / INT8_TARGET).exists()


@needs_nncf
def test_without_frames_it_is_not_built(tmp_path: Path, model: Path) -> None:
    bare = write_model(tmp_path / "bare", SETTINGS)
    report = deploy(bare, targets=["onnx-fp32", INT8_TARGET])
    assert [target.name for target in report.targets] == ["onnx-fp32"]
    assert "none were given" in report.refused[0].reason
    assert not (bare / "deploy" / INT8_TARGET).exists()
    assert "2 were given" in deploy(bare, targets=[INT8_TARGET], frames=FRAMES[:2]).refused[0].reason

    deploy(model, targets=[INT8_TARGET])
    assert (model / "deploy" / INT8_TARGET).exists(), "accepted for these very weights"
    shutil.copy(write_model(tmp_path / "other", SETTINGS, seed=1) / "weights.safetensors", model)
    deploy(model, targets=[INT8_TARGET])
    assert not (model / "deploy" / INT8_TARGET).exists(), "made from other weights"


@needs_nncf
def test_precision_auto_takes_int8_where_it_is_and_says_why_not_elsewhere(model: Path) -> None:
    lines: list[str] = []
    for backend in ("auto", "openvino"):
        with closing(load_engine(model, settings(backend, precision="auto"), log=lines.append)) as engine:
            assert (engine.backend, engine.precision) == ("openvino", "int8")
    shutil.rmtree(model / "deploy" / INT8_TARGET)
    for backend in ("auto", "openvino"):
        with closing(load_engine(model, settings(backend, precision="auto"), log=lines.append)) as engine:
            assert (engine.backend, engine.precision) == ("openvino", "fp32")
    assert "openvino int8 at 128x96" in lines[0]
    assert "refused as inaccurate" in lines[2]
    assert "refused as inaccurate" in lines[3]
    with closing(load_engine(model, settings("onnxruntime", precision="auto"))) as engine:
        assert engine.precision == "int8"
    with pytest.raises(EngineError, match=r"no int8 for openvino .*ssada export .* --data"):
        load_engine(model, settings(precision="int8"))
    shutil.rmtree(model / "deploy" / "onnx-int8")
    with pytest.raises(EngineError, match=r"no int8 for onnxruntime .*--target onnx-int8"):
        load_engine(model, settings("onnxruntime", precision="int8"))
    with pytest.raises(EngineError, match="no backend can run"):
        load_engine(model, settings("auto", precision="int8"))


@needs_nncf
def test_int8_of_other_weights_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copy(write_model(tmp_path / "other", SETTINGS, seed=1) / "weights.safetensors", model)
    with pytest.raises(EngineError, match="weights_sha256"):
        load_engine(model, settings(precision="int8"))


@needs_nncf
def test_only_what_an_engine_may_load_need_be_built() -> None:
    everything = ("onnx-fp32", "openvino-fp32", INT8_TARGET, "onnx-int8")
    assert installed_targets() == everything
    assert targets_for(EngineSettings()) == everything[:2]
    assert targets_for(EngineSettings(precision="auto")) == everything[:3]
    assert targets_for(EngineSettings(backend="onnxruntime", precision="auto")) == ("onnx-fp32", "onnx-int8")
    assert targets_for(EngineSettings(backend="openvino", precision="int8")) == (INT8_TARGET,)
    assert targets_for(EngineSettings(backend="onnxruntime")) == everything[:1]
    assert targets_for(EngineSettings(backend="torch")) == ()


@needs_nncf
def test_quantising_reports_to_nobody_and_prints_nothing(model: Path) -> None:
    program = (
        "import pathlib, sys, numpy as np\n"
        "from ssada_core.inference.export import deploy\n"
        "from ssada_core.inference.quantise import QuantisationSettings\n"
        "frames = list(np.random.default_rng(0).integers(0, 256, (4, 96, 128, 3), dtype=np.uint8))\n"
        "settings = QuantisationSettings(min_equal=0)\n"
        "deploy(pathlib.Path(sys.argv[1]), targets=['openvino-int8'], frames=frames, quantisation=settings)\n"
        "from nncf.telemetry.wrapper import telemetry\n"
        "assert type(telemetry).__name__ == 'MagicMock', telemetry\n"
        "import os\n"
        "assert 'NNCF_CI' not in os.environ\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NNCF_CI"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(model)],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@needs_nncf
@pytest.mark.shared_data
def test_int8_on_real_frames_of_another_size(tmp_path: Path, camvid: Path) -> None:
    names = sorted((camvid / "images").glob("*.jpg"))[::60][:6]
    frames = [np.asarray(cv2.imread(str(name)), np.uint8) for name in names]
    folder = write_model(tmp_path / "model", SETTINGS)
    report = deploy(folder, targets=[INT8_TARGET], frames=frames, quantisation=LENIENT)
    assert report.refused == ()
    assert report.targets[0].equal > 0.9
