"""Measure champion, challenger and first model as deployed, on frames that none of them trained on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ssada_core.adaptation.measurements import Measurements, ModelMeasurement
from ssada_core.data.samples import Samples
from ssada_core.evaluation.evaluate import evaluate
from ssada_core.inference.engine import Engine

LATENCY_ROUNDS = 15
"""Timed frames per model; taken in turns, so that a busy machine slows all models alike."""

CONFIDENT = 0.9
"""Class probability from which the first model's answer is held to in a source-free round."""


def measure(
    engines: Mapping[str, Engine],
    *,
    audit: Samples,
    stamps_ns: Sequence[int],
    source: Samples | None,
    labelled: Samples,
    num_classes: int,
    domains: Sequence[str] = (),
    target: str = "",
    cases: Samples | None = None,
    case_ids: Sequence[str] = (),
) -> Measurements:
    """Run the models over the audit frames, the source frames and the regression cases.

    Without source frames forgetting is measured by :func:`agreement`, on audit and labelled frames (contract 6).

    Args:
        engines: ``champion``, ``challenger`` and ``first``; the same engine may stand for two of them.
        audit: labelled audit frames of the target.
        stamps_ns: when they were taken, nanoseconds.
        source: labelled source frames, or None in a source-free round.
        labelled: the target frames that the challenger was trained on; their labels are not read.
        num_classes: C.
        domains: the road of each audit frame; empty means that all are of the target.
        target: the road that the round adapts to.
        cases: labelled frames of flagged moments, or None.
        case_ids: their query ids.

    Raises:
        DataError: if a frame cannot be read.
        EngineError: if a model cannot be run.
    """
    latencies = interleaved_latencies(engines, audit)
    measured: dict[int, ModelMeasurement] = {}
    for name, engine in engines.items():
        if id(engine) not in measured:  # the first model is often the champion itself
            on_source = evaluate(engine, source, num_classes) if source is not None else None
            on_audit = evaluate(engine, audit, num_classes)
            on_cases = evaluate(engine, cases, num_classes) if cases is not None and len(cases) else None
            measured[id(engine)] = ModelMeasurement.of(on_audit, on_source, latencies[name], on_cases)
    return Measurements(
        stamps_ns=np.asarray(stamps_ns, np.int64),
        champion=measured[id(engines["champion"])],
        challenger=measured[id(engines["challenger"])],
        first=measured[id(engines["first"])],
        agreement=agreement(engines["first"], engines["challenger"], [audit, labelled]) if source is None else None,
        domains=tuple(domains),
        target=target,
        case_ids=tuple(case_ids),
    )


def agreement(first: Engine, challenger: Engine, collections: Sequence[Samples]) -> float | None:
    """Share in [0, 1] of the first model's confident pixels that the challenger answers alike; None without any.

    A pixel is confident from :data:`CONFIDENT` on (ARCHITECTURE contract 6: without a source pack the gate holds to
    the first model's answers on its own confident pixels).

    Raises:
        DataError: if a frame cannot be read.
        EngineError: if a model cannot be run.
    """
    alike = confident = 0
    for samples in collections:
        for index in range(len(samples)):
            frame = [samples.image(index)]
            (before,), (after,) = first.infer(frame), challenger.infer(frame)
            sure = before.confidence >= CONFIDENT * 255
            confident += int(np.count_nonzero(sure))
            alike += int(np.count_nonzero(sure & (before.label == after.label)))
    return alike / confident if confident else None


def interleaved_latencies(engines: Mapping[str, Engine], samples: Samples) -> dict[str, NDArray[np.float64]]:
    """Seconds per frame of each engine, float64 ``[LATENCY_ROUNDS]``, measured in turns after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    if len(samples) == 0:
        return {name: np.zeros(0) for name in engines}
    for turn in range(-1, LATENCY_ROUNDS):
        frame = samples.image(max(turn, 0) % len(samples))
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.infer([frame])
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
    return {name: np.asarray(values) for name, values in times.items()}
