"""How frames are put through a network for an evaluation: whole, in windows, at several scales (METHOD §9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ssada_core.settings import Settings

MULTI_SCALES = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
"""The scales of the authors' multi-scale figures."""


class ProtocolSettings(Settings):
    """An evaluation protocol; what differs from the defaults runs in torch, at the frames' own size."""

    mode: Literal["whole", "sliding"] = Field("whole", description="Whole frames, or overlapping windows.")
    window_height: int = Field(1024, ge=32, le=8192, description="Height of a window, pixels.")
    window_width: int = Field(1024, ge=32, le=8192, description="Width of a window, pixels.")
    stride: float = Field(2 / 3, gt=0, le=1, description="Step from window to window, as a share of its size.")
    scales: list[float] = Field([1.0], min_length=1, max_length=32, description="Scales of the frame, averaged.")
    flip: bool = Field(False, description="Average with the mirrored frame at every scale.")

    @field_validator("scales")
    @classmethod
    def _in_range(cls, values: list[float]) -> list[float]:
        if any(not 0.1 <= value <= 4.0 for value in values):
            raise ValueError(f"scales {values} are not all between 0.1 and 4")
        return values

    @model_validator(mode="after")
    def _check(self) -> ProtocolSettings:
        if min(self.window_height, self.window_width) * self.stride < 1:
            raise ValueError(f"stride {self.stride} of a window is less than a pixel: raise it")
        return self


def _ss_ada(layout: str) -> ProtocolSettings:
    """SS-ADA: windows of the crop size, 800, on Cityscapes; whole frames elsewhere."""
    if layout == "cityscapes":
        return ProtocolSettings(mode="sliding", window_height=800, window_width=800, stride=2 / 3)
    return ProtocolSettings()


def _crosscity(layout: str, *, multi: bool) -> ProtocolSettings:
    """TUFL: windows of 1024 on Cityscapes, of 647 on the cross-city data, stride 5/6."""
    window = 1024 if layout == "cityscapes" else 647
    return ProtocolSettings(
        mode="sliding",
        window_height=window,
        window_width=window,
        stride=5 / 6,
        scales=MULTI_SCALES if multi else [1.0],
        flip=multi,
    )


PRESETS: Mapping[str, Callable[[str], ProtocolSettings]] = {
    "ss-ada": _ss_ada,
    "crosscity-ss": lambda layout: _crosscity(layout, multi=False),
    "crosscity-ms": lambda layout: _crosscity(layout, multi=True),
}
"""The authors' own protocols, by the layout of the data (the word before the first colon of its reference)."""
