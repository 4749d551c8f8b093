"""A model version's manifest: everything needed to build, judge and trace it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ssada_core.errors import ConfigError, ModelError
from ssada_core.labels import LabelSpace
from ssada_core.networks.settings import NetworkSettings

WEIGHTS_FILE = "weights.safetensors"
MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.json.sig"
DECISION_FILE = "decision.json"
"""What the gate said; written after the model was sealed, and again with every verdict."""
UNSEALED = frozenset({MANIFEST_FILE, SIGNATURE_FILE, DECISION_FILE})
"""Files of a model directory that its manifest does not vouch for."""


class ModelManifest(BaseModel):
    """``manifest.json`` of a model directory (schema: ``docs/schemas/manifest.schema.json``).

    A model directory holds ``weights.safetensors``, this file and, once deployed,
    ``deploy/<backend>-<precision>/…``; ``files`` has the SHA-256 of every file but the manifest, its signature
    and the gate's decision.
    """

    model_config = ConfigDict(extra="forbid")

    version: str
    created: str = Field(description="ISO 8601, UTC.")
    network: NetworkSettings
    label_space: dict[str, Any]
    parent: str | None = None
    data: dict[str, Any] = Field(default_factory=dict, description="What it was trained on.")
    training: dict[str, Any] = Field(default_factory=dict, description="Command, settings, seconds.")
    metrics: dict[str, Any] = Field(default_factory=dict)
    decision: dict[str, Any] | None = Field(None, description="The gate's decision, in figures and words.")
    files: dict[str, str] = Field(default_factory=dict, description="Relative path → SHA-256.")

    def labels(self) -> LabelSpace:
        """The label space as an object.

        Raises:
            ModelError: if it is malformed, or of another release.
        """
        try:
            return LabelSpace.from_dict(self.label_space, source=f"manifest of {self.version}")
        except ConfigError as error:  # it is stored, no parameter of the process that reads it
            raise ModelError(str(error)) from error
