"""int8 for OpenVINO and, as ONNX with Q/DQ nodes, for others: NNCF's post-training quantisation, kept if accurate.

Measured on one core of a server CPU with VNNI and bfloat16 (CamVid at 640×384, EfficientNet-lite0): quantising the
whole graph turned the confidence into noise and changed 4-6 % of the labels; with the pixel statistics and the
backbone's depthwise blocks left out, 1 % changed, at nearly the same speed.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssada_core.errors import EngineError, require
from ssada_core.inference.base_engine import check_frame, fit
from ssada_core.inference.engine import Engine
from ssada_core.inference.onnx_engine import INPUT_NAME
from ssada_core.settings import Settings

Array = NDArray[np.uint8]

HELD_EVERY = 3
"""Every third frame is not calibrated on but judged on."""
MIN_FRAMES = 4
_PIXELS = (r"^/?[^/]+$",)
"""Operations of the graph outside the network (their names have no module path): normalising the input and the pixel
statistics, whose exponentials and sums need more than 8 bits."""
_BACKBONES: Mapping[str, tuple[str, ...]] = {
    # Depthwise blocks have channels of very different ranges; regular convolutions quantise well.
    "efficientnet_lite0": (r"^/context_path/backbone/.*",),
    "resnet18": (),
}


class QuantisationSettings(Settings):
    """When an int8 model is good enough, and what it is calibrated on."""

    min_equal: float = Field(
        0.97, ge=0.0, le=1.0, description="Least share of pixels with fp32's label on held frames."
    )
    max_miou_loss: float = Field(
        1.0, ge=0.0, le=100.0, description="With labels, this many points of mIoU lost are also acceptable."
    )
    frames: int = Field(24, ge=MIN_FRAMES, le=1000, description="Frames used at most; two thirds to calibrate.")


@dataclass(frozen=True)
class Verdict:
    """Whether the int8 model may be used.

    Attributes:
        accepted: it may.
        equal: share of pixels with fp32's label on the held frames.
        miou_loss: points of mIoU lost on them; None without labels.
        words: the same as a sentence.
    """

    accepted: bool
    equal: float
    miou_loss: float | None
    words: str


def split(count: int, settings: QuantisationSettings) -> tuple[list[int], list[int]]:
    """Indices of the frames to calibrate on and to judge on, both spread over all of them.

    Raises:
        EngineError: if there are too few.
    """
    if count < MIN_FRAMES:
        raise EngineError(f"int8 is calibrated on real frames: at least {MIN_FRAMES} are needed, {count} were given")
    chosen = np.linspace(0, count - 1, min(count, settings.frames)).round().astype(int).tolist()
    held = chosen[HELD_EVERY - 1 :: HELD_EVERY]
    return [index for index in chosen if index not in held], held


def quantise_openvino(source: Path, path: Path, frames: Sequence[Array], backbone: str) -> None:
    """Write an int8 OpenVINO model.

    Args:
        source: the deployed graph as ONNX.
        path: the ``.xml`` to write.
        frames: uint8 [1,H,W,3] BGR of the network's size, to calibrate on.
        backbone: decides which part is left out.

    Raises:
        MissingExtraError: if openvino or nncf is not installed.
        EngineError: if nncf fails.
    """
    openvino = require("openvino", extra="openvino", purpose="exporting for openvino")
    model = _quantised(openvino.Core().read_model(str(source)), frames, backbone, source)
    openvino.save_model(model, str(path), compress_to_fp16=False)


def quantise_onnx(source: Path, path: Path, frames: Sequence[Array], backbone: str) -> None:
    """Write an int8 ONNX model: its Q/DQ nodes are symmetric, weights int8 by channel, activations int8 or uint8.

    Arguments and errors as for :func:`quantise_openvino`.
    """
    import onnx

    batches = [{INPUT_NAME: frame} for frame in frames]
    onnx.save(_quantised(onnx.load(str(source)), batches, backbone, source), str(path))


def quantise_tensorrt(source: Path, path: Path, frames: Sequence[Array], backbone: str) -> None:
    """Write an int8 ONNX model whose Q/DQ nodes are all signed and symmetric: TensorRT takes no others.

    Arguments and errors as for :func:`quantise_openvino`.
    """
    import onnx

    batches = [{INPUT_NAME: frame} for frame in frames]
    model = _quantised(onnx.load(str(source)), batches, backbone, source)
    _make_signed(model)
    onnx.save(model, str(path))


def _make_signed(model: Any) -> None:  # noqa: ANN401 (onnx.ModelProto)
    """Let 0…255 steps become 0…127 of twice the size, in place: NNCF itself knows no such target.

    Raises:
        EngineError: if a zero point is not 0.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = {
        (node.input[1], node.input[2])
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    for scale, zero in pairs:
        point = numpy_helper.to_array(tensors[zero])
        if point.any():
            raise EngineError(f"the quantised model has a zero point of {point.max()} ({zero}): TensorRT needs 0")
        if point.dtype == np.uint8:
            steps = numpy_helper.to_array(tensors[scale]) * np.float32(255 / 127)
            tensors[scale].CopyFrom(numpy_helper.from_array(steps, scale))
            tensors[zero].CopyFrom(numpy_helper.from_array(point.astype(np.int8), zero))


def _quantised(model: Any, batches: Sequence[object], backbone: str, source: Path) -> Any:  # noqa: ANN401
    """What nncf makes of a model of OpenVINO's or ONNX's."""
    nncf = _nncf()
    ignored = nncf.IgnoredScope(patterns=[*_PIXELS, *_BACKBONES.get(backbone, ())], validate=False)
    # Bias correction doubles the time and changed nothing that could be measured.
    advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=True)
    try:
        with redirect_stdout(io.StringIO()):  # its progress bars; standard output is for figures
            return nncf.quantize(
                model,
                nncf.Dataset(batches),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(batches),
                ignored_scope=ignored,
                advanced_parameters=advanced,
            )
    except (RuntimeError, ValueError, nncf.ValidationError) as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise EngineError(f"nncf cannot quantise {source} ({reason}): run the model in fp32") from error


