"""What the worker measured of champion, challenger and first model: the gate's only evidence.

The worker measures, the node decides (ARCHITECTURE contract 5); between them is one ``.npz`` file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssada_core.errors import WorkerError
from ssada_core.evaluation.evaluate import Evaluation
from ssada_core.evaluation.metrics import Matrix
from ssada_core.store.files import DAMAGED_NPZ, write_atomic

_MODELS = ("champion", "challenger", "first")
_ARRAYS = ("audit", "source", "histogram", "latencies_s", "cases")


@dataclass(frozen=True)
class ModelMeasurement:
    """One model, as deployed.

    Attributes:
        audit: int64 ``[N, C, C]``, a confusion matrix per audit frame (rows ground truth).
        source: int64 ``[M, C, C]``, the same on the source pack's frames; M = 0 without one.
        histogram: int64 ``[C]``, predicted pixels per class over the audit frames.
        latencies_s: float64 ``[K]``, seconds per frame, measured in turns with the other models.
        finite: whether every output was a finite number.
        cases: int64 ``[K, C, C]``, the same on the regression cases.
    """

    audit: Matrix
    source: Matrix
    histogram: Matrix
    latencies_s: NDArray[np.float64]
    finite: bool
    cases: Matrix = field(default_factory=lambda: np.zeros((0, 0, 0), np.int64))

    @classmethod
    def of(
        cls,
        audit: Evaluation,
        source: Evaluation | None = None,
        latencies_s: NDArray[np.float64] | None = None,
        cases: Evaluation | None = None,
    ) -> ModelMeasurement:
        """Gather what :func:`ssada_core.evaluation.evaluate.evaluate` returned.

        Args:
            audit: on the audit frames.
            source: on the source pack; None in a source-free round.
            latencies_s: measured in turns with the other models; the audit run's own otherwise.
            cases: on the regression cases; None without any.
        """
        parts = [part for part in (audit, source, cases) if part is not None]
        return cls(
            audit=audit.matrices,
            source=source.matrices if source is not None else np.zeros((0, *audit.matrices.shape[1:]), np.int64),
            histogram=np.asarray(audit.histograms.sum(axis=0)),
            latencies_s=audit.latencies_s if latencies_s is None else latencies_s,
            finite=all(part.finite for part in parts),
            cases=cases.matrices if cases is not None else np.zeros((0, *audit.matrices.shape[1:]), np.int64),
        )


@dataclass(frozen=True)
class Measurements:
    """All three models on the same frames.

    Attributes:
        stamps_ns: int64 ``[N]``, when the audit frames were taken.
        champion: the model in use.
        challenger: the model that the round trained.
        first: the model that the vehicle started with (often the champion itself).
        domains: one name per audit frame; empty means that all are of the target.
        target: the domain that the round adapted to; every other one is an earlier domain.
        agreement: source-free rounds: share in [0, 1] of the first model's confident pixels on which
            the challenger answers alike; None if not measured.
        case_ids: query ids of the regression cases, one for each matrix in ``cases``.
    """

    stamps_ns: NDArray[np.int64]
    champion: ModelMeasurement
    challenger: ModelMeasurement
    first: ModelMeasurement
    domains: tuple[str, ...] = ()
    target: str = ""
    agreement: float | None = None
    case_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        frames = self.stamps_ns.size
        if self.domains and len(self.domains) != frames:
            raise WorkerError(f"measurements: {len(self.domains)} domains for {frames} audit frames: give one each")
        for name in _MODELS:
            self._check(name, getattr(self, name), frames)

    def _check(self, name: str, model: ModelMeasurement, frames: int) -> None:
        classes, shown = self.champion.audit.shape[-1], self.champion.source.shape[0]
        expected = {"audit": (frames, classes, classes), "source": (shown, classes, classes), "histogram": (classes,)}
        if self.case_ids:
            expected["cases"] = (len(self.case_ids), classes, classes)
        for array, shape in expected.items():
            if getattr(model, array).shape != shape:
                raise WorkerError(
                    f"measurements: {array} of the {name} has shape {getattr(model, array).shape}, expected {shape}: "
                    "measure all models on the same frames"
                )

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.champion.audit.shape[-1])

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Which audit frames belong to each domain, bool ``[N]``; the target first, and always there."""
        names = np.array(self.domains or (self.target,) * self.stamps_ns.size, dtype=np.str_)
        ordered = [self.target, *sorted(set(self.domains) - {self.target})]
        return {name: np.asarray(names == name, np.bool_).reshape(-1) for name in ordered}

    def save(self, path: Path) -> None:
        """Write one ``.npz`` file, atomically and without pickle.

        Raises:
            StoreError: if it cannot be written.
        """
        meta = {
            "domains": list(self.domains),
            "target": self.target,
            "agreement": self.agreement,
            "cases": list(self.case_ids),
            "finite": {name: getattr(self, name).finite for name in _MODELS},
        }
        arrays: dict[str, Any] = {"stamps_ns": self.stamps_ns, "meta": np.array(json.dumps(meta))}
        for name in _MODELS:
            arrays |= {f"{name}.{array}": getattr(getattr(self, name), array) for array in _ARRAYS}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Measurements:
        """Read what :meth:`save` wrote.

        Raises:
            WorkerError: if the file is missing, cut off, or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                meta = json.loads(str(arrays["meta"]))
                models = {name: _read_model(arrays, name, bool(meta["finite"][name])) for name in _MODELS}
                return cls(
                    stamps_ns=np.asarray(arrays["stamps_ns"], np.int64),
                    domains=tuple(meta["domains"]),
                    target=str(meta["target"]),
                    agreement=meta["agreement"],
                    case_ids=tuple(meta.get("cases", ())),
                    **models,
                )
        except DAMAGED_NPZ as error:
            raise WorkerError(f"{path}: not a readable measurements file ({error}): run the round again") from error


def _read_model(arrays: Mapping[str, Any], name: str, finite: bool) -> ModelMeasurement:
    return ModelMeasurement(
        audit=np.asarray(arrays[f"{name}.audit"], np.int64),
        source=np.asarray(arrays[f"{name}.source"], np.int64),
        histogram=np.asarray(arrays[f"{name}.histogram"], np.int64),
        latencies_s=np.asarray(arrays[f"{name}.latencies_s"], np.float64),
        finite=finite,
        # Files of an earlier release have none.
        cases=np.asarray(arrays.get(f"{name}.cases", np.zeros((0, 0, 0))), np.int64),
    )
