"""Batches of crops from source, labelled and unlabelled frames: seeded, endless, and resumable at any step.

Every batch is a pure function of the seed and the iteration (a counter-based sampler), so the whole
state of the loading is one number, and a prefetched batch is the one that would have been made anyway.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssada_core.data.lists import CachedSamples
from ssada_core.data.samples import Array, Samples
from ssada_core.errors import DataError
from ssada_core.labels import IGNORE
from ssada_core.learning.batches import Batch, LabelledCrops, PairedCrops, UnlabelledCrops
from ssada_core.learning.pairs import augmented_view, sample_affine
from ssada_core.learning.settings import TrainingSettings
from ssada_core.learning.style import TranslatedSamples, fourier_style
from ssada_core.learning.training_data import TrainingData
from ssada_core.learning.views import (
    Mask,
    WeakView,
    box_mask,
    paste,
    sample_cutmix,
    sample_geometry,
    strong_view,
    weak_view,
)

__all__ = ["BatchMaker", "BatchStream", "TrainingData"]

_MEBIBYTE = 1 << 20
_SOURCE, _LABELLED, _UNLABELLED, _OTHER, _CROPS = range(5)  # independent random streams
_STYLE = 6  # 5 is the trainer's


@dataclass(frozen=True)
class _Mixed:
    """An unlabelled crop with its strong views; ``other`` is None where nothing is pasted."""

    weak: Array
    strong: tuple[Array, Array]
    usable: Mask
    boxes: tuple[Mask, Mask]
    other: tuple[Array, Mask] | None


class BatchMaker:
    """Makes the batch of any iteration."""

    def __init__(
        self,
        data: TrainingData,
        settings: TrainingSettings,
        *,
        pairs: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Look through the labelled frames for those that are only partly labelled (METHOD §7).

        Args:
            data: what to draw from.
            settings: of crops, batches and style.
            pairs: make TUFL's pairs of target views instead of weak and strong ones.
            rank: which of the processes that train together this is, from 0: each draws frames of its own.
            processes: how many they are.

        Raises:
            DataError: if there is nothing to train on, a labelled frame has no label, or a style lacks its images.
        """
        self._settings = settings
        self._paired = pairs
        self._rank, self._processes = rank, processes
        if data.source is not None and settings.style.mode == "folder":
            data = replace(data, source=TranslatedSamples(data.source, Path(settings.style.folder)))
        self._crop = (settings.crop_height, settings.crop_width)
        self._source = _part(data.source, data, settings.source_batch, settings)
        self._labelled = _part(data.labelled, data, settings.labelled_batch, settings)
        self._pool = self._unlabelled_pool(data)
        if self._source is None and self._labelled is None and not self._pool:
            raise DataError("nothing to train on: no source, labelled or unlabelled frames with a batch size above 0")
        self._styles = self._style_frames(data)
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """Frames per part, as they are drawn from."""
        return {
            "source": len(self._source) if self._source else 0,
            "labelled": len(self._labelled) if self._labelled else 0,
            "unlabelled": len(self._pool),
        }

    def batch(self, iteration: int) -> Batch:
        """The batch of ``iteration`` (from 0), always the same for the same seed, data and settings.

        Raises:
            DataError: if a frame cannot be read, or a labelled one has no label.
        """
        rng, settings = self._generator(_CROPS, iteration), self._settings
        source = self._supervised(rng, self._source, _SOURCE, settings.source_batch, iteration)
        labelled = self._supervised(rng, self._labelled, _LABELLED, settings.labelled_batch, iteration)
        if not self._pool:
            return Batch(source, labelled, None)
        if self._paired:
            return Batch(source, labelled, None, self._pairs(rng, iteration))
        return Batch(source, labelled, self._unlabelled(rng, iteration))

    def _generator(self, stream: int, iteration: int) -> np.random.Generator:
        # The first process draws what a single one would.
        return np.random.default_rng([self._settings.seed, stream, iteration] + ([self._rank] if self._rank else []))

    def _style_frames(self, data: TrainingData) -> Samples | None:
        """Target frames whose style FDA gives to source frames; None where it is off."""
        if self._settings.style.mode != "fda" or self._source is None:
            return None
        frames = self._pool[0][0] if self._pool else self._labelled or _part(data.labelled, data, 1, self._settings)
        if frames is None:
            raise DataError("style mode 'fda' takes the style of target frames, and there are none: add some")
        return frames

    def _unlabelled_pool(self, data: TrainingData) -> list[tuple[Samples, int, bool]]:
        """Frames for the unlabelled loss: samples, index, and whether its label says what to leave out."""
        if self._settings.unlabelled_batch == 0:
            return []
        plain = _part(data.unlabelled, data, self._settings.unlabelled_batch, self._settings)
        pool = [(plain, index, False) for index in range(len(plain))] if plain is not None else []
        labelled = self._labelled or _part(data.labelled, data, 1, self._settings)
        if labelled is not None:
            share = self._settings.sparse_share
            sparse = data.sparse
            if sparse is None:
                sparse = [i for i in range(len(labelled)) if np.mean(_label(labelled, i) == IGNORE) > share]
            pool += [(labelled, index, True) for index in sparse]
        return pool

    def _draw(self, stream: int, total: int, count: int, iteration: int) -> list[int]:
        """Indices of one batch: each frame once per pass, the passes shuffled anew; small sets repeat in a batch."""
        drawn = []
        first = (iteration * self._processes + self._rank) * count
        for position in range(first, first + count):
            epoch, offset = divmod(position, total)
            known, order = self._orders.get(stream, (-1, np.empty(0, np.int64)))
            if known != epoch:
                order = np.random.default_rng([self._settings.seed, stream, epoch]).permutation(total)
                self._orders[stream] = (epoch, order)
            drawn.append(int(order[offset]))
        return drawn

    def _styled(self, rng: np.random.Generator, image: Array) -> Array:
        if self._styles is None:
            return image
        target = self._styles.image(int(rng.integers(len(self._styles))))
        return fourier_style(image, target, self._settings.style.beta)

    def _view(
        self,
        rng: np.random.Generator,
        samples: Samples,
        index: int,
        *,
        labelled: bool,
        style: np.random.Generator | None = None,
    ) -> WeakView:
        image = samples.image(index)
        if style is not None:
            image = self._styled(style, image)
        label = _label(samples, index) if labelled else None
        scales = (self._settings.scale_min, self._settings.scale_max)
        geometry = sample_geometry(rng, (image.shape[0], image.shape[1]), self._crop, scales)
        return weak_view(image, label, geometry, self._crop)

    def _supervised(
        self, rng: np.random.Generator, samples: Samples | None, stream: int, count: int, iteration: int
    ) -> LabelledCrops | None:
        if samples is None:
            return None
        indices = self._draw(stream, len(samples), count, iteration)
        style = self._generator(_STYLE, iteration) if stream == _SOURCE else None
        views = [self._view(rng, samples, index, labelled=True, style=style) for index in indices]
        labels = np.stack([view.label for view in views if view.label is not None]).astype(np.int64)
        return LabelledCrops(_stack([view.image for view in views]), torch.from_numpy(labels))

    def _unlabelled(self, rng: np.random.Generator, iteration: int) -> UnlabelledCrops:
        count = self._settings.unlabelled_batch
        own = self._draw(_UNLABELLED, len(self._pool), count, iteration)
        others = self._draw(_OTHER, len(self._pool), count, iteration)
        crops = [self._mixed(rng, first, second) for first, second in zip(own, others, strict=True)]
        pasted = [(row, crop.other) for row, crop in enumerate(crops) if crop.other is not None]
        return UnlabelledCrops(
            weak=_stack([crop.weak for crop in crops]),
            strong1=_stack([crop.strong[0] for crop in crops]),
            strong2=_stack([crop.strong[1] for crop in crops]),
            usable=_stack([crop.usable for crop in crops]),
            box1=_stack([crop.boxes[0] for crop in crops]),
            box2=_stack([crop.boxes[1] for crop in crops]),
            other=_stack([other[0] for _, other in pasted], (0, *self._crop, 3), torch.uint8),
            other_rows=torch.tensor([row for row, _ in pasted], dtype=torch.int64),
            other_usable=_stack([other[1] for _, other in pasted], (0, *self._crop), torch.bool),
        )

    def _pairs(self, rng: np.random.Generator, iteration: int) -> PairedCrops:
        drawn = self._draw(_UNLABELLED, len(self._pool), self._settings.unlabelled_batch, iteration)
        plain = [self._usable_view(rng, entry) for entry in drawn]
        matrices = [sample_affine(rng, self._crop) for _ in plain]
        augmented = [augmented_view(rng, *view, matrix) for view, matrix in zip(plain, matrices, strict=True)]
        return PairedCrops(
            plain=_stack([image for image, _ in plain]),
            augmented=_stack([image for image, _ in augmented]),
            matrix=torch.from_numpy(np.stack(matrices)),
            usable=_stack([usable for _, usable in plain]),
            valid=_stack([valid for _, valid in augmented]),
        )

    def _mixed(self, rng: np.random.Generator, own: int, second: int) -> _Mixed:
        weak, usable = self._usable_view(rng, own)
        strong = [strong_view(rng, weak), strong_view(rng, weak)]
        boxes = [sample_cutmix(rng, self._crop), sample_cutmix(rng, self._crop)]
        other = self._usable_view(rng, second) if any(boxes) else None
        for index, box in enumerate(boxes):
            if box is not None and other is not None:
                strong[index] = paste(strong[index], strong_view(rng, other[0]), box)
        masks = (box_mask(boxes[0], self._crop), box_mask(boxes[1], self._crop))
        return _Mixed(weak, (strong[0], strong[1]), usable, masks, other)

    def _usable_view(self, rng: np.random.Generator, entry: int) -> tuple[Array, Mask]:
        samples, index, partly = self._pool[entry]
        view = self._view(rng, samples, index, labelled=partly)
        return view.image, view.inside if view.label is None else view.inside & (view.label == IGNORE)


