"""An engine that follows an evaluation protocol, in torch, on probabilities at the frame's own size (METHOD §9)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssada_core.data.samples import Array
from ssada_core.errors import EngineError
from ssada_core.evaluation.protocol import ProtocolSettings
from ssada_core.inference.engine import Prediction
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD

Forward = Callable[[Tensor], Tensor]
"""Normalised RGB ``[1,3,H,W]`` → logits ``[1,C,H,W]``."""


class ProtocolEngine:
    """Implements :class:`ssada_core.inference.engine.Engine`; slow and exact, for figures to compare with papers."""

    def __init__(self, network: SegmentationNetwork, protocol: ProtocolSettings) -> None:
        """Take over a network: to the GPU if there is one, and into evaluation mode."""
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network.to(memory_format=torch.channels_last)
        self._network: SegmentationNetwork | None = network.to(self._device).eval()
        self._protocol = protocol
        self._lock = threading.Lock()

    @property
    def backend(self) -> str:
        """Always torch."""
        return "torch"

    @property
    def precision(self) -> str:
        """Always fp32."""
        return "fp32"

    @property
    def input_size(self) -> tuple[int, int]:
        """The window's height and width; 0 and 0 where frames go through whole, at their own size."""
        sliding = self._protocol.mode == "sliding"
        return (self._protocol.window_height, self._protocol.window_width) if sliding else (0, 0)

    def infer(self, frames: Sequence[Array], *, features: bool = False) -> list[Prediction]:
        """Segment frames, each uint8 H×W×3 BGR of any size.

        Raises:
            EngineError: if a frame has another shape or type, features are asked for, torch fails, or it is closed.
        """
        if features:
            raise EngineError("an evaluation protocol has no feature vector: load the model as an engine for those")
        with self._lock:
            if self._network is None:
                raise EngineError("the evaluation's engine is closed: load the model again")
            return [self._predict(self._network, frame) for frame in frames]

    def close(self) -> None:
        """Free the network; further calls do nothing."""
        with self._lock:
            self._network = None

    def _predict(self, network: SegmentationNetwork, frame: Array) -> Prediction:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise EngineError(f"a frame has shape {frame.shape} {frame.dtype}: give uint8 HxWx3 BGR")
        try:
            with torch.inference_mode():
                image = normalised(frame).to(self._device)
                scores = frame_scores(network, image, self._protocol)
                return _prediction(scores / scores.sum(dim=1, keepdim=True))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise EngineError(f"torch cannot run the network on {self._device}: {reason}") from error


def normalised(frame: Array) -> Tensor:
    """uint8 H×W×3 BGR → ImageNet-normalised RGB float32 ``[1,3,H,W]``."""
    rgb = torch.from_numpy(np.ascontiguousarray(frame[:, :, ::-1])).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (rgb.float() / 255.0 - mean) / std


def frame_scores(forward: Forward, image: Tensor, protocol: ProtocolSettings) -> Tensor:
    """Class scores at the frame's own size: the average over scales, and over mirrored frames where asked for.

    Args:
        forward: the network in evaluation mode.
        image: normalised ``[1,3,H,W]``.
        protocol: mode, windows, scales, flip.

    Returns:
        float32 ``[1,C,H,W]``: probabilities for whole frames; for windows, sums of as many probabilities as windows
        cover the pixel (METHOD §9: summed, not averaged), so they are weights, whose largest is the label.
    """
    size = image.shape[2], image.shape[3]
    total: Tensor | None = None
    views = list(product(protocol.scales, (False, True) if protocol.flip else (False,)))
    for scale, mirrored in views:
        scores = _scaled_scores(forward, image, scale, mirrored, protocol)
        scores = _resized(scores, size)
        total = scores if total is None else total + scores
    if total is None:  # the settings hold at least one scale
        raise EngineError("an evaluation protocol without scales: give at least one")
    return total / len(views)


def _scaled_scores(forward: Forward, image: Tensor, scale: float, mirrored: bool, protocol: ProtocolSettings) -> Tensor:
    size = tuple(max(1, round(extent * scale)) for extent in image.shape[2:])
    view = _resized(image, (size[0], size[1]))
    view = view.flip(3) if mirrored else view
    scores = sliding_scores(forward, view, protocol) if protocol.mode == "sliding" else forward(view).softmax(dim=1)
    return scores.flip(3) if mirrored else scores


def sliding_scores(forward: Forward, image: Tensor, protocol: ProtocolSettings) -> Tensor:
    """Sum of the probabilities of every window that covers a pixel, ``[1,C,H,W]``.

    Windows step by ``stride`` of their size, rounded up; the last one ends with the image. An image that is smaller
    than a window is one smaller window.
    """
    height, width = image.shape[2:]
    total: Tensor | None = None
    for rows, columns in windows((height, width), protocol):
        part = forward(image[:, :, rows, columns]).softmax(dim=1)
        if total is None:
            total = part.new_zeros((1, part.shape[1], height, width))
        total[:, :, rows, columns] += part
    if total is None:
        raise EngineError(f"an image of {width}x{height} has no window")
    return total


def windows(size: tuple[int, int], protocol: ProtocolSettings) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each window over an image of (height, width)."""
    extents = (protocol.window_height, protocol.window_width)
    rows, columns = (_spans(length, window, protocol.stride) for length, window in zip(size, extents, strict=True))
    yield from product(rows, columns)


def _spans(length: int, window: int, stride: float) -> list[slice]:
    if length <= window:
        return [slice(0, length)]
    # 1e-9: 5/6 of 1026 is 855 and not, by rounding of the share, 856.
    step = math.ceil(window * stride - 1e-9)
    starts = [*range(0, length - window, step), length - window]
    return [slice(start, start + window) for start in starts]


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    if (values.shape[2], values.shape[3]) == size:
        return values
    return functional.interpolate(values, size=size, mode="bilinear", align_corners=False)


def _prediction(probabilities: Tensor) -> Prediction:
    confidence, label = probabilities[0].max(dim=0)
    entropy = torch.special.entr(probabilities).sum(dim=1).mean() / math.log(max(probabilities.shape[1], 2))
    return Prediction(
        label=_bytes(label), confidence=_bytes(confidence * 255.0 + 0.5), uncertainty=float(entropy), features=None
    )


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    return np.asarray(values.to(torch.uint8).cpu().numpy(), np.uint8)
