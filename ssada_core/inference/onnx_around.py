"""What is put around a foreign ONNX model: camera bytes in front, label, confidence and uncertainty behind.

It is written by hand in operators that all backends know; the model itself is not changed.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from ssada_core.inference.graph import INPUT_NAME, OUTPUT_NAMES
from ssada_core.inference.onnx_forms import OnnxInput, OnnxOutput
from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD

Normalisation = Literal["imagenet", "unit", "none"]
Colours = Literal["rgb", "bgr"]
PREFIX = "model/"
"""Of all names in the foreign graph, so that none meets ours (and quantisation tells them apart)."""
LEAST = 1e-7
"""Probabilities below this are taken as this before their logarithm."""


def _pixel_scale(normalisation: Normalisation, colours: Colours) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factor and summand of pixels 0…255, by channel in the model's order."""
    mean, std = {
        "imagenet": (np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)),
        "unit": (np.zeros(3), np.ones(3)),
        "none": (np.zeros(3), np.full(3, 1 / 255)),
    }[normalisation]
    if colours == "bgr":
        mean, std = mean[::-1], std[::-1]
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def surrounded(
    model: onnx.ModelProto,
    entry: OnnxInput,
    answer: OnnxOutput,
    num_classes: int,
    normalisation: Normalisation,
    colours: Colours,
) -> onnx.ModelProto:
    """The deployed graph: frames in front, the model's one output behind."""
    scale = _pixel_scale(normalisation, colours)
    inner = compose.add_prefix(model, PREFIX)
    parts = _Nodes()
    image = _image(parts, entry, scale, colours)
    parts.add("Identity", [image], PREFIX + entry.name)
    own = len(parts.nodes)
    last = PREFIX + answer.name
    if answer.form == "class ids":
        _of_ids(parts, last, answer, entry.size)
    else:
        _of_logits(parts, last, answer, entry.size, num_classes)
    height, width = entry.size
    frames = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [1, height, width, 3])
    plane, count = [1, height, width], parts.feature_count
    kinds = (TensorProto.UINT8, TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT)
    shapes = (plane, plane, [1], [1, count])
    outputs = [helper.make_tensor_value_info(*each) for each in zip(OUTPUT_NAMES, kinds, shapes, strict=True)]
    graph = helper.make_graph(
        [*parts.nodes[:own], *inner.graph.node, *parts.nodes[own:]],
        "deployed",
        [frames],
        outputs,
        [*inner.graph.initializer, *parts.constants],
        sparse_initializer=list(inner.graph.sparse_initializer),
    )
    made = helper.make_model(graph, opset_imports=list(inner.opset_import), ir_version=inner.ir_version)
    made.functions.extend(inner.functions)
    return made


