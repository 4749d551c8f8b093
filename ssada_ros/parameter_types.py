"""What a field of a settings class is as a ROS parameter: its name, type, range and choices."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.parameter import Parameter

from ssada_core.errors import ConfigError
from ssada_core.settings import Settings

LIST_TYPES: dict[Any, Parameter.Type] = {
    str: Parameter.Type.STRING_ARRAY,
    float: Parameter.Type.DOUBLE_ARRAY,
    int: Parameter.Type.INTEGER_ARRAY,
    bool: Parameter.Type.BOOL_ARRAY,
}
_SCALAR_TYPES: dict[Any, Parameter.Type] = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    Path: Parameter.Type.STRING,
}
_INTEGER_LIMIT = 2**63 - 1


def fields(kind: type[Settings]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted name and the field of every leaf of a settings class, in the order of definition."""
    for name, field in kind.model_fields.items():
        nested = _settings_class(field)
        if nested is None:
            yield name, field
        else:
            yield from ((f"{name}.{inner}", leaf) for inner, leaf in fields(nested))


def parameter_type(field: FieldInfo) -> Parameter.Type:
    """Return the ROS type of a field.

    Raises:
        ConfigError: if ROS has no such type.
    """
    annotation = field.annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        annotation = type(arguments[0])
    if origin in (list, tuple) and arguments and arguments[0] in LIST_TYPES:
        return LIST_TYPES[arguments[0]]
    if annotation not in _SCALAR_TYPES:
        raise ConfigError(f"a field of type {annotation} cannot be a ROS parameter: use a scalar or a list of scalars")
    return _SCALAR_TYPES[annotation]


def describe(field: FieldInfo, *, read_only: bool) -> ParameterDescriptor:
    """Build the descriptor of a field: its description, its range, its choices."""
    descriptor = ParameterDescriptor(description=field.description or "", read_only=read_only)
    if get_origin(field.annotation) is Literal:
        descriptor.additional_constraints = f"one of: {', '.join(map(str, get_args(field.annotation)))}"
        return descriptor
    low, high = _bounds(field)
    if low is None and high is None:
        return descriptor
    if field.annotation is int:
        descriptor.integer_range = [_integer_range(low, high)]
    elif field.annotation is float:
        descriptor.floating_point_range = [_floating_point_range(low, high)]
    return descriptor


def _settings_class(field: FieldInfo) -> type[Settings] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def _bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    """Inclusive bounds of a number field, None where there is none. ROS ranges include their ends."""
    low, high = _bound(field, Ge, "ge"), _bound(field, Le, "le")
    above, below = _bound(field, Gt, "gt"), _bound(field, Lt, "lt")
    integer = field.annotation is int
    if above is not None:
        low = above + 1 if integer else math.nextafter(above, math.inf)
    if below is not None:
        high = below - 1 if integer else math.nextafter(below, -math.inf)
    return low, high


def _bound(field: FieldInfo, kind: type, attribute: str) -> float | None:
    return next((getattr(item, attribute) for item in field.metadata if isinstance(item, kind)), None)


def _integer_range(low: float | None, high: float | None) -> IntegerRange:
    return IntegerRange(
        from_value=-_INTEGER_LIMIT - 1 if low is None else int(low),
        to_value=_INTEGER_LIMIT if high is None else int(high),
        step=0,
    )


def _floating_point_range(low: float | None, high: float | None) -> FloatingPointRange:
    return FloatingPointRange(
        from_value=-sys.float_info.max if low is None else float(low),
        to_value=sys.float_info.max if high is None else float(high),
        step=0.0,
    )
