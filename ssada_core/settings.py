"""The base of every room's typed settings, and errors that name the nearest right key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ssada_core.errors import ConfigError

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Immutable, typed, strict about its keys. Field descriptions become help texts and ROS descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def parse_settings(kind: type[S], values: Mapping[str, Any], *, source: str) -> S:
    """Validate ``values`` as ``kind``.

    Args:
        kind: the settings class.
        values: nested mapping, as read from YAML.
        source: where the values came from (a path, "parameters of /node"), for the message.

    Raises:
        ConfigError: one line that names the key, the value and what would be right.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_explain(kind, error, source)) from error


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` applied, mappings merged key by key."""
    result = dict(base)
    for key, value in changes.items():
        current = result.get(key)
        nested = isinstance(current, Mapping) and isinstance(value, Mapping)
        result[key] = merge(current, value) if nested else value  # type: ignore[arg-type]
    return result


def nearest(word: str, candidates: list[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest candidate, or the list of what there is."""
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (there are: {', '.join(sorted(candidates))})" if candidates else ""


def _explain(kind: type[Settings], error: ValidationError, source: str) -> str:
    first = error.errors()[0]
    path = [part for part in first["loc"] if isinstance(part, str)]
    key = ".".join(str(part) for part in first["loc"])
    more = f"; {error.error_count() - 1} more" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{source}: unknown key '{key}'{nearest(path[-1], _keys_at(kind, path[:-1]))}{more}"
    return f"{source}: '{key}' is {first['input']!r}: {first['msg'].lower()}{more}"


def _keys_at(kind: type[Settings], path: list[str]) -> list[str]:
    current: Any = kind
    for part in path:
        field = current.model_fields.get(part)
        current = field.annotation if field is not None else None
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
    return list(current.model_fields)
