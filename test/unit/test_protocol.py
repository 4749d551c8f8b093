"""Evaluation protocols against a reference written with loops over pixels, and the options that ask for them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from engine_fixtures import lively_network, write_model
from torch import Tensor

from ssada_core.commands.evaluate import choose_protocol, command, protocol_values
from ssada_core.data.samples import ArraySamples
from ssada_core.errors import ConfigError, DataError, EngineError
from ssada_core.evaluation.evaluate import Evaluation, evaluate
from ssada_core.evaluation.probabilities import ProtocolEngine, frame_scores, normalised, windows
from ssada_core.evaluation.protocol import MULTI_SCALES, ProtocolSettings
from ssada_core.evaluation.sheet import worst_frames, worst_sheet
from ssada_core.labels import CAMVID
from ssada_core.networks.settings import NetworkSettings
from ssada_core.settings import parse_settings

SLIDING = {"mode": "sliding", "window_height": 32, "window_width": 40}


class Stub(torch.nn.Module):
    """Logits that depend on the pixel and on where it lies in the window, so that no window equals another."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        down = torch.linspace(-1, 1, height).view(1, 1, height, 1)
        right = torch.linspace(-1, 1, width).view(1, 1, 1, width)
        return torch.cat([x[:, :1] + down, 2 * x[:, 1:2] - right, x[:, 2:] * right], dim=1)


