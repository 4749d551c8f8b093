"""Parameters of the Foxglove node."""

from __future__ import annotations

from pydantic import Field

from ssada_core.settings import Settings


class FoxgloveSettings(Settings):
    """Where and what a Foxglove viewer may see. It can only look: nothing that it sends is taken."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 lets every machine of the network look (no password)."
    )
    port: int = Field(8765, ge=0, le=65535, description="Port of the websocket; 0 takes a free one and logs it.")
    topics: list[str] = Field(
        default_factory=lambda: ["*"], description="Topics that are offered: names with *, ? and [], as in a shell."
    )
    backlog: int = Field(
        16, ge=1, le=1024, description="Messages kept for a viewer that is too slow; older ones are dropped."
    )
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")
