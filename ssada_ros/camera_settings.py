"""Parameters of the camera node."""

from __future__ import annotations

from pydantic import Field

from ssada_core.settings import Settings


class CameraSettings(Settings):
    """What is shown to the vehicle, and how fast."""

    source: str = Field(
        "sim", description="sim[:DOMAIN], images:DIR, video:FILE, bag:PATH or device:N (a camera of this machine)."
    )
    rate: float = Field(5.0, gt=0.0, le=240.0, description="Frames per second; may change while running.")
    loop: bool = Field(True, description="Start again at the end of the source; stamps always go on.")
    limit: int = Field(0, ge=0, description="Frames to publish before the node ends; 0 for no limit.")
    domain: str = Field(
        "",
        description="Domain of the simulated drive (day, night, rain), may change while running; empty: the source's.",
    )
    seed: int = Field(0, ge=0, description="Seed of the simulated drive.")
    width: int = Field(640, ge=16, le=8192, description="Width of simulated frames in pixels.")
    height: int = Field(384, ge=16, le=8192, description="Height of simulated frames in pixels.")
    label_space: str = Field("camvid", description="Label space in which labelled sources are read.")
    topic: str = Field("", description="Image topic to play of a bag; empty: the only one in it.")
    compressed: bool = Field(
        False, description="Publish camera/image/compressed (JPEG, the source's own bytes where it has them)."
    )
    jpeg_quality: int = Field(95, ge=1, le=100, description="JPEG quality where the source has no JPEG of its own.")
    frame_id: str = Field("camera", description="frame_id of frames whose source names none.")
    publish_labels: bool = Field(True, description="Publish camera/label where the source has labels.")
    start_delay_s: float = Field(0.0, ge=0.0, le=3600.0, description="Seconds to wait before the first frame.")
    wait_for_subscribers: int = Field(
        0, ge=0, le=100, description="Subscribers of the image to wait for before the first frame."
    )
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")
