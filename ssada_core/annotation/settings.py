"""Settings of the annotation page's server."""

from __future__ import annotations

from pydantic import Field

from ssada_core.errors import ConfigError
from ssada_core.settings import Settings

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
LEAST_TOKEN = 16
TOKEN_VARIABLE = "SSADA_ANNOTATE_TOKEN"  # noqa: S105 (its name, no secret)


class AnnotateSettings(Settings):
    """The page on which humans answer queries."""

    enabled: bool = Field(False, description="Serve the annotation page beside the node, in a process of its own.")
    host: str = Field("127.0.0.1", description="Address to listen on; any but this machine's own demands a token.")
    port: int = Field(8642, ge=0, le=65535, description="Port of the page; 0 takes a free one.")
    token: str = Field(
        "",
        description=f"Secret that visitors must give, at least {LEAST_TOKEN} characters; empty: {TOKEN_VARIABLE} of "
        "the environment, which fewer can read than a parameter, or none.",
    )
    max_upload_mb: float = Field(32.0, gt=0, le=1024, description="Largest label or draft that is taken, in megabytes.")
    lease_s: float = Field(
        45.0, ge=2, le=3600, description="Seconds after which a query that its editor left is free for others."
    )

    def check(self) -> None:
        """Refuse an open door.

        Raises:
            ConfigError: if the address is not this machine's own and there is no token, or the token is short.
        """
        if not self.token and self.host not in LOOPBACK:
            raise ConfigError(
                f"annotate host {self.host} can be reached from elsewhere and there is no token: "
                f"give one of at least {LEAST_TOKEN} characters, or listen on 127.0.0.1"
            )
        if self.token and len(self.token) < LEAST_TOKEN:
            raise ConfigError(
                f"the annotate token has {len(self.token)} characters: give at least {LEAST_TOKEN}, "
                "as `openssl rand -hex 16` makes"
            )