def image(height: int = 50, width: int = 70) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def soft(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def answered(x: np.ndarray) -> np.ndarray:
    return soft(Stub()(torch.tensor(x)[None])[0].numpy())


def enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, half-pixel centres, C×H×W."""
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in values])


def reference(x: np.ndarray, starts: tuple[list[int], list[int]], window: tuple[int, int]) -> np.ndarray:
    total = np.zeros_like(x)
    for top in starts[0]:
        for left in starts[1]:
            crop = x[:, top : top + window[0], left : left + window[1]]
            total[:, top : top + window[0], left : left + window[1]] += soft(
                Stub()(torch.tensor(crop)[None])[0].numpy()
            )
    return total


def test_windows_step_by_the_stride_and_end_with_the_image():
    protocol = ProtocolSettings(**SLIDING, stride=0.5)
    rows = sorted({(span.start, span.stop) for span, _ in windows((50, 70), protocol)})
    columns = sorted({(span.start, span.stop) for _, span in windows((50, 70), protocol)})
    assert rows == [(0, 32), (16, 48), (18, 50)]
    assert columns == [(0, 40), (20, 60), (30, 70)]


@pytest.mark.parametrize(
    ("window", "stride", "starts"), [(800, 2 / 3, [0, 534, 1068, 1248]), (1026, 5 / 6, [0, 855, 1022])]
)
def test_steps_of_the_published_shares_are_rounded_up(window: int, stride: float, starts: list[int]):
    protocol = ProtocolSettings(mode="sliding", window_height=64, window_width=window, stride=stride)
    assert [span.start for _, span in windows((64, 2048), protocol)] == starts


def test_an_image_smaller_than_the_window_is_one_window():
    assert list(windows((20, 30), ProtocolSettings(**SLIDING))) == [(slice(0, 20), slice(0, 30))]


def test_sliding_sums_probabilities():
    protocol = ProtocolSettings(**SLIDING, stride=0.5)
    expected = reference(image()[0].numpy(), ([0, 16, 18], [0, 20, 30]), (32, 40))
    actual = frame_scores(Stub(), image(), protocol)[0].numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert actual[:, 20, 35].sum() == pytest.approx(9, abs=1e-4)  # nine windows cover it


def test_scales_and_mirrored_frames_are_averaged_probabilities():
    protocol = ProtocolSettings(scales=[0.5, 1.0, 1.5], flip=True)
    x = image()[0].numpy()
    parts = []
    for height, width in ((25, 35), (50, 70), (75, 105)):
        view = enlarged(x, height, width)
        for turned in (False, True):
            seen = np.ascontiguousarray(view[:, :, ::-1]) if turned else view
            answer = answered(seen)
            parts.append(enlarged(np.ascontiguousarray(answer[:, :, ::-1]) if turned else answer, 50, 70))
    actual = frame_scores(Stub(), image(), protocol)[0].numpy()
    np.testing.assert_allclose(actual, np.mean(parts, axis=0), atol=1e-4)
    np.testing.assert_allclose(actual.sum(axis=0), 1, atol=1e-5)


def test_sliding_at_several_scales():
    protocol = ProtocolSettings(**SLIDING, stride=0.5, scales=[0.5, 1.0])
    x = image()[0].numpy()
    half = reference(enlarged(x, 25, 35), ([0], [0]), (32, 40))
    whole = reference(x, ([0, 16, 18], [0, 20, 30]), (32, 40))
    expected = (enlarged(half, 50, 70) + whole) / 2
    np.testing.assert_allclose(frame_scores(Stub(), image(), protocol)[0].numpy(), expected, atol=1e-4)


def test_frames_are_normalised_rgb():
    frame = np.zeros((1, 1, 3), np.uint8)
    frame[0, 0] = (0, 128, 255)  # blue, green, red
    expected = [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert normalised(frame).flatten().tolist() == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def frames() -> ArraySamples:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (60, 90, 3)).astype(np.uint8) for _ in range(3)]
    labels = [random.integers(0, 11, (60, 90)).astype(np.uint8) for _ in range(2)]
    return ArraySamples(images, [*labels, None], ["a", "b", "c"])


def test_an_engine_answers_at_the_frame_size_with_its_network(frames: ArraySamples):
    network = lively_network(NetworkSettings(input_height=64, input_width=96))
    engine = ProtocolEngine(network, ProtocolSettings())
    prediction = engine.infer([frames.image(0)])[0]
    with torch.inference_mode():
        expected = network(normalised(frames.image(0))).softmax(dim=1)[0]
    assert np.array_equal(prediction.label, expected.argmax(dim=0).numpy())
    assert np.abs(prediction.confidence - 255 * expected.amax(dim=0).numpy()).max() <= 0.51
    entropy = -(expected * expected.log()).sum(dim=0).mean() / np.log(11)
    assert prediction.uncertainty == pytest.approx(float(entropy), abs=1e-5)
    with pytest.raises(EngineError, match="give uint8 HxWx3 BGR"):
        engine.infer([frames.image(0)[..., 0]])
    with pytest.raises(EngineError, match="has no feature vector"):
        engine.infer([frames.image(0)], features=True)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.infer([frames.image(0)])


def test_the_sheet_shows_the_worst_first(frames: ArraySamples):
    engine = ProtocolEngine(lively_network(NetworkSettings(input_height=64, input_width=96)), ProtocolSettings())
    evaluation = evaluate(engine, frames, 11)
    picture = worst_sheet(engine, frames, evaluation, CAMVID, count=1, height=60)
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 3 * 90 + 2 * 4
    assert picture.shape[0] > 60 + 24


def test_worst_frames_are_those_of_lowest_miou():
    right, wrong, empty = np.diag([4, 4]), np.array([[0, 4], [4, 0]]), np.zeros((2, 2))
    half = np.array([[4, 0], [4, 0]])
    matrices = np.array([right, half, empty, wrong], np.int64)
    evaluation = Evaluation(tuple("abcd"), matrices, matrices.sum(axis=1), np.zeros(4), True, 0)
    assert worst_frames(evaluation, 9) == [3, 1, 0]
    assert worst_frames(evaluation, 1) == [3]
    with pytest.raises(DataError, match="no frame has a labelled pixel"):
        worst_sheet(None, ArraySamples([]), Evaluation((), matrices[:0], matrices[:0, 0], np.zeros(0), True, 0), CAMVID)  # type: ignore[arg-type]


def asked(preset: str, data: str, **options: str | bool) -> ProtocolSettings | None:
    empty: dict[str, str | bool] = {"mode": "", "window": "", "stride": "", "scales": "", "flip": False}
    return choose_protocol(preset, protocol_values(**{**empty, **options}), data)  # type: ignore[arg-type]


def test_presets_are_the_papers():
    city = asked("ss-ada", "every:4:cityscapes:data/cityscapes:val")
    assert city == ProtocolSettings(mode="sliding", window_height=800, window_width=800, stride=2 / 3)
    assert asked("ss-ada", "bev:data/bev2024:val") == ProtocolSettings()
    single, multi = asked("crosscity-ss", "crosscity:d:Rio/Test"), asked("crosscity-ms", "cityscapes:d:val")
    assert single is not None
    assert multi is not None
    assert (single.window_width, single.stride, single.scales, single.flip) == (647, 5 / 6, [1.0], False)
    assert (multi.window_height, multi.scales, multi.flip) == (1024, MULTI_SCALES, True)
    assert MULTI_SCALES == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


def test_options_and_what_stays_with_the_engines():
    assert asked("", "x") is None
    assert asked("", "x", mode="whole") is None
    options = asked("", "x", mode="sliding", window="640x480", stride="3/4", scales="0.5,1", flip=True)
    assert options == ProtocolSettings(
        mode="sliding", window_height=640, window_width=480, stride=0.75, scales=[0.5, 1.0], flip=True
    )
    changed = asked("crosscity-ms", "crosscity:d:Rio/Test", window="512", scales="1")
    assert changed is not None
    assert (changed.window_height, changed.window_width, changed.scales, changed.flip) == (512, 512, [1.0], True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "slidng"}, "'mode' is 'slidng'"),
        ({"window": "8by8", "mode": "sliding"}, "--window '8by8' is not HxW"),
        ({"window": "800"}, "add --mode sliding"),
        ({"stride": "2/0", "mode": "sliding"}, "--stride: '2/0' is not a number"),
        ({"stride": "1.5", "mode": "sliding"}, "'stride' is 1.5"),
        ({"scales": "1,big"}, "--scales: 'big' is not a number"),
        ({"scales": "9"}, "not all between 0.1 and 4"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, str], words: str):
    with pytest.raises(ConfigError, match=words):
        asked("", "x", **options)


@pytest.mark.parametrize("chosen", ["every:4:", "frames:0-100:", "except:3-5:", "every:2:frames:0-100:"])
def test_a_preset_is_the_layouts_whatever_frames_are_chosen_of_it(chosen: str):
    assert asked("ss-ada", f"{chosen}cityscapes:d:val") == asked("ss-ada", "cityscapes:d:val")
    assert asked("crosscity-ms", f"{chosen}crosscity:d:Rio/Test") == asked("crosscity-ms", "crosscity:d:Rio/Test")


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"--preset 'ssada' \(did you mean 'ss-ada'\?\)"):
        asked("ssada", "x")
    with pytest.raises(ConfigError, match="less than a pixel"):
        parse_settings(ProtocolSettings, {"window_width": 32, "stride": 0.01}, source="x")


def test_the_command_writes_matrix_and_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = write_model(tmp_path / "model", NetworkSettings(input_height=64, input_width=96))
    out, sheet = tmp_path / "figures.json", tmp_path / "worst.png"
    command(str(model), "sim:day:1:0-2", mode="sliding", window="256x320", stride="1", sheet=sheet, json_file=out)
    figures = json.loads(out.read_text())
    matrix = np.array(figures["confusion_matrix"])
    assert matrix.shape == (11, 11)
    assert figures["pixel_accuracy"] == pytest.approx(100 * np.trace(matrix) / matrix.sum())
    assert figures["protocol"]["window_width"] == 320
    assert json.loads(capsys.readouterr().out) == figures
    assert cv2.imread(str(sheet)) is not None
    with pytest.raises(ConfigError, match="run in torch in fp32, not openvino"):
        command(str(model), "sim:day:1:0-1", backend="openvino", flip=True)
