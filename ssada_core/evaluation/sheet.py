"""A picture of the frames that a model does worst on: where to look first."""

from __future__ import annotations

import numpy as np

from ssada_core.data.samples import Array, Samples
from ssada_core.errors import DataError
from ssada_core.evaluation.evaluate import Evaluation
from ssada_core.evaluation.metrics import miou
from ssada_core.evaluation.overlay import legend, overlay, stacked, strip
from ssada_core.inference.engine import Engine
from ssada_core.labels import LabelSpace


def worst_frames(evaluation: Evaluation, count: int) -> list[int]:
    """Positions in ``evaluation`` of the frames with the lowest mIoU of their own, lowest first.

    Frames without a labelled pixel have none and do not count.
    """
    values = np.array([miou(matrix) for matrix in evaluation.matrices])
    order = np.argsort(values, kind="stable")
    return [int(index) for index in order if np.isfinite(values[index])][:count]


def worst_sheet(
    engine: Engine, samples: Samples, evaluation: Evaluation, space: LabelSpace, *, count: int = 8, height: int = 240
) -> Array:
    """One row per frame: frame, ground truth, prediction; the legend below.

    Args:
        engine: runs on the chosen frames once more.
        samples: what was evaluated.
        evaluation: of ``engine`` on ``samples``.
        space: names and colours.
        count: rows at most.
        height: height of each picture, pixels.

    Returns:
        uint8 BGR.

    Raises:
        DataError: if no frame has a labelled pixel.
    """
    chosen = worst_frames(evaluation, count)
    if not chosen:
        raise DataError("no frame has a labelled pixel: a sheet of the worst frames needs labelled frames")
    place = {samples.name(index): index for index in range(len(samples))}
    rows = []
    for position in chosen:
        name = evaluation.names[position]
        caption = f"{name}: {miou(evaluation.matrices[position]):.1f} mIoU"
        rows.append(_row(engine, samples, place[name], space, caption, height))
    sheet = stacked(rows)
    return np.concatenate([sheet, legend(space, sheet.shape[1])], axis=0)


def _row(engine: Engine, samples: Samples, index: int, space: LabelSpace, caption: str, height: int) -> Array:
    image, target = samples.image(index), samples.label(index)
    if target is None:
        raise DataError(f"{samples.name(index)}: its label was there and is gone: leave the data alone meanwhile")
    palette = space.palette_bgr()
    truth = overlay(image, target, palette, opacity=0.6, keep_unlabelled=True)
    answer = overlay(image, engine.infer([image])[0].label, palette, opacity=0.6)
    return strip([image, truth, answer], (caption, "ground truth", "prediction"), height=height)
