"""What a model can be deployed as: the file of each form, how it is made, and how it is run for comparison."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssada_core.inference.convert import GraphForm, onnx_to_openvino
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.hardware import torch_sees_gpu
from ssada_core.inference.load import (
    ONNX_FILE,
    ONNX_INT8_FILE,
    OPENVINO_FILE,
    OPENVINO_INT8_FILE,
    TENSORRT_FILE,
    TENSORRT_FP16_FILE,
    TENSORRT_INT8_FILE,
)
from ssada_core.inference.onnx_engine import OnnxEngine
from ssada_core.inference.openvino_engine import OpenVinoEngine
from ssada_core.inference.quantise import quantise_onnx, quantise_openvino, quantise_tensorrt

Array = NDArray[np.uint8]
INT8_TARGET = "openvino-int8"
MIN_EQUAL = 0.999
"""Share of pixels whose label must be torch's, in float32."""
HALF_MIN_EQUAL = 0.99
"""The same in float16, which rounds logits in the fourth digit."""

Open = Callable[[Path, tuple[int, int], EngineSettings], Engine]


@dataclass(frozen=True)
class ExactTarget:
    """A form that answers as torch does.

    Attributes:
        modules: the packages it needs.
        file: relative to the model directory.
        write: from the exported ONNX file to the form's own.
        open: makes the engine that it is compared with.
        form: of the exported graph.
        min_equal: share of pixels whose label must be torch's.
    """

    modules: tuple[str, ...]
    file: str
    write: Callable[[Path, Path], None]
    open: Open
    form: GraphForm = "plain"
    min_equal: float = MIN_EQUAL


@dataclass(frozen=True)
class Int8Target:
    """A quantised form, which is judged against the same graph in fp32.

    Attributes:
        modules: the packages it needs.
        file: relative to the model directory.
        write: from the exported ONNX file, with frames of the network's size, to the form's own; the last argument
            is the backbone's name.
        open: makes the engines of both, the quantised and the exported one.
        form: of the exported graph.
    """

    modules: tuple[str, ...]
    file: str
    write: Callable[[Path, Path, Sequence[Array], str], None]
    open: Open
    form: GraphForm = "plain"


def _open_tensorrt(path: Path, size: tuple[int, int], settings: EngineSettings) -> Engine:
    from ssada_core.inference.tensorrt_engine import TensorRtEngine

    return TensorRtEngine(path, size, settings)


def _copy(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)


TARGETS: Mapping[str, ExactTarget] = {
    "onnx-fp32": ExactTarget(("onnxruntime",), ONNX_FILE, _copy, OnnxEngine),
    "openvino-fp32": ExactTarget(("openvino",), OPENVINO_FILE, onnx_to_openvino, OpenVinoEngine),
    "tensorrt-fp32": ExactTarget(("tensorrt",), TENSORRT_FILE, _copy, _open_tensorrt, "tensorrt"),
    "tensorrt-fp16": ExactTarget(
        ("tensorrt",), TENSORRT_FP16_FILE, _copy, _open_tensorrt, "tensorrt-half", HALF_MIN_EQUAL
    ),
}
"""Forms with fp32's answers."""
INT8_TARGETS: Mapping[str, Int8Target] = {
    INT8_TARGET: Int8Target(("openvino", "nncf"), OPENVINO_INT8_FILE, quantise_openvino, OpenVinoEngine),
    "onnx-int8": Int8Target(("onnxruntime", "nncf"), ONNX_INT8_FILE, quantise_onnx, OnnxEngine),
    "tensorrt-int8": Int8Target(
        ("tensorrt", "nncf"), TENSORRT_INT8_FILE, quantise_tensorrt, _open_tensorrt, "tensorrt"
    ),
}
"""Forms with answers of their own."""


def known_targets() -> tuple[str, ...]:
    """Names of all forms, exact ones first."""
    return (*TARGETS, *INT8_TARGETS)


def installed_targets() -> tuple[str, ...]:
    """Names of the forms whose packages can be imported, and that this machine can run, exact ones first."""
    forms: dict[str, ExactTarget | Int8Target] = {**TARGETS, **INT8_TARGETS}
    found = [name for name, form in forms.items() if all(find_spec(module) for module in form.modules)]
    return tuple(name for name in found if "tensorrt" not in forms[name].modules or torch_sees_gpu())


def targets_for(settings: EngineSettings) -> tuple[str, ...]:
    """The installed forms that an engine of these settings may load: no others need be built for it."""
    openvino, onnx = (settings.backend in {"auto", name} for name in ("openvino", "onnxruntime"))
    tensorrt = settings.backend in {"auto", "tensorrt"} and settings.device != "cpu" and torch_sees_gpu()
    installed = installed_targets()
    int8 = settings.precision in {"int8", "auto"}
    wanted = {
        "onnx-fp32": onnx and settings.precision in {"fp32", "auto"},
        "openvino-fp32": openvino and settings.precision != "int8",
        INT8_TARGET: openvino and int8,
        "tensorrt-fp32": tensorrt and settings.precision in {"fp32", "auto"},
        "tensorrt-fp16": tensorrt and settings.precision == "fp16",
        "tensorrt-int8": tensorrt and int8,
        # Quantising takes as long as all else together: where openvino is, auto takes openvino's.
        "onnx-int8": onnx and int8 and (settings.backend == "onnxruntime" or INT8_TARGET not in installed),
    }
    return tuple(name for name in installed if wanted[name])
