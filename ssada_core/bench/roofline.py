"""What the silicon can do at most: matrix products in fp32 and int8, as fast as any installed runtime makes them.

A network cannot beat a plain large matrix product on the same cores in the same minute, so its share of that rate says
how much is left to gain. The products run in the runtimes that also serve the networks; the best of them counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ssada_core.errors import require

SIDE = 1024
"""Rows and columns of the matrices: three of them in fp32 (12 MiB) are larger than a core's own cache."""
OPERATIONS = 2 * SIDE**3
"""Of one product; a multiplication and its addition count as two, as in a network's GFLOP."""
REPEATS = 3
"""Products per sample; the fastest counts, because the question is what is possible."""
_OPSET = 17
_IR_VERSION = 8
_SCALE = 0.02

Product = Callable[[], object]


class Roofline:
    """Products that are ready to run; :meth:`sample` is called in turn with the engines that are measured."""

    def __init__(self, threads: int) -> None:
        """Build and warm up every product.

        Args:
            threads: as many as the engines get.
        """
        self._products: Mapping[str, list[Product]] = {
            "fp32_gflops": _products(_float_product(), np.float32, threads),
            "int8_gops": _products(_int8_product(), np.uint8, threads),
        }
        self.sample()

    def sample(self) -> dict[str, float]:
        """10⁹ operations per second by kind, ``fp32_gflops`` and ``int8_gops``: the best of a few products each."""
        return {
            kind: max(OPERATIONS / _seconds(product) for product in products for _ in range(REPEATS)) / 1e9
            for kind, products in self._products.items()
        }


def _seconds(product: Product) -> float:
    start = time.perf_counter()
    product()
    return time.perf_counter() - start


def _products(model: bytes, kind: type[np.generic], threads: int) -> list[Product]:
    rows: NDArray[np.generic] = np.random.default_rng(0).integers(0, 16, (SIDE, SIDE)).astype(kind)
    ready = [_onnxruntime_product(model, rows, threads)]
    if find_spec("openvino") is not None:
        ready.append(_openvino_product(model, rows, threads))
    return ready


def _onnxruntime_product(model: bytes, rows: NDArray[np.generic], threads: int) -> Product:
    onnxruntime = require("onnxruntime", extra="onnxruntime", purpose="the roofline")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"rows": rows})


def _openvino_product(model: bytes, rows: NDArray[np.generic], threads: int) -> Product:
    openvino = require("openvino", extra="openvino", purpose="the roofline")
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_NUM_THREADS": threads,
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(rows, shared_memory=True))
    product: Product = request.infer
    return product


def _float_product() -> bytes:
    weights = np.random.default_rng(1).standard_normal((SIDE, SIDE)).astype(np.float32)
    node = helper.make_node("MatMul", ["rows", "weights"], ["product"])
    return _model([node], TensorProto.FLOAT, [numpy_helper.from_array(weights, "weights")])


def _int8_product() -> bytes:
    """uint8 rows times int8 weights, as runtimes see a quantised network: the products are between Q and DQ."""
    weights = np.random.default_rng(1).integers(-127, 128, (SIDE, SIDE)).astype(np.int8)
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.float32(_SCALE), "scale"),
        numpy_helper.from_array(np.float32(_SCALE * SIDE), "large"),
        numpy_helper.from_array(np.uint8(0), "zero"),
        numpy_helper.from_array(np.uint8(128), "middle"),
        numpy_helper.from_array(np.int8(0), "signed_zero"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["rows", "scale", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["weights", "scale", "signed_zero"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "large", "middle"], ["product"]),
    ]
    return _model(nodes, TensorProto.UINT8, constants)


def _model(nodes: list[onnx.NodeProto], kind: int, constants: list[onnx.TensorProto]) -> bytes:
    shape = [SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "roofline",
        [helper.make_tensor_value_info("rows", kind, shape)],
        [helper.make_tensor_value_info("product", kind, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())
