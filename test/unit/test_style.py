from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from learning_fixtures import drive

from ssada_core.config import parse_settings
from ssada_core.data.samples import ArraySamples
from ssada_core.errors import ConfigError, DataError
from ssada_core.learning.loaders import BatchMaker, TrainingData
from ssada_core.learning.settings import StyleSettings, TrainingSettings
from ssada_core.learning.style import TranslatedSamples, fourier_style

SETTINGS = TrainingSettings(crop_height=32, crop_width=32)


def smooth(seed: int, size: tuple[int, int]) -> np.ndarray:
    """An image far from black and white, so that nothing is clipped."""
    rng = np.random.default_rng(seed)
    return np.clip(cv2.GaussianBlur(rng.normal(128, 60, (*size, 3)), (0, 0), 2), 80, 170).astype(np.uint8)


def reference(source: np.ndarray, target: np.ndarray, beta: float) -> np.ndarray:
    """The paper's words with the full, shifted spectrum."""
    height, width = source.shape[:2]
    half = int(np.floor(beta * min(height, width)))
    rows, columns = (slice(n // 2 - half, n // 2 + half + 1) for n in (height, width))
    out = np.empty(source.shape)
    for channel in range(3):
        ours, theirs = (np.fft.fftshift(np.fft.fft2(image[..., channel])) for image in (source, target))
        amplitude = np.abs(ours)
        amplitude[rows, columns] = np.abs(theirs)[rows, columns]
        out[..., channel] = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * np.angle(ours)))).real
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(40, 52), (41, 33), (60, 61)])
@pytest.mark.parametrize("beta", [0.0, 0.01, 0.05, 0.2])
def test_fda_is_that_of_the_paper(size: tuple[int, int], beta: float):
    source, target = smooth(0, size), smooth(1, size)
    styled = fourier_style(source, target, beta)
    assert styled.dtype == np.uint8
    assert np.abs(styled.astype(int) - reference(source, target, beta)).max() <= 1


def test_a_flat_image_takes_the_mean_of_the_target_per_channel():
    source = np.full((20, 30, 3), 100, np.uint8)
    target = np.full((10, 15, 3), (10, 60, 200), np.uint8)
    styled = fourier_style(source, target, 0.0)  # the square is the mean alone
    assert (styled == (10, 60, 200)).all()


def test_a_frame_in_its_own_style_stays_as_it_is():
    image = smooth(3, (30, 44))
    assert np.abs(fourier_style(image, image, 0.49).astype(int) - image).max() <= 1


def translated(folder: Path, names: list[str], size: tuple[int, int]) -> None:
    for value, name in enumerate(names):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((*size, 3), 50 + value, np.uint8))


def source() -> ArraySamples:
    frames = drive(2)
    return ArraySamples(*([get(i) for i in range(2)] for get in (frames.image, frames.label)), ["a/x.jpg", "a/y.jpg"])


def test_translated_images_are_found_by_name_at_the_labels_size(tmp_path: Path):
    translated(tmp_path, ["x", "y", "z"], (24, 32))
    samples = TranslatedSamples(source(), tmp_path)
    assert (len(samples), samples.name(1)) == (2, "a/y.jpg")
    assert samples.image(1).shape == (48, 64, 3)
    assert (samples.image(0) == 50).all()
    assert (samples.image(1) == 51).all()
    assert np.array_equal(samples.label(1), source().label(1))


def test_missing_translations_are_named(tmp_path: Path):
    translated(tmp_path, ["x"], (24, 32))
    with pytest.raises(DataError, match=r"has no image 'y' \(1 of 2 missing\): translate them all"):
        TranslatedSamples(source(), tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        TranslatedSamples(source(), tmp_path / "nowhere")


def test_the_folder_must_be_named():
    with pytest.raises(ConfigError, match="needs folder"):
        parse_settings(StyleSettings, {"mode": "folder"}, source="test")


def make(style: StyleSettings, **parts) -> BatchMaker:
    return BatchMaker(TrainingData(**parts), SETTINGS.model_copy(update={"style": style}))


def test_fda_changes_the_source_alone():
    dark = ArraySamples([np.full((48, 64, 3), 5, np.uint8)] * 2)
    parts = {"source": drive(3, seed=1), "labelled": drive(2, seed=2), "unlabelled": dark}
    plain, styled = make(StyleSettings(), **parts), make(StyleSettings(mode="fda"), **parts)
    for iteration in range(2):
        before, after = plain.batch(iteration), styled.batch(iteration)
        assert after.source.images.float().mean() < 0.7 * before.source.images.float().mean()
        assert after.source.labels.equal(before.source.labels)
        assert after.labelled.images.equal(before.labelled.images)
        assert after.unlabelled.strong1.equal(before.unlabelled.strong1)
        assert styled.batch(iteration).source.images.equal(after.source.images)


def test_fda_takes_labelled_frames_where_there_are_no_others_and_needs_some():
    dark = ArraySamples([np.full((48, 64, 3), 5, np.uint8)], [np.zeros((48, 64), np.uint8)])
    batch = make(StyleSettings(mode="fda"), source=drive(2), labelled=dark).batch(0)
    assert batch.source.images.float().mean() < 60
    with pytest.raises(DataError, match="takes the style of target frames"):
        make(StyleSettings(mode="fda"), source=drive(2))


def test_translated_images_reach_the_batch(tmp_path: Path):
    translated(tmp_path, ["x", "y"], (48, 64))
    batch = make(StyleSettings(mode="folder", folder=str(tmp_path)), source=source()).batch(0)
    inside = batch.source.labels != 255
    assert set(batch.source.images[inside].unique().tolist()) <= {50, 51}
