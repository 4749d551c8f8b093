"""What a foreign ONNX model takes and answers, found by looking at it and by running it once on noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ssada_core.errors import ModelError, require
from ssada_core.inference.onnx_engine import error_types

INPUTS = "one image, float32, float16 or uint8, [1,3,H,W] or [1,H,W,3]"
"""What is expected of the input, for errors."""
OUTPUTS = "logits or probabilities [1,C,h,w] or [1,h,w,C], or class ids [1,h,w] or [1,1,h,w]"
"""What is expected of the output, for errors."""
_KINDS = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8"}
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OnnxInput:
    """The one input.

    Attributes:
        name: in the graph.
        kind: ``float32``, ``float16`` or ``uint8``.
        channels_first: ``[1,3,H,W]``, else ``[1,H,W,3]``.
        size: height and width.
    """

    name: str
    kind: str
    channels_first: bool
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the tensor."""
        height, width = self.size
        return (1, 3, height, width) if self.channels_first else (1, height, width, 3)


@dataclass(frozen=True)
class OnnxOutput:
    """The output that is used.

    Attributes:
        name: in the graph.
        form: class ids, logits or probabilities.
        channels_first: where there are channels: ``[1,C,h,w]``, else ``[1,h,w,C]``.
        size: height and width, not necessarily the input's.
        shape: of the tensor as the model answers it.
    """

    name: str
    form: str
    channels_first: bool
    size: tuple[int, int]
    shape: tuple[int, ...]


def find_input(model: onnx.ModelProto, size: tuple[int | None, int | None], source: str) -> OnnxInput:
    """The model's input.

    Args:
        model: as loaded.
        size: height and width where the model leaves them open, or where the user wants them.
        source: for errors.

    Raises:
        ModelError: saying what was expected and what was found.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ModelError(f"{source} has {len(inputs)} inputs ({names}): expected is {INPUTS}")
    value = inputs[0]
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim]
    found = f"input '{value.name}' is {_kind(tensor.elem_type)} {_shape_words(dims)}"
    if tensor.elem_type not in _KINDS or len(dims) != 4 or dims[0] not in (1, None):
        raise ModelError(f"{source}: {found}: expected is {INPUTS}")
    if dims[1] not in (3, None) and dims[3] != 3:
        raise ModelError(f"{source}: {found}, which has no axis of 3 colours: expected is {INPUTS}")
    first = dims[1] == 3 or dims[3] != 3
    fixed = (dims[2], dims[3]) if first else (dims[1], dims[2])
    return OnnxInput(value.name, _KINDS[tensor.elem_type], first, _size(fixed, size, f"{source}: {found}"))


def fix_shape(model: onnx.ModelProto, found: OnnxInput) -> onnx.ModelProto:
    """A copy of the model whose input has no open axis; shapes inside it are forgotten, for they may be of others."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name == found.name:
            value.CopyFrom(helper.make_tensor_value_info(found.name, value.type.tensor_type.elem_type, found.shape))
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return fixed


def find_output(model: onnx.ModelProto, entry: OnnxInput, num_classes: int, name: str, source: str) -> OnnxOutput:
    """What the model answers, by its answer to noise.

    Args:
        model: with a fixed input.
        entry: its input.
        num_classes: of the label space.
        name: of the output to use; the first by default.
        source: for errors.

    Raises:
        ModelError: saying what was expected and what was found, or that it cannot be run.
    """
    names = [value.name for value in model.graph.output]
    if name and name not in names:
        raise ModelError(f"{source} has no output '{name}': there are {', '.join(names)}")
    chosen = name or names[0]
    answer = _run(model, entry, chosen, source)
    found = f"output '{chosen}' is {answer.dtype} {list(answer.shape)}"
    if np.issubdtype(answer.dtype, np.integer):
        return _class_ids(chosen, answer, num_classes, f"{source}: {found}")
    plane = answer[None] if answer.ndim == 3 else answer
    if not np.issubdtype(answer.dtype, np.floating) or plane.ndim != 4 or plane.shape[0] != 1:
        raise ModelError(f"{source}: {found}: expected is {OUTPUTS}{_others(names, chosen)}")
    if num_classes not in (plane.shape[1], plane.shape[3]):
        raise ModelError(
            f"{source}: {found}, but the label space has {num_classes} classes: name the model's own with "
            f"--label-space{_others(names, chosen)}"
        )
    first = plane.shape[1] == num_classes
    height, width = plane.shape[2:] if first else plane.shape[1:3]
    total = plane.sum(axis=1 if first else 3, dtype=np.float32)  # float16's own sums are off by more than we allow
    normalised = plane.min() >= 0 and np.abs(total - 1).max() < _SUM_TOLERANCE
    form = "probabilities" if normalised else "logits"
    return OnnxOutput(chosen, form, first, (int(height), int(width)), answer.shape)


def _class_ids(name: str, answer: NDArray[Any], num_classes: int, found: str) -> OnnxOutput:
    axes = [length for length in answer.shape if length != 1]
    if len(axes) != 2:
        raise ModelError(f"{found}: expected is {OUTPUTS}")
    if answer.min() < 0 or answer.max() >= num_classes:
        raise ModelError(
            f"{found} with ids from {answer.min()} to {answer.max()}, but the label space has {num_classes} classes: "
            "name the model's own with --label-space"
        )
    return OnnxOutput(name, "class ids", True, (axes[0], axes[1]), answer.shape)


def _run(model: onnx.ModelProto, entry: OnnxInput, output: str, source: str) -> NDArray[Any]:
    onnxruntime = require("onnxruntime", extra="onnxruntime", purpose="looking at an ONNX model")
    noise = np.random.default_rng(0).integers(0, 256, entry.shape)
    image = noise.astype(np.uint8) if entry.kind == "uint8" else (noise / 127.5 - 1).astype(entry.kind)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (answer,) = session.run([output], {entry.name: image})
    except error_types() as error:
        reason = str(error).strip().splitlines()[0]
        height, width = entry.size
        raise ModelError(f"{source} cannot be run at {height}x{width} by onnxruntime ({reason})") from error
    return np.asarray(answer)


def _size(fixed: tuple[int | None, int | None], wanted: tuple[int | None, int | None], found: str) -> tuple[int, int]:
    chosen = []
    for name, own, asked in zip(("height", "width"), fixed, wanted, strict=True):
        if own and asked and own != asked:
            raise ModelError(f"{found}: --{name} {asked} was asked for, but the model's own {name} is fixed at {own}")
        if not (own or asked):
            raise ModelError(f"{found}, which leaves the {name} open: give --{name}")
        chosen.append(int(own or asked or 0))
    return chosen[0], chosen[1]


def _others(names: list[str], chosen: str) -> str:
    rest = [name for name in names if name != chosen]
    return f"; other outputs (--output): {', '.join(rest)}" if rest else ""


def _kind(elem_type: int) -> str:
    return str(TensorProto.DataType.Name(elem_type)).lower() if elem_type not in _KINDS else _KINDS[elem_type]


def _shape_words(dims: list[int | None]) -> str:
    return f"[{','.join('?' if dim is None else str(dim) for dim in dims)}]"