class BatchStream:
    """Batches one after another from an iteration on, the next one prepared in a background thread."""

    def __init__(self, maker: BatchMaker, *, start: int = 0, prefetch: bool = True) -> None:
        self._maker = maker
        self._position = start
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="batches") if prefetch else None
        self._pending: Future[Batch] | None = None

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    @property
    def position(self) -> int:
        """Iteration of the next batch: all there is to save, and what ``start`` takes."""
        return self._position

    def next(self, *, last: bool = False) -> Batch:
        """The next batch; with ``last`` none is prepared behind it.

        Raises:
            DataError: as :meth:`BatchMaker.batch`.
        """
        batch = self._pending.result() if self._pending is not None else self._maker.batch(self._position)
        self._position += 1
        if self._executor is not None:
            self._pending = None if last else self._executor.submit(self._maker.batch, self._position)
        return batch


def _part(samples: Samples | None, data: TrainingData, count: int, settings: TrainingSettings) -> Samples | None:
    """One part of the data behind its share of the cache; None if it is empty or not asked for."""
    if samples is None or count == 0 or len(samples) == 0:
        return None
    total = sum(len(part) for part in (data.source, data.labelled, data.unlabelled) if part is not None)
    return CachedSamples(samples, settings.cache_megabytes * _MEBIBYTE * len(samples) // total)


def _label(samples: Samples, index: int) -> Array:
    label = samples.label(index)
    if label is None:
        raise DataError(f"{samples.name(index)}: a labelled frame without a label: label it, or move it to unlabelled")
    return label


def _stack(arrays: list[Array] | list[Mask], empty: tuple[int, ...] = (0,), dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.from_numpy(np.stack(arrays)) if arrays else torch.empty(empty, dtype=dtype)
