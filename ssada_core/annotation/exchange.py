"""A pool's frames out to other tools, and their masks in: every format, one label check."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ssada_core.annotation.check import LabelCheckSettings
from ssada_core.annotation.cvat import CvatMasks
from ssada_core.annotation.masks import Item, MaskFormat
from ssada_core.annotation.plain import CityscapesMasks, PlainMasks
from ssada_core.annotation.submit import SubmitResult, submit
from ssada_core.data.privacy import Hider
from ssada_core.data.resized import resize_label
from ssada_core.data.samples import Array
from ssada_core.errors import ConfigError, DataError, StoreError
from ssada_core.settings import nearest
from ssada_core.store.pool import FramePool, FrameRecord, State

_log = logging.getLogger(__name__)

FORMATS: Mapping[str, MaskFormat] = {"png": PlainMasks(), "cvat": CvatMasks(), "cityscapes": CityscapesMasks()}

CONTENTS: Mapping[str, tuple[State, ...]] = {
    "open": ("queried", "held"),
    "labelled": ("labelled",),
    "all": ("queried", "held", "labelled"),
}
"""What may leave the pool: open questions with the model's predictions, labelled frames with their labels, or both."""


def export_pool(pool: FramePool, out: Path, *, format_name: str, content: str, hider: Hider | None = None) -> int:
    """Write frames and masks for another tool; returns how many frames.

    What ``hider`` finds is hidden in the frames that are written, not in those of the pool.

    Raises:
        PrivacyError: if a detector fails; its frame is not written.
        ConfigError: if there is no such format or content.
        DataError: if nothing is to be written, or no frame can be read.
        StoreError: if the disk refuses.
    """
    if content not in CONTENTS:
        raise ConfigError(f"what to export: '{content}'{nearest(content, list(CONTENTS))}")
    records = [record for record in pool.frames(states=CONTENTS[content]) if record.query_id is not None]
    if not records:
        raise DataError(f"{pool.root} has no frames to export ({content}): see `ssada pool stats`")
    return mask_format(format_name).write(out, items(pool, records, hider), pool.label_space)


def items(pool: FramePool, records: Sequence[FrameRecord], hider: Hider | None = None) -> Iterator[Item]:
    """Frames of the pool, each with its label or else the model's prediction. One that cannot be read is left out.

    Raises:
        DataError: at the end, if none could be read.
        PrivacyError: if a detector of ``hider`` fails.
    """
    left_out = 0
    for record in records:
        try:
            jpeg, start = pool.image_bytes(record), _start(pool, record)
        except (StoreError, DataError) as error:
            _log.warning("query %s is left out: %s", record.query_id, error)
            left_out += 1
            continue
        kept = hider.hide_jpeg(jpeg, pool.settings.jpeg_quality) if hider is not None else jpeg
        yield Item(str(record.query_id), kept, start)
    if left_out and left_out == len(records):
        raise DataError(f"none of the {left_out} frames of {pool.root} can be read: see `ssada pool verify`")


def import_masks(
    pool: FramePool,
    source: Path,
    *,
    format_name: str,
    annotator: str,
    confirmed: bool = False,
    settings: LabelCheckSettings | None = None,
    on_result: Callable[[SubmitResult], None] = lambda _: None,
) -> list[SubmitResult]:
    """Take masks in; each is judged as every label is, and its result says what became of it.

    Args:
        pool: where the questions were asked.
        source: folder or archive.
        format_name: one of :data:`FORMATS`.
        annotator: who made the masks.
        confirmed: a human has looked at the suspicious ones again.
        settings: the limits of the check.
        on_result: hears of each result at once.

    Raises:
        ConfigError: if there is no such format.
        DataError: if ``source`` is not of that format.
        StoreError: if the pool cannot be written.
    """
    results = []
    for mask in mask_format(format_name).read(source, pool.label_space):
        result = SubmitResult(mask.query_id, "refused", mask.why)
        if mask.label is not None:
            result = submit(pool, mask.query_id, mask.label, annotator, settings=settings, confirmed=confirmed)
        results.append(result)
        on_result(result)
    return results


def mask_format(name: str) -> MaskFormat:
    """A format by name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in FORMATS:
        raise ConfigError(f"format '{name}'{nearest(name, list(FORMATS))}")
    return FORMATS[name]


def _start(pool: FramePool, record: FrameRecord) -> Array | None:
    label = pool.label(record)
    if label is not None:
        return label
    prediction = pool.prediction(record)
    if prediction is None:
        return None
    return resize_label(prediction[0], record.size)