class _Nodes:
    """Nodes and constants under construction; each node's name is its output's."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.feature_count = 1

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name


def _image(
    parts: _Nodes, entry: OnnxInput, scale: tuple[NDArray[np.float32], NDArray[np.float32]], colours: Colours
) -> str:
    """From uint8 [1,H,W,3] BGR to what the model takes."""
    name = INPUT_NAME
    if entry.kind != "uint8":  # at once: TensorRT does nothing else with bytes
        name = parts.add("Cast", [name], "pixels", to=TensorProto.FLOAT)
    if colours == "rgb":
        name = parts.add("Gather", [name, parts.constant("rgb", np.array([2, 1, 0]))], "in_order", axis=3)
    if entry.channels_first:
        name = parts.add("Transpose", [name], "planes", perm=[0, 3, 1, 2])
    if entry.kind == "uint8":
        return name
    shape = (1, 3, 1, 1) if entry.channels_first else (1, 1, 1, 3)
    name = parts.add("Mul", [name, parts.constant("scale", scale[0].reshape(shape))], "scaled")
    name = parts.add("Add", [name, parts.constant("shift", scale[1].reshape(shape))], "normalised")
    return parts.add("Cast", [name], "half", to=TensorProto.FLOAT16) if entry.kind == "float16" else name


def _of_logits(parts: _Nodes, name: str, answer: OnnxOutput, size: tuple[int, int], num_classes: int) -> None:
    """Label, confidence and uncertainty as :class:`DeployedGraph` answers them; features are the mean logits."""
    name = parts.add("Cast", [name], "answer", to=TensorProto.FLOAT)
    shape = (1, num_classes, *answer.size) if answer.channels_first else (1, *answer.size, num_classes)
    name = parts.add("Reshape", [name, parts.constant("shape", np.array(shape, np.int64))], "batch")
    if not answer.channels_first:
        name = parts.add("Transpose", [name], "class_planes", perm=[0, 3, 1, 2])
    if answer.form == "probabilities":
        name = parts.add("Max", [name, parts.constant("least", np.array(LEAST, np.float32))], "positive")
        name = parts.add("Log", [name], "logits")
    parts.add("Flatten", [parts.add("GlobalAveragePool", [name], "mean_logits")], "features", axis=1)
    parts.feature_count = num_classes
    if answer.size != size:
        wanted = parts.constant("large", np.array([1, num_classes, *size], np.int64))
        name = parts.add(
            "Resize", [name, "", "", wanted], "enlarged", mode="linear", coordinate_transformation_mode="half_pixel"
        )
    ids = parts.add("ArgMax", [name], "ids", axis=1, keepdims=0)
    parts.add("Cast", [parts.add("Cast", [ids], "ids_as_floats", to=TensorProto.FLOAT)], "label", to=TensorProto.UINT8)
    logs = parts.add("LogSoftmax", [name], "logs", axis=1)
    shares = parts.add("Exp", [logs], "shares")
    # Of the k = 1 largest values, because the arguments of ReduceMax differ between opsets.
    one = parts.constant("one", np.array([1], np.int64))
    parts.nodes.append(helper.make_node("TopK", [shares, one], ["largest", "where"], name="largest", axis=1))
    plane = parts.constant("plane", np.array([1, *size], np.int64))
    top = parts.add("Reshape", ["largest", plane], "top")
    top = parts.add("Mul", [top, parts.constant("levels", np.array(255, np.float32))], "level")
    top = parts.add("Add", [top, parts.constant("half_level", np.array(0.5, np.float32))], "rounded")
    parts.add("Cast", [top], "confidence", to=TensorProto.UINT8)
    axes = parts.constant("axes", np.array([1, 2, 3], np.int64))
    total = parts.add("ReduceSum", [parts.add("Mul", [logs, shares], "parts"), axes], "total", keepdims=0)
    mean = np.array(-1 / (size[0] * size[1] * math.log(max(num_classes, 2))), np.float32)
    parts.add("Mul", [total, parts.constant("mean", mean)], "uncertainty")


def _of_ids(parts: _Nodes, name: str, answer: OnnxOutput, size: tuple[int, int]) -> None:
    """A model that keeps its doubts to itself: full confidence everywhere, no uncertainty, no features."""
    name = parts.add("Cast", [name], "answer", to=TensorProto.FLOAT)
    name = parts.add("Reshape", [name, parts.constant("shape", np.array([1, 1, *answer.size], np.int64))], "batch")
    if answer.size != size:
        wanted = parts.constant("large", np.array([1, 1, *size], np.int64))
        name = parts.add(
            "Resize",
            [name, "", "", wanted],
            "enlarged",
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    plane = parts.add("Reshape", [name, parts.constant("plane", np.array([1, *size], np.int64))], "plane_of_ids")
    parts.add("Cast", [plane], "label", to=TensorProto.UINT8)
    parts.add("Identity", [parts.constant("sure", np.full((1, *size), 255, np.uint8))], "confidence")
    parts.add("Identity", [parts.constant("no_doubt", np.zeros(1, np.float32))], "uncertainty")
    parts.add("Identity", [parts.constant("no_features", np.zeros((1, 1), np.float32))], "features")
