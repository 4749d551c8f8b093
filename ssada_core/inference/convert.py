"""A network as ONNX, and that as an OpenVINO model."""

from __future__ import annotations

import copy
import inspect
import warnings
from pathlib import Path
from typing import Literal

import torch

from ssada_core.errors import EngineError, require
from ssada_core.inference.graph import INPUT_NAME, OUTPUT_NAMES, DeployedGraph
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.settings import NetworkSettings

OPSET = 17
GraphForm = Literal["plain", "tensorrt", "tensorrt-half"]
"""How the deployed graph is written: ``tensorrt`` has integers at its edges only, ``-half`` the network in float16."""


def export_onnx(network: SegmentationNetwork, settings: NetworkSettings, path: Path, form: GraphForm = "plain") -> None:
    """Write the deployed graph as ONNX: one frame ``[1,H,W,3]`` of the settings' size at a time.

    The tracing exporter, because it takes a second where the graph-capturing one takes four, with models that answer
    equally fast. The size is fixed so that all padding becomes constant.
    """
    frames = torch.zeros((1, settings.input_height, settings.input_width, 3), dtype=torch.uint8)
    if form == "tensorrt-half":  # a strongly typed network computes in the types that its graph names
        network = copy.deepcopy(network).half()
    frames = frames.to(next(network.parameters()).device)
    graph = DeployedGraph(network, bytes_at_edges=form != "plain").to(frames.device)
    # torch before 2.5 has only the tracing exporter and not this argument.
    choice = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself old, and fixed sizes are what we want
        torch.onnx.export(
            graph,
            (frames,),
            str(path),
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
            opset_version=OPSET,
            **choice,  # type: ignore[arg-type]
        )


def onnx_to_openvino(source: Path, path: Path) -> None:
    """Convert to OpenVINO's ``.xml`` and ``.bin``, weights in fp32.

    Raises:
        MissingExtraError: if openvino is not installed.
        EngineError: if openvino cannot read the model.
    """
    openvino = require("openvino", extra="openvino", purpose="exporting for openvino")
    try:
        # Not convert_model, which does the same and reports to a telemetry server.
        model = openvino.Core().read_model(str(source))
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise EngineError(f"openvino cannot read {source.name} ({reason}): choose another backend") from error
    openvino.save_model(model, str(path), compress_to_fp16=False)
