from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch
from learning_fixtures import drive

from ssada_core.data.samples import Array, ArraySamples
from ssada_core.errors import DataError
from ssada_core.learning.loaders import Batch, BatchMaker, BatchStream, TrainingData
from ssada_core.learning.settings import TrainingSettings

SETTINGS = TrainingSettings(crop_height=32, crop_width=40, source_batch=2, labelled_batch=3, unlabelled_batch=4)


def all_data() -> TrainingData:
    return TrainingData(drive(7, seed=1), drive(2, seed=2), drive(9, seed=3, labelled=False))


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [t for part in vars(batch).values() if part is not None for t in vars(part).values()]


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


def test_a_batch_has_the_asked_shapes_and_types():
    batch = BatchMaker(all_data(), SETTINGS).batch(0)
    assert batch.source.images.shape == (2, 32, 40, 3)
    assert batch.labelled.images.shape == (3, 32, 40, 3)
    assert batch.labelled.labels.shape == (3, 32, 40)
    assert batch.labelled.labels.dtype == torch.int64
    unlabelled = batch.unlabelled
    for name in ("weak", "strong1", "strong2"):
        assert getattr(unlabelled, name).shape == (4, 32, 40, 3)
        assert getattr(unlabelled, name).dtype == torch.uint8
    for name in ("usable", "box1", "box2"):
        assert getattr(unlabelled, name).shape == (4, 32, 40)
        assert getattr(unlabelled, name).dtype == torch.bool


def test_the_batch_is_a_function_of_seed_and_iteration():
    first, again = BatchMaker(all_data(), SETTINGS), BatchMaker(all_data(), SETTINGS)
    for iteration in (0, 1, 5, 2):  # in any order
        assert same(first.batch(iteration), again.batch(iteration))
    assert not same(first.batch(0), first.batch(1))
    other = BatchMaker(all_data(), SETTINGS.model_copy(update={"seed": 1}))
    assert not same(first.batch(0), other.batch(0))


@pytest.mark.parametrize("prefetch", [True, False])
def test_a_stream_resumes_where_it_was(prefetch: bool):
    maker = BatchMaker(all_data(), SETTINGS)
    with BatchStream(maker, prefetch=prefetch) as stream:
        for _ in range(3):
            stream.next()
        position = stream.position
        expected = [stream.next() for _ in range(3)]
    with BatchStream(BatchMaker(all_data(), SETTINGS), start=position, prefetch=prefetch) as resumed:
        assert all(same(batch, resumed.next()) for batch in expected)


def test_the_background_thread_ends_with_the_stream():
    before = threading.active_count()
    with BatchStream(BatchMaker(all_data(), SETTINGS)) as stream:
        stream.next()
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


class Numbered(ArraySamples):
    """Counts how often each frame is read."""

    def __init__(self, count: int) -> None:
        super().__init__([np.full((48, 64, 3), index, np.uint8) for index in range(count)])
        self.reads: Counter[int] = Counter()

    def image(self, index: int) -> Array:
        self.reads[index] += 1
        return super().image(index)


def shown(images: torch.Tensor) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def test_every_frame_comes_once_before_any_comes_twice():
    settings = SETTINGS.model_copy(update={"unlabelled_batch": 2, "scale_min": 1.0, "scale_max": 1.0})
    maker = BatchMaker(TrainingData(unlabelled=Numbered(6)), settings)
    passes = [
        [frame for i in range(start, start + 3) for frame in shown(maker.batch(i).unlabelled.weak)] for start in (0, 3)
    ]
    assert [sorted(frames) for frames in passes] == [list(range(6))] * 2
    assert passes[0] != passes[1]


def test_fewer_frames_than_the_batch_repeat_in_it():
    settings = SETTINGS.model_copy(update={"unlabelled_batch": 5})
    frames = shown(BatchMaker(TrainingData(unlabelled=Numbered(2)), settings).batch(0).unlabelled.weak)
    assert set(frames) == {0, 1}


