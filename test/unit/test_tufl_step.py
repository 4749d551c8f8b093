"""TUFL's pairs, step and training, and that nothing of it touches SS-ADA while it is off."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from adaptation_fixtures import TRAINING
from learning_child import tiny_data
from learning_fixtures import TinyNetwork, drive, tiny

from ssada_core.errors import DataError, WorkerError
from ssada_core.learning.batches import Batch, LabelledCrops, PairedCrops
from ssada_core.learning.checkpoint import CHECKPOINT_FILE, load_checkpoint
from ssada_core.learning.loaders import BatchMaker, TrainingData
from ssada_core.learning.offline import DataSettings, OfflineSettings, train
from ssada_core.learning.pairs import affine_matrix, augmented_view, sample_affine, warp
from ssada_core.learning.precision import autocast
from ssada_core.learning.progress import PROGRESS_FILE, read_progress
from ssada_core.learning.settings import MixingSettings, StyleSettings, TrainingSettings, TuflSettings
from ssada_core.learning.trainer import Trainer
from ssada_core.learning.tufl_step import first_thresholds, tufl_step
from ssada_core.networks.base import NetworkOutput
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.manifest import WEIGHTS_FILE

SETTINGS = TrainingSettings(
    iterations=8, crop_height=32, crop_width=32, learning_rate=0.02, ohem_threshold=1.0, checkpoint_every=3
)
TUFL = TuflSettings(threshold=0.34, threshold_mode="adaptive")


# Affine pairs


def test_the_matrix_takes_a_pixel_of_the_augmented_view_to_the_plain_one():
    size = (21, 31)  # centre (15, 10)
    assert affine_matrix(size, 0, 1, 0).tolist() == [[1, 0, 0], [0, 1, 0]]
    corner = np.array([17.0, 10.0, 1.0])  # two pixels right of the centre
    np.testing.assert_allclose(affine_matrix(size, 90, 1, 0) @ corner, [15, 8], atol=1e-5)
    np.testing.assert_allclose(affine_matrix(size, 0, 2, 0) @ corner, [16, 10], atol=1e-5)
    below = np.array([15.0, 12.0, 1.0])
    np.testing.assert_allclose(
        affine_matrix(size, 0, 1, 5) @ below, [15 - 2 * math.tan(math.radians(5)), 12], atol=1e-5
    )


def test_drawn_maps_stay_within_the_methods_bounds():
    rng = np.random.default_rng(0)
    maps = [np.linalg.inv(sample_affine(rng, (32, 48))[:, :2]) for _ in range(300)]
    scales = [math.sqrt(np.linalg.det(matrix)) for matrix in maps]
    angles = [math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])) for matrix in maps]
    assert 0.8 <= min(scales) < 0.82
    assert 1.18 < max(scales) <= 1.2
    assert -30 <= min(angles) < -28
    assert 28 < max(angles) <= 30


@pytest.mark.parametrize("seed", range(3))
def test_predictions_are_warped_as_the_images_are(seed: int):
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.random((40, 56, 3)).astype(np.float32), (0, 0), 2)
    matrix = sample_affine(rng, (40, 56))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(picture, matrix, (56, 40), flags=flags)
    plain = torch.from_numpy(picture).permute(2, 0, 1)[None]
    ours = warp(plain, torch.from_numpy(matrix)[None])[0].permute(1, 2, 0).numpy()
    _, valid = augmented_view(rng, np.zeros((40, 56, 3), np.uint8), np.ones((40, 56), bool), matrix)
    assert valid.mean() > 0.5
    np.testing.assert_allclose(ours[valid], expected[valid], atol=0.02)  # OpenCV's places are 32nds of a pixel


def test_predictions_go_to_the_same_places_in_bf16():
    ramp = torch.arange(512.0).expand(1, 1, 64, 512)
    matrix = torch.from_numpy(affine_matrix((64, 512), 10.0, 1.0, 0.0))[None]
    expected = warp(ramp, matrix)
    with autocast("bf16", torch.device("cpu")):
        torch.testing.assert_close(warp(ramp, matrix), expected, rtol=0.0, atol=1e-3)
    assert expected.max() > 256  # rounded to bfloat16's 8 bits, such places are off by a pixel


def test_padding_is_never_valid():
    rng = np.random.default_rng(0)
    usable = np.zeros((20, 20), bool)
    usable[:, :10] = True
    _, valid = augmented_view(rng, np.zeros((20, 20, 3), np.uint8), usable, affine_matrix((20, 20), 0, 1, 0))
    assert np.array_equal(valid, usable)


def test_batches_of_pairs_show_the_same_place():
    maker = BatchMaker(tiny_data(), SETTINGS, pairs=True)
    batch = maker.batch(3)
    assert batch.unlabelled is None
    pairs = batch.pairs
    assert pairs.plain.shape == pairs.augmented.shape == (2, 32, 32, 3)
    moved = warp(pairs.plain.permute(0, 3, 1, 2).float(), pairs.matrix).mean(1)
    for row in range(2):
        seen = torch.stack((moved[row], pairs.augmented[row].float().mean(-1)))[:, pairs.valid[row]]
        assert torch.corrcoef(seen)[0, 1] > 0.8
    again = maker.batch(3).pairs
    assert all(value.equal(vars(again)[name]) for name, value in vars(pairs).items())


# The step


class Told(TinyNetwork):
    """The blue value b of a pixel stands for the probability b/100 of class 0 against class 1, in both heads."""

    def __init__(self) -> None:
        super().__init__(2)

    def train_forward(self, x, *, perturb=False, auxiliary=True) -> NetworkOutput:
        p = ((x[:, 2] * 0.225 + 0.406) * 255).round() / 100
        logits = torch.stack((torch.log(p / (1 - p)), torch.zeros_like(p)), dim=1) + 0 * self.head.bias.sum()
        return NetworkOutput(logits, (logits,), None)


def flat(percent: int) -> torch.Tensor:
    return torch.full((1, 4, 4, 3), percent, dtype=torch.uint8)


def pair(plain: int, augmented: int) -> PairedCrops:
    everywhere = torch.ones(1, 4, 4, dtype=torch.bool)
    identity = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    return PairedCrops(flat(plain), flat(augmented), identity, everywhere, everywhere)


def test_the_step_is_source_plus_lambda_focal():
    source = LabelledCrops(flat(70), torch.zeros(1, 4, 4, dtype=torch.int64))
    tufl = TuflSettings()
    state = first_thresholds(tufl, 2, torch.device("cpu"))
    result = tufl_step(Told(), Batch(source, None, None, pair(90, 60)), SETTINGS, tufl, state)
    focal = -(0.4**2) * (0.9 * math.log(0.6) + 0.1 * math.log(0.4))
    assert result.figures["loss_focal"].item() == pytest.approx(focal, rel=1e-4)
    assert result.figures["loss"].item() == pytest.approx(-math.log(0.7) + 0.08 * focal, rel=1e-4)
    assert result.figures["confident"].item() == 1.0
    assert result.loss.requires_grad
    assert state.values.tolist() == pytest.approx([0.8, 0.8])


def test_unsure_pairs_teach_nothing_and_pairs_are_needed():
    tufl = TuflSettings()
    state = first_thresholds(tufl, 2, torch.device("cpu"))
    result = tufl_step(Told(), Batch(None, None, None, pair(70, 60)), SETTINGS, tufl, state)
    assert result.loss.item() == 0.0
    assert result.figures["confident"].item() == 0.0
    with pytest.raises(DataError, match="pairs"):
        tufl_step(Told(), Batch(None, None, None), SETTINGS, tufl, state)


def test_adaptive_thresholds_follow_before_they_are_used():
    tufl = TuflSettings(threshold_mode="adaptive")
    state = first_thresholds(tufl, 2, torch.device("cpu"))
    tufl_step(Told(), Batch(None, None, None, pair(90, 60)), SETTINGS, tufl, state)
    assert state.values.tolist() == pytest.approx([0.9 * 0.8 + 0.1 * 0.9, 0.8], rel=1e-4)


# Training


def run(folder: Path, settings: TrainingSettings = SETTINGS, tufl: TuflSettings = TUFL, **options):
    data = TrainingData(tiny_data().source, None, tiny_data().unlabelled)
    return Trainer(tiny(), data, settings, run_dir=folder, tufl=tufl, **options).run()


@pytest.mark.parametrize("mode", ["none", "dual_soft"])
def test_a_stopped_training_goes_on_exactly_with_its_thresholds(tmp_path: Path, mode: str):
    mixing = MixingSettings(mode=mode, long_tail=True)
    settings = SETTINGS.model_copy(update={"mixing": mixing, "style": StyleSettings(mode="fda")})
    run(tmp_path / "whole", settings)
    calls = iter(range(100))
    assert run(tmp_path / "parts", settings, should_stop=lambda: next(calls) >= 4).stopped
    torch.rand(3)
    run(tmp_path / "parts", settings)
    whole, parts = (load_checkpoint(tmp_path / name / CHECKPOINT_FILE).tensors for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(tensor.equal(parts[name]) for name, tensor in whole.items())
    assert not torch.allclose(whole["thresholds"], torch.tensor(0.34))
    lines = [read_progress(tmp_path / name / PROGRESS_FILE) for name in ("whole", "parts")]
    assert [line.figures for line in lines[0]] == [line.figures for line in lines[1]]
    assert ("loss_mixed" in lines[0][0].figures) is (mode != "none")


def test_another_tufl_setting_is_another_training(tmp_path: Path):
    run(tmp_path)
    with pytest.raises(WorkerError, match="tufl"):
        run(tmp_path, tufl=TUFL.model_copy(update={"gamma": 3.0}))


def offline(folder: Path, **changes) -> OfflineSettings:
    values = {
        "mode": "tufl",
        "out": str(folder / "run"),
        "network": NetworkSettings(input_height=64, input_width=96),
        "data": DataSettings(source="sim:day:3:0-4", unlabelled="sim:night:3:0-4"),
        "training": TRAINING.model_copy(update={"source_batch": 1, "learning_rate": 0.1}),
        "tufl": TuflSettings(iterations=2),
    }
    return OfflineSettings(**{**values, **changes})


def test_ssada_train_has_a_mode_for_it_with_settings_of_its_own(tmp_path: Path):
    pytest.importorskip("tensorboard")
    lines = []
    result, manifest = train(offline(tmp_path, tensorboard=True), command="test", on_progress=lines.append)
    assert (result.iterations, len(lines)) == (2, 2)
    assert {"loss", "loss_source", "loss_focal"} == set(result.losses)
    assert lines[0].learning_rate <= 5e-6
    assert manifest.training["settings"]["weight_decay"] == 5e-4
    assert manifest.training["tufl"]["focal_weight"] == 0.08
    assert (tmp_path / "run" / "model" / WEIGHTS_FILE).exists()

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss_focal")] == [1, 2]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([line.figures["loss"] for line in lines])


# While it is off


def test_batches_are_those_from_before_the_options_were_there():
    """Figures written down before mixing, style and pairs existed; they hang on random numbers alone."""
    settings = TrainingSettings(crop_height=32, crop_width=32)
    maker = BatchMaker(tiny_data(), settings)
    boxes = [
        (b.usable.sum().item(), b.box1.sum().item(), b.box2.sum().item()) for b in map(_unlabelled(maker), range(4))
    ]
    assert boxes == [(1824, 0, 388), (2048, 273, 180), (2048, 136, 0), (2048, 0, 277)]


def _unlabelled(maker: BatchMaker):
    return lambda iteration: maker.batch(iteration).unlabelled


@pytest.mark.parametrize(
    ("pseudo", "expected"),
    [
        ("student", [1.1327829360961914, 1.128755807876587, 1.0798273086547852, 1.046105980873108]),
        ("teacher", [1.1352839469909668, 1.12533438205719, 1.078882098197937, 1.0418357849121094]),
    ],
)
def test_losses_are_those_from_before_the_options_were_there(tmp_path: Path, pseudo: str, expected: list[float]):
    settings = TrainingSettings(
        iterations=4,
        crop_height=32,
        crop_width=32,
        learning_rate=0.02,
        head_multiplier=2.0,
        freeze_batch_norm=False,
        pseudo=pseudo,
    )
    Trainer(tiny(), tiny_data(), settings, run_dir=tmp_path).run()
    losses = [line.figures["loss"] for line in read_progress(tmp_path / PROGRESS_FILE)]
    assert losses == pytest.approx(expected, rel=1e-5)


def test_options_that_are_off_change_no_bit(tmp_path: Path):
    other = {
        "mixing": MixingSettings(weight=7.0, threshold=0.1, long_tail=True),
        "style": StyleSettings(beta=0.3, folder="nowhere"),
    }
    for name, changes in (("a", {}), ("b", other)):
        data = TrainingData(drive(6, seed=1), drive(3, seed=2), drive(8, seed=3, labelled=False))
        Trainer(tiny(), data, SETTINGS.model_copy(update=changes), run_dir=tmp_path / name).run()
    first, second = (load_checkpoint(tmp_path / name / CHECKPOINT_FILE).tensors for name in ("a", "b"))
    assert all(tensor.equal(second[name]) for name, tensor in first.items())
