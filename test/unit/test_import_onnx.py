"""Foreign ONNX models of every form against a plain computation of the same answer, and what is said of the others."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cli_fixtures import ssada_here
from torch import nn
from torch.nn import functional

from ssada_core.errors import ConfigError, EngineError, ModelError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import deploy
from ssada_core.inference.import_onnx import check_choices, import_onnx
from ssada_core.inference.load import ONNX_FILE, load_engine, read_model
from ssada_core.labels import CAMVID, load_label_space
from ssada_core.replay.driver import LoadedModel
from ssada_core.replay.models import describe, find_models
from ssada_core.store.files import sha256_file
from ssada_core.store.model_files import verify
from ssada_core.store.registry import ModelRegistry

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZE = (48, 80)


class Foreign(nn.Module):
    """A convolution by strides of 4, then whatever form is asked for."""

    def __init__(self, form: str, classes: int = 11, *, nhwc_input: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, classes, 5, stride=4, padding=2)
        self.form, self.nhwc_input = form, nhwc_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.nhwc_input:
            x = x.permute(0, 3, 1, 2)
        z = 4 * self.conv(x.float())
        if self.form == "probabilities":
            return z.softmax(1)
        if self.form == "half probabilities":
            return z.softmax(1).half()
        if self.form == "channels last":
            return z.permute(0, 2, 3, 1)
        if self.form == "class ids":
            return z.argmax(1)
        if self.form == "class ids with an axis":
            return z.argmax(1, keepdim=True).int()
        return z


def export(path: Path, module: nn.Module, example: torch.Tensor, *, opset: int = 17, dynamic: bool = False) -> Path:
    axes = {"image": {0: "n", 2: "h", 3: "w"}} if dynamic else None
    torch.onnx.export(
        module.eval(), (example,), str(path), input_names=["image"], output_names=["out"], opset_version=opset,
        dynamic_axes=axes, dynamo=False,
    )  # fmt: skip
    return path


def take_in(path: Path, out: Path, **options: object):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return import_onnx(str(path), digest, out, label_space=CAMVID, **options)  # type: ignore[arg-type]


def answer_of(folder: Path, frame: np.ndarray, backend: str = "onnxruntime"):
    settings = EngineSettings.model_validate({"backend": backend, "threads": 1, "output_size": "network"})
    with closing(load_engine(folder, settings)) as engine:
        return engine.infer([frame], features=True)[0]


def expected(module: Foreign, frame: np.ndarray, *, bgr: bool = False):
    """Label, confidence and uncertainty by hand."""
    image = (frame[..., ::-1] / 255 - MEAN) / STD if not bgr else frame.astype(np.float64)
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
    with torch.no_grad():
        z = 4 * module.conv(x)
    if module.form.startswith("class ids"):
        return z.argmax(1)[0].repeat_interleave(4, 0).repeat_interleave(4, 1).numpy(), None, 0.0
    if module.form == "probabilities":
        z = z.softmax(1).clamp(min=1e-7).log()
    z = functional.interpolate(z, size=SIZE, mode="bilinear", align_corners=False)[0].double()
    p = z.softmax(0)
    entropy = -(p * p.log()).sum(0).mean() / np.log(11)
    return p.argmax(0).numpy(), (255 * p.max(0).values).numpy(), float(entropy)


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


FORMS = ("logits", "probabilities", "channels last", "class ids", "class ids with an axis")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_answers_as_computed_by_hand(tmp_path: Path, frame: np.ndarray, form: str) -> None:
    module = Foreign(form)
    path = export(tmp_path / "m.onnx", module, torch.zeros(1, 3, *SIZE))
    found = take_in(path, tmp_path / "model")
    assert "onnx-fp32" in found.deployed
    assert found.refused == ()
    assert found.output.form == ("class ids" if form.startswith("class") else form.replace("channels last", "logits"))
    label, confidence, uncertainty = expected(module, frame)
    for backend in ("onnxruntime", *(["openvino"] if "openvino-fp32" in found.deployed else [])):
        answer = answer_of(tmp_path / "model", frame, backend)
        assert len(np.unique(answer.label)) > 3
        assert np.mean(answer.label == label) > 0.999
        assert answer.uncertainty == pytest.approx(uncertainty, abs=1e-3)
        if confidence is None:
            assert (answer.confidence == 255).all()
        else:
            assert np.abs(answer.confidence - confidence).max() < 1.5


def test_probabilities_in_half_precision_are_no_logits(tmp_path: Path) -> None:
    """Rounded to 11 bits each they still sum to 1, but not where the sum is rounded so as well."""
    height, width = 4 * SIZE[0], 4 * SIZE[1]  # among many pixels there is one whose sum is off by 0.002
    frame = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    answers = []
    for form in ("probabilities", "half probabilities"):
        found = take_in(export(tmp_path / "m.onnx", Foreign(form), torch.zeros(1, 3, height, width)), tmp_path / form)
        assert found.output.form == "probabilities"
        answers.append(answer_of(tmp_path / form, frame))
    exact, half = answers
    assert np.mean(half.label == exact.label) > 0.999
    assert np.abs(half.confidence.astype(int) - exact.confidence).mean() < 0.5


def test_open_axes_older_opsets_and_other_pixels(tmp_path: Path, frame: np.ndarray) -> None:
    module = Foreign("logits")
    path = export(tmp_path / "old.onnx", module, torch.zeros(1, 3, 64, 64), opset=11, dynamic=True)
    with pytest.raises(ModelError, match=r"input 'image' is float32 \[\?,3,\?,\?\], which leaves the height open"):
        take_in(path, tmp_path / "a")
    take_in(path, tmp_path / "b", size=SIZE, normalisation="none", colours="bgr")
    label, confidence, _ = expected(module, frame, bgr=True)
    answer = answer_of(tmp_path / "b", frame)
    assert np.mean(answer.label == label) > 0.999
    assert np.abs(answer.confidence - confidence).max() < 1.5


def test_a_model_that_takes_bytes_gets_them_as_they_are(tmp_path: Path, frame: np.ndarray) -> None:
    module = Foreign("logits", nhwc_input=True)
    path = export(tmp_path / "m.onnx", module, torch.zeros(1, *SIZE, 3, dtype=torch.uint8))
    found = take_in(path, tmp_path / "model", colours="bgr")
    assert (found.input.kind, found.input.channels_first) == ("uint8", False)
    label, _, _ = expected(module, frame, bgr=True)
    assert np.mean(answer_of(tmp_path / "model", frame).label == label) > 0.999


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((1, 4, 48, 80), {}, r"input 'image' is float32 \[1,4,48,80\], which has no axis of 3 colours"),
        ((4, 3, 48, 80), {}, r"input 'image' is float32 \[4,3,48,80\]: expected is one image"),
        ((1, 3, 48, 80), {"size": (32, 80)}, r"--height 32 was asked for, but the model's own height is fixed at 48"),
        ((1, 3, 48, 80), {"output": "aux"}, r"has no output 'aux': there are out"),
    ],
)
def test_another_input_is_named_with_what_is_expected(tmp_path: Path, shape, options, words: str) -> None:
    class Any4(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(1, keepdim=True).repeat(1, 11, 1, 1)

    path = export(tmp_path / "m.onnx", Any4(), torch.zeros(shape))
    with pytest.raises(ModelError, match=words):
        take_in(path, tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_another_number_of_classes_or_output_is_named_with_what_is_expected(tmp_path: Path) -> None:
    nineteen = export(tmp_path / "19.onnx", Foreign("logits", classes=19), torch.zeros(1, 3, *SIZE))
    with pytest.raises(ModelError, match=r"float32 \[1, 19, 12, 20\], but the label space has 11 classes"):
        take_in(nineteen, tmp_path / "a")
    ids = export(tmp_path / "ids.onnx", Foreign("class ids", classes=19), torch.zeros(1, 3, *SIZE))
    with pytest.raises(ModelError, match=r"ids from \d+ to \d+, but the label space has 11 classes"):
        take_in(ids, tmp_path / "b")
    flat = export(tmp_path / "flat.onnx", nn.Flatten(), torch.zeros(1, 3, *SIZE))
    with pytest.raises(ModelError, match=r"output 'out' is float32 \[1, 11520\]: expected is logits or prob"):
        take_in(flat, tmp_path / "c")
    (tmp_path / "text.onnx").write_bytes(b"no model at all")
    with pytest.raises(ModelError, match="is no valid ONNX model"):
        take_in(tmp_path / "text.onnx", tmp_path / "d")
    with pytest.raises(ModelError, match="has SHA-256"):
        import_onnx(str(flat), "0" * 64, tmp_path / "e", label_space=CAMVID)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    path = export(tmp_path / "m.onnx", Foreign("logits"), torch.zeros(1, 3, *SIZE))
    model = onnx.load(str(path))
    onnx.save(model, str(tmp_path / "out.onnx"), save_as_external_data=True, location="data", size_threshold=0)
    with pytest.raises(ModelError, match="keeps its weights in another file"):
        take_in(tmp_path / "out.onnx", tmp_path / "model")


def test_an_imported_model_is_a_model_like_others_but_for_training(tmp_path: Path, frame: np.ndarray) -> None:
    path = export(tmp_path / "m.onnx", Foreign("logits"), torch.zeros(1, 3, *SIZE))
    take_in(path, tmp_path / "model")
    verify(tmp_path / "model")
    registry = ModelRegistry(tmp_path / "registry")
    registry.promote(registry.adopt(tmp_path / "model"))
    folder = registry.path("v0001")
    before = answer_of(folder, frame)
    deploy(folder)
    np.testing.assert_array_equal(answer_of(folder, frame).label, before.label)
    engine = load_engine(tmp_path / "model", EngineSettings(backend="onnxruntime"))
    figures = describe(find_models([str(tmp_path / "model")])[0], LoadedModel("m", engine))
    assert figures.weights_sha256 == sha256_file(tmp_path / "model" / ONNX_FILE)
    with pytest.raises(ModelError, match="imported as an ONNX graph"):
        read_model(folder)
    with pytest.raises(EngineError, match="torch has no weights to run"):
        load_engine(folder, EngineSettings(backend="torch"))


def test_a_damaged_imported_graph_is_not_exported(tmp_path: Path) -> None:
    take_in(export(tmp_path / "m.onnx", Foreign("logits"), torch.zeros(1, 3, *SIZE)), tmp_path / "model")
    path = tmp_path / "model" / ONNX_FILE
    graph = onnx.load(str(path))
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = bytes([weight.raw_data[0] ^ 0x40]) + weight.raw_data[1:]
    onnx.save(graph, str(path))
    done = ssada_here("export", tmp_path / "model", "--target", "onnx-fp32")
    assert done.status == 1
    assert "onnx-fp32/model.onnx differs from the manifest's SHA-256" in done.err
    with pytest.raises(ModelError, match=r"model\.onnx differs"):
        verify(tmp_path / "model")


@pytest.mark.parametrize("target", ["onnx-int8", "openvino-int8"])
def test_an_imported_model_can_be_quantised(tmp_path: Path, target: str) -> None:
    pytest.importorskip("nncf")
    path = export(tmp_path / "m.onnx", Foreign("logits"), torch.zeros(1, 3, *SIZE))
    take_in(path, tmp_path / "model")
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(6)]
    report = deploy(tmp_path / "model", targets=[target], frames=frames)
    assert [done.name for done in report.targets] == [target], report.refused
    graph = onnx.load(str(tmp_path / "model/deploy/onnx-int8/model.onnx")) if target == "onnx-int8" else None
    assert graph is None or any(node.op_type == "QuantizeLinear" for node in graph.graph.node)


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    path = export(tmp_path / "m.onnx", Foreign("logits"), torch.zeros(1, 3, *SIZE))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    given = ("models", "import", path, "--sha256", digest, "--out", tmp_path / "model", "--label-space", "camvid")
    done = ssada_here(*given)
    assert done.status == 0, done.err
    assert "input image: float32 [1, 3, 48, 80]" in done.err
    assert "output out: logits [1, 11, 12, 20], 12x20 pixels" in done.err


def test_choices_are_checked() -> None:
    assert check_choices("unit", "bgr") == ("unit", "bgr")
    with pytest.raises(ConfigError, match="imagenet or unit or none"):
        check_choices("caffe", "rgb")
    with pytest.raises(ConfigError, match="rgb or bgr"):
        check_choices("unit", "grb")
    assert load_label_space("camvid").num_classes == 11