def judge(
    int8: Engine,
    fp32: Engine,
    frames: Sequence[Array],
    labels: Sequence[Array] | None,
    *,
    num_classes: int,
    settings: QuantisationSettings,
) -> Verdict:
    """Compare the answers on held frames; closes both engines.

    Args:
        int8: quantised engine that answers at the frames' own size.
        fp32: the same model unquantised, likewise.
        frames: uint8 H×W×3 BGR.
        labels: uint8 H×W ground truth of each, or None, which they are taken for where all of it is void.
        num_classes: ids from here on are not judged.
        settings: the margins.
    """
    with closing(int8), closing(fp32):
        ours = [prediction.label for prediction in int8.infer(frames)]
        theirs = [prediction.label for prediction in fp32.infer(frames)]
    equal = float(np.mean([np.mean(a == b) for a, b in zip(ours, theirs, strict=True)]))
    words = f"{100 * equal:.2f} % of the labels are fp32's on {len(frames)} held frames"
    loss = None
    if labels is not None and any((label < num_classes).any() for label in labels):
        loss = miou(theirs, labels, num_classes) - miou(ours, labels, num_classes)
        words += f", {loss:+.2f} points of mIoU lost"
    accepted = equal >= settings.min_equal or (loss is not None and loss <= settings.max_miou_loss)
    if not accepted:
        limit = f"{100 * settings.min_equal:.1f} %"
        words += f"; needed are {limit}" + (f" or at most {settings.max_miou_loss} points" if loss is not None else "")
    return Verdict(accepted, equal, loss, words)


def miou(found: Sequence[Array], labels: Sequence[Array], num_classes: int) -> float:
    """Mean IoU in percent over the classes in ``labels``, one confusion matrix over all frames.

    The evaluation room's metric, which lies above this room and cannot be imported here.
    """
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for answer, label in zip(found, labels, strict=True):
        valid = label < num_classes
        pairs = num_classes * label[valid].astype(np.int64) + answer[valid]
        matrix += np.bincount(pairs, minlength=num_classes**2).reshape(matrix.shape)
    right, present = np.diag(matrix), matrix.sum(axis=1) > 0
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - right
    return float(100 * np.mean(right[present] / union[present])) if present.any() else 0.0


def as_input(frame: Array, size: tuple[int, int]) -> Array:
    """A frame of any size as the graph's input, uint8 [1,H,W,3].

    Raises:
        EngineError: if it is no frame.
    """
    check_frame(frame)
    buffer = np.empty((1, *size, 3), np.uint8)
    fit(frame, buffer[0])
    return buffer


def _nncf() -> ModuleType:
    with _no_telemetry():
        nncf = require("nncf", extra="openvino", purpose="int8 quantisation")
    # Its own function would also silence the handlers that others attached to its logger.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Importing nncf without this would report to a server; the variable is the only switch it has."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
