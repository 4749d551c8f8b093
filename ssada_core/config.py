"""Configuration files: YAML in, the rooms' own typed settings out, errors that name the key and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ssada_core.errors import ConfigError
from ssada_core.settings import Settings, merge, parse_settings

S = TypeVar("S", bound=Settings)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: if the file is missing, no YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration {path}: {error.strerror}: give the path of a YAML file") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no UTF-8, dates that are none
        raise ConfigError(f"configuration {path} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"configuration {path}: expected a mapping of keys, got {type(values).__name__}")
    return values


def load_settings(kind: type[S], path: Path, overrides: Iterable[str] = ()) -> S:
    """Read settings from YAML, then apply ``key.sub=value`` overrides.

    Raises:
        ConfigError: one line that names the key, the value and what would be right.
    """
    return parse_settings(kind, merge(load_yaml(path), parse_overrides(overrides)), source=str(path))


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """``["training.iterations=5"]`` → ``{"training": {"iterations": 5}}``; values are read as YAML.

    Raises:
        ConfigError: if an override has no ``=``, or its value is no YAML.
    """
    result: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"override '{override}' is not of the form key=value, such as training.iterations=100")
        try:
            value: Any = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"override '{override}' is not YAML: {' '.join(str(error).split())}") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        result = merge(result, value)
    return result
