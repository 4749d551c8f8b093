"""The Engine protocol: what every inference backend offers, and nothing more (ARCHITECTURE contract 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssada_core.settings import Settings


@dataclass(frozen=True)
class Prediction:
    """What the network says of one frame.

    Attributes:
        label: uint8 H×W class ids.
        confidence: uint8 H×W, 255 × the largest class probability.
        uncertainty: mean over the frame of the entropy divided by log C, in [0, 1] (METHOD §5).
        features: float32 [D], pooled from the context path; None unless asked for.
        engine_s: seconds that the compiled graph took for it, without resizing the frame and the answer.
    """

    label: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    uncertainty: float
    features: NDArray[np.float32] | None = None
    engine_s: float = 0.0


class Engine(Protocol):
    """A loaded model. One thread infers at a time; ``close`` may come from any thread, and repeatedly."""

    @property
    def backend(self) -> str:
        """Such as ``openvino``."""
        ...

    @property
    def precision(self) -> str:
        """``fp32``, ``fp16``, ``bf16`` or ``int8``: what runs, also where ``auto`` was asked for."""
        ...

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width the network runs at."""
        ...

    def infer(self, frames: Sequence[NDArray[np.uint8]], *, features: bool = False) -> Sequence[Prediction]:
        """Segment frames, each uint8 H×W×3 BGR of any size.

        Raises:
            EngineError: if a frame has another shape or type, or the engine is closed.
            BackendError: if the backend fails.
        """
        ...

    def close(self) -> None:
        """Wait for a running ``infer`` and free the model."""
        ...


class EngineSettings(Settings):
    """How a model is run."""

    backend: Literal["auto", "torch", "onnxruntime", "openvino", "tensorrt"] = Field(
        "auto", description="Inference backend; auto takes the fastest that is installed and says which."
    )
    precision: Literal["fp32", "fp16", "bf16", "int8", "auto"] = Field(
        "fp32",
        description="Arithmetic of the network; auto takes int8 where the model has it, else fp32, and says why.",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto",
        description="Where it is computed; gpu is Intel's for openvino, else NVIDIA's. auto: a GPU for torch only.",
    )
    onnx_provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="ONNX Runtime's execution provider; auto is cuda on device gpu, else cpu."
    )
    batch: int = Field(
        0,
        ge=0,
        le=16,
        description="Frames torch computes at once; 0 is 4 on a GPU, and 1 on a CPU, where more are slower.",
    )
    threads: int = Field(0, ge=0, le=256, description="CPU threads for inference; 0 leaves it to the backend.")
    output_size: Literal["network", "frame"] = Field(
        "frame", description="Size of mask and confidence: the network's or the frame's own."
    )
