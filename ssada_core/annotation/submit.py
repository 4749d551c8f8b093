"""The one way in for labels, whoever sends them: browser page, ROS topic, folder."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ssada_core.annotation.check import CheckResult, LabelCheckSettings, Status, check_label
from ssada_core.data.samples import Array
from ssada_core.errors import StoreError
from ssada_core.store.pool import FramePool


@dataclass(frozen=True)
class SubmitResult:
    """What became of a label.

    Attributes:
        query_id: the question it answers.
        status: accepted (on the disk, for good), held (kept for a second look) or refused (not kept).
        why: one sentence; empty when accepted.
    """

    query_id: str
    status: Status
    why: str


def submit(
    pool: FramePool,
    query_id: str,
    label: Array,
    annotator: str,
    *,
    settings: LabelCheckSettings | None = None,
    confirmed: bool = False,
) -> SubmitResult:
    """Judge a label and store it. An accepted label survives a power cut once this returns.

    Args:
        pool: where the question was asked.
        query_id: which question.
        label: uint8 H×W class ids, 255 where unlabelled.
        annotator: who made it.
        settings: the limits of the check.
        confirmed: a human has looked again: store it even if it is suspicious.

    Raises:
        StoreError: if the pool cannot be written. Wrong labels and unknown queries are results, not errors.
    """
    try:
        record = pool.by_query(query_id)
    except StoreError as error:
        return SubmitResult(query_id, "refused", str(error))
    if record.state == "rejected":
        return SubmitResult(query_id, "refused", f"query '{query_id}' was rejected ({record.reason}): skip it")
    limits = settings or LabelCheckSettings()
    prediction, confidence = pool.prediction(record) or (None, None)
    checked = check_label(
        label,
        size=record.size,
        label_space=pool.label_space,
        prediction=prediction,
        confidence=confidence,
        settings=limits,
    )
    if checked.status == "accepted" and checked.label is not None and limits.hold_duplicates:
        twin = pool.label_twin(query_id, checked.label)
        if twin is not None:
            why = f"it is, pixel by pixel, a label of {twin}: check the file, confirm it if it is right"
            checked = replace(checked, status="held", why=why)
    return _store(pool, query_id, checked, annotator, confirmed=confirmed)


def _store(pool: FramePool, query_id: str, checked: CheckResult, annotator: str, *, confirmed: bool) -> SubmitResult:
    if checked.label is None:
        return SubmitResult(query_id, "refused", checked.why)
    if checked.status == "held" and not confirmed:
        pool.hold_label(query_id, checked.label, annotator, checked.why)
        return SubmitResult(query_id, "held", checked.why)
    pool.accept_label(query_id, checked.label, annotator)
    return SubmitResult(query_id, "accepted", "")
