"""What is measured: every combination of backend and precision that this machine can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssada_core.bench.inference_child import DEFAULT_LAYOUT
from ssada_core.errors import ConfigError
from ssada_core.inference.load import BACKENDS
from ssada_core.settings import nearest

CHANNELS_LAST = "fp32_channels_last"
REFERENCE = ("torch", "fp32")
"""Whose labels the others are compared with: torch in its default layout."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        backend: as in the engine's settings.
        precision: as in the table, where torch's two layouts have names of their own.
        engine_precision: as in the engine's settings.
        layout: torch's order of axes.
    """

    backend: str
    precision: str
    engine_precision: str
    layout: str

    @property
    def name(self) -> str:
        """Such as ``openvino int8``."""
        return f"{self.backend} {self.precision}"


def rows(backends: Sequence[str], precisions: Sequence[str]) -> list[Row]:
    """Every row of these backends and precisions, the reference always among them and first.

    Args:
        backends: names of :data:`BACKENDS`; none means all.
        precisions: as in the table; ``fp32`` also means torch's ``fp32_channels_last``; none means all.

    Raises:
        ConfigError: if a name is not known.
    """
    for name in backends:
        if name not in BACKENDS:
            raise ConfigError(f"--backends '{name}'{nearest(name, list(BACKENDS))}")
    every = [row for backend in sorted(BACKENDS, reverse=True) for row in _of_backend(backend)]
    for name in precisions:
        known = sorted({row.precision for row in every})
        if name not in known:
            raise ConfigError(f"--precision '{name}'{nearest(name, known)}")
    return [row for row in every if _wanted(row, backends, precisions)]


def _of_backend(backend: str) -> list[Row]:
    plain = [Row(backend, precision, precision, "") for precision in BACKENDS[backend].files]
    if backend != "torch":
        return plain
    default = Row(*REFERENCE, "fp32", DEFAULT_LAYOUT)
    return [default, Row("torch", CHANNELS_LAST, "fp32", ""), *(row for row in plain if row.precision != "fp32")]


def _wanted(row: Row, backends: Sequence[str], precisions: Sequence[str]) -> bool:
    if (row.backend, row.precision) == REFERENCE:
        return True
    precise = not precisions or row.precision in precisions or (row.precision == CHANNELS_LAST and "fp32" in precisions)
    return precise and (not backends or row.backend in backends)


def limit(row: Row, roofline: Mapping[str, float]) -> float | None:
    """10⁹ operations per second that this row cannot exceed; None where no such product is measured."""
    return {"fp32": roofline["fp32_gflops"], "int8": roofline["int8_gops"]}.get(row.engine_precision)