def test_frames_are_decoded_once_within_the_cache_and_each_time_without():
    cached, plain = Numbered(1), Numbered(1)
    for samples, megabytes in ((cached, 64), (plain, 0)):
        settings = SETTINGS.model_copy(update={"unlabelled_batch": 1, "cache_megabytes": megabytes})
        maker = BatchMaker(TrainingData(unlabelled=samples), settings)
        for iteration in range(10):
            maker.batch(iteration)
    assert cached.reads[0] == 1
    assert plain.reads[0] >= 10


def test_boxes_hold_the_second_batch_and_the_rest_the_own_view():
    # Frames of one constant colour stay recognisable by comparing weak views with what was pasted.
    settings = SETTINGS.model_copy(update={"unlabelled_batch": 4, "scale_min": 1.0, "scale_max": 1.0})
    maker = BatchMaker(TrainingData(unlabelled=Numbered(50)), settings)
    seen = 0
    for iteration in range(20):
        crops = maker.batch(iteration).unlabelled
        mixed = (crops.box1 | crops.box2).flatten(1).any(1)
        assert crops.other_rows.tolist() == torch.nonzero(mixed).flatten().tolist()
        assert len(crops.other) == len(crops.other_usable) == len(crops.other_rows)
        for row, own in enumerate(crops.strong1):
            outside = own[~crops.box1[row]]
            assert (outside == outside[0]).all()  # constant in, constant out: nothing leaked past the box
            inside = own[crops.box1[row]]
            seen += len(inside) > 0
            assert len(inside) == 0 or (inside == inside[0]).all()
    assert 25 < seen < 55  # of 80, p = 0.5


def test_padding_is_marked_in_every_part():
    settings = SETTINGS.model_copy(update={"crop_height": 96, "crop_width": 128})
    batch = BatchMaker(all_data(), settings).batch(0)
    assert (batch.labelled.labels == 255).any()
    assert not batch.unlabelled.usable.all()
    assert batch.unlabelled.usable.any()


def test_missing_parts_are_none():
    batch = BatchMaker(TrainingData(labelled=drive(2)), SETTINGS).batch(0)
    assert batch.source is None
    assert batch.unlabelled is None
    empty = TrainingData(source=ArraySamples([]), labelled=drive(2), unlabelled=ArraySamples([]))
    assert BatchMaker(empty, SETTINGS).sizes == {"source": 0, "labelled": 2, "unlabelled": 0}
    off = SETTINGS.model_copy(update={"source_batch": 0, "unlabelled_batch": 0})
    assert BatchMaker(all_data(), off).sizes == {"source": 0, "labelled": 2, "unlabelled": 0}


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(DataError, match="nothing to train on"):
        BatchMaker(TrainingData(), SETTINGS)


def test_a_labelled_frame_without_a_label_is_named():
    with pytest.raises(DataError, match="000000: a labelled frame without a label"):
        BatchMaker(TrainingData(labelled=drive(2, labelled=False)), SETTINGS)


def test_labels_of_unlabelled_frames_are_never_read():
    class Secret(ArraySamples):
        def label(self, index: int) -> Array | None:
            raise AssertionError("an unlabelled frame's label was read")

    maker = BatchMaker(TrainingData(unlabelled=Secret([np.zeros((48, 64, 3), np.uint8)])), SETTINGS)
    assert maker.batch(0).unlabelled.usable.any()


def test_partly_labelled_frames_join_the_unlabelled_pool_where_they_are_unlabelled():
    # The left half is labelled, the right half not; a fully labelled frame beside it stays out.
    image = np.zeros((64, 80, 3), np.uint8)
    image[:, 40:] = 200
    sparse = np.where(np.arange(80) < 40, 1, 255).astype(np.uint8)[None].repeat(64, axis=0)
    labelled = ArraySamples([image, image], [sparse, np.ones((64, 80), np.uint8)])
    maker = BatchMaker(TrainingData(labelled=labelled), SETTINGS)
    assert maker.sizes == {"source": 0, "labelled": 2, "unlabelled": 1}
    for iteration in range(5):
        crops = maker.batch(iteration).unlabelled
        bright = crops.weak[..., 0] > 90  # the edge is interpolated
        assert (bright | ~crops.usable).all()  # usable only where nobody labelled
        assert crops.usable.sum() >= 0.8 * bright.sum()
