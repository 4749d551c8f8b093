"""Parameters of the adaptation node."""

from __future__ import annotations

from pydantic import Field

from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.adaptation.sharing import SharingSettings
from ssada_ros.input_settings import CameraInputSettings


class AdaptationNodeSettings(CameraInputSettings, AdaptationSettings):
    """The adaptation's own settings and where its frames come from; ``config/ssada.yaml`` shows all defaults."""

    sharing: SharingSettings = Field(default_factory=SharingSettings)
    start_paused: bool = Field(False, description="Store, ask and train nothing until the pause service says so.")
    nice: int = Field(10, ge=0, le=19, description="Niceness of the process: it has no deadline, the masks have.")
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")
