"""Model references on command lines and in parameters: a directory, a registry, or a shipped model's name."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field

from ssada_core.errors import ConfigError, ModelError, StoreError
from ssada_core.resources import resource
from ssada_core.settings import Settings, nearest, parse_settings
from ssada_core.store import model_files
from ssada_core.store.files import sha256_file, store_error
from ssada_core.store.manifest import MANIFEST_FILE, WEIGHTS_FILE
from ssada_core.store.registry import CURRENT_FILE, ModelRegistry

SHIPPED_FILE = "models/manifest.yaml"


class ShippedModel(Settings):
    """An entry of ``models/manifest.yaml``."""

    path: str = Field(..., description="Model directory, relative to the folder of the list.")
    sha256: str = Field(..., pattern="^[0-9a-f]{64}$", description="SHA-256 of its weights.")
    command: str = Field("", description="The command that made it.")
    metrics: dict[str, float] = Field(default_factory=dict, description="What it reached, by data set and measure.")
    license: str = Field("", description="Terms of use.")
    note: str = Field("", description="What else its user should know.")


def shipped_models() -> dict[str, ShippedModel]:
    """The models that come with the package, by name; none where the list is not installed.

    Raises:
        ConfigError: if the list is malformed.
    """
    try:
        path = resource(SHIPPED_FILE)
    except ConfigError:
        return {}
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {name: parse_settings(ShippedModel, entry, source=f"{path}: {name}") for name, entry in values.items()}


def resolve_model(reference: str) -> Path:
    """The model directory that a reference means.

    Args:
        reference: a model directory; a registry's folder (its current version) or ``FOLDER@v0003``; or the
            name of a shipped model.

    Raises:
        ModelError: if there is no such thing, listing what there is.
    """
    if is_pinned(reference):
        folder, _, version = reference.rpartition("@")
        return ModelRegistry(folder).path(version)
    path = Path(reference)
    if (path / MANIFEST_FILE).is_file():
        return path
    if path.is_dir() and _is_registry(path):
        registry = ModelRegistry(path)
        return registry.path(registry.current_or_fail())
    return _shipped(reference)


def open_registry(path: Path) -> ModelRegistry:
    """A registry that is there; nothing is made.

    Raises:
        StoreError: if the folder holds none, or cannot be read.
    """
    try:
        found = path.is_dir() and _is_registry(path)
    except OSError as error:
        raise store_error("read", path, error) from error
    if not found:
        raise StoreError(f"{path} is no registry: it has no model version, see `ssada models add`")
    return ModelRegistry(path)


def is_pinned(reference: str) -> bool:
    """Whether a reference names one version of a registry (``FOLDER@v0003``), whatever the current one is."""
    folder, separator, _ = reference.rpartition("@")
    return bool(separator) and Path(folder).is_dir()


def _is_registry(path: Path) -> bool:
    return (path / CURRENT_FILE).is_file() or any(model_files.is_version(child) for child in path.iterdir())


def _shipped(name: str) -> Path:
    models = shipped_models()
    if name not in models:
        raise ModelError(
            f"no model '{name}': give a model directory, a registry (DIR or DIR@v0001), or a shipped model"
            f"{nearest(name, sorted(models)) or ' (none is installed)'}"
        )
    folder = resource(SHIPPED_FILE).parent / models[name].path
    model_files.read_manifest(folder)
    if sha256_file(folder / WEIGHTS_FILE) != models[name].sha256:
        raise ModelError(f"{folder / WEIGHTS_FILE} differs from the shipped '{name}': reinstall the package")
    return folder
