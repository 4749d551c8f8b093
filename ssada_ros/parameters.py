"""ROS parameters declared from the settings classes, so that every default lives in exactly one place.

A nested settings class becomes dotted names (``engine.backend``). Values given on the command line or in
a params file are checked by the settings class first, so a wrong one is a :class:`ConfigError` that names
the key and the bound, before anything is declared. ROS itself ignores a misspelt key in silence;
:func:`check_overrides` makes it an error that names the nearest right one.

Three things that ROS does with YAML and that are mended here: an empty list loses its type (``NOT_SET``),
a whole number for a floating-point parameter is refused, and a bare ``y``, ``n``, ``on`` or ``off`` is a
boolean even inside a list of strings (so :func:`write_parameters_file` quotes every string).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic.fields import FieldInfo
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from ssada_core.errors import ConfigError, SsadaError
from ssada_core.settings import Settings, nearest, parse_settings
from ssada_ros.parameter_types import LIST_TYPES, describe, fields, parameter_type

S = TypeVar("S", bound=Settings)


def declare_settings(
    node: Node, kind: type[S], prefix: str = "", *, dynamic: frozenset[str] | set[str] = frozenset()
) -> S:
    """Declare every field of ``kind`` as a parameter of ``node`` and return the validated settings.

    Args:
        node: where to declare; its parameter overrides (command line, params file) are what is validated.
        kind: the settings class; nested classes become dotted names.
        prefix: put before every name with a dot, such as ``"engine"``.
        dynamic: dotted names, without the prefix, that may change while the node runs (see
            :func:`follow_settings`); all others are declared read-only.

    Raises:
        ConfigError: one line naming the parameter, its value and what would be right.
    """
    overrides = {
        name: value
        for name, field in fields(kind)
        if (value := _override(node, _join(prefix, name), field)) is not _ABSENT
    }
    settings = parse_settings(kind, _nest(overrides), source=_source(node, prefix))
    for name, field in fields(kind):
        value = _to_ros(_value_at(settings, name))
        parameter = Parameter(_join(prefix, name), parameter_type(field), value)
        _declare(node, parameter, describe(field, read_only=name not in dynamic))
    return settings


def follow_settings(
    node: Node, current: S, apply: Callable[[S], None], *, prefix: str = "", dynamic: frozenset[str] | set[str]
) -> None:
    """Let the parameters named in ``dynamic`` change while the node runs.

    Args:
        node: the node that declared ``current``.
        current: the settings in force, as :func:`declare_settings` returned them.
        apply: called with the new settings, validated as a whole, in the thread that spins the node. An
            :class:`SsadaError` it raises refuses the change, with its message as the reason.
        prefix: as given to :func:`declare_settings`.
        dynamic: as given to :func:`declare_settings`.
    """
    names = {_join(prefix, name): name for name in dynamic}
    in_force = current

    def on_set(parameters: list[Parameter]) -> SetParametersResult:
        nonlocal in_force
        changes = {names[given.name]: _plain_value(given) for given in parameters if given.name in names}
        if not changes:
            return SetParametersResult(successful=True)
        try:
            candidate = replace(in_force, changes, source=_source(node, prefix))
            apply(candidate)
        except SsadaError as error:
            return SetParametersResult(successful=False, reason=str(error))
        in_force = candidate
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_set)


def replace(settings: S, changes: Mapping[str, Any], *, source: str) -> S:
    """Return ``settings`` with the values at the dotted names in ``changes`` replaced, validated as a whole.

    Raises:
        ConfigError: if a value does not fit.
    """
    values = {name: _value_at(settings, name) for name, _ in fields(type(settings))}
    return parse_settings(type(settings), _nest({**values, **changes}), source=source)


def check_overrides(node: Node) -> None:
    """Refuse parameters that were given to the node and that it never declared.

    Call it when everything is declared. Keys under ``/**`` in a params file and ``-p key:=value`` reach
    every node of the process and are checked as well, because that is how launch files hand over theirs.

    Raises:
        ConfigError: naming the unknown key and the nearest right one.
    """
    # The only place where rclpy keeps what was given and not declared; the name has not changed since Foxy.
    given: Mapping[str, Parameter] = node._parameter_overrides
    # QoS overrides are declared by the topics they belong to, which may be created later.
    unknown = [name for name in given if not node.has_parameter(name) and not name.startswith("qos_overrides.")]
    if unknown:
        declared = sorted(node.get_parameters_by_prefix(""))
        more = f"; {len(unknown) - 1} more" if len(unknown) > 1 else ""
        name = unknown[0]
        raise ConfigError(f"{_source(node, '')}: unknown parameter '{name}'{nearest(name, declared)}{more}")


def write_parameters_file(path: Path, nodes: Mapping[str, Settings | Mapping[str, Any]]) -> None:
    """Write a ROS params file that any ROS 2 release reads as it is meant.

    Args:
        path: the file; its folder must exist.
        nodes: node name to settings, or to a (nested or dotted) mapping of parameters. A name without a leading
            slash matches the node in every namespace.

    Raises:
        ConfigError: if a value is no ROS parameter.
    """
    content = {_node_key(name): {"ros__parameters": _plain(name, values)} for name, values in nodes.items()}
    path.write_text(yaml.dump(content, Dumper=_QuotingDumper, sort_keys=False, allow_unicode=True), encoding="utf-8")


class _Absent:
    """The type of the mark for "no override was given"."""


_ABSENT = _Absent()


_PLACEHOLDERS: dict[Parameter.Type, list[object]] = {
    Parameter.Type.STRING_ARRAY: [""],
    Parameter.Type.DOUBLE_ARRAY: [0.0],
    Parameter.Type.INTEGER_ARRAY: [0],
    Parameter.Type.BOOL_ARRAY: [False],
}


class _QuotingDumper(yaml.SafeDumper):
    """Writes every string value in quotes: YAML 1.1 reads bare y, n, on and off as booleans."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 (PyYAML's signature)
        """Write a list that two nodes share twice: rcl reads no aliases."""
        return True


def _quoted(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"')


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    # PyYAML writes 1e-05 as "1.0e-05" and 1e300 as "1.0e+300"; rcl reads both, and "1" would be an integer.
    text = repr(value) if math.isfinite(value) else {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    mantissa, mark, exponent = text.partition("e")
    return dumper.represent_scalar(
        "tag:yaml.org,2002:float", text if not mark or "." in mantissa else f"{mantissa}.0e{exponent}"
    )


_QuotingDumper.add_representer(str, _quoted)
_QuotingDumper.add_representer(float, _float)


def _declare(node: Node, parameter: Parameter, descriptor: ParameterDescriptor) -> None:
    # The value is the validated override, so ROS must not apply the raw override again.
    if parameter.value != []:
        node.declare_parameter(parameter.name, parameter.value, descriptor, ignore_override=True)
        return
    # rclpy takes the type from the value, and takes an empty list for bytes; so the value comes after the type.
    node.declare_parameter(parameter.name, _PLACEHOLDERS[parameter.type_], ignore_override=True)
    node.set_parameters([parameter])
    descriptor.type = parameter.type_.value
    node.set_descriptor(parameter.name, descriptor)


def _override(node: Node, name: str, field: FieldInfo) -> Any:  # noqa: ANN401 (a ROS parameter's value)
    """Return the value given for a parameter, with what ROS's YAML did to it undone, or ``_ABSENT``."""
    given: Parameter | None = node._parameter_overrides.get(name)
    if given is None:
        return _ABSENT
    kind = parameter_type(field)
    if given.type_ is Parameter.Type.NOT_SET and kind in LIST_TYPES.values():
        return []
    if given.type_ is Parameter.Type.INTEGER_ARRAY and kind is Parameter.Type.DOUBLE_ARRAY:
        return [float(value) for value in given.value]
    return _plain_value(given)


def _plain_value(given: Parameter) -> Any:  # noqa: ANN401 (a ROS parameter's value)
    # Arrays of numbers arrive as array.array, which pydantic does not take for a list.
    return list(given.value) if given.type_ in LIST_TYPES.values() else given.value


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *parents, leaf = name.split(".")
        current = nested
        for parent in parents:
            current = current.setdefault(parent, {})
        current[leaf] = value
    return nested


def _value_at(settings: Settings, name: str) -> Any:  # noqa: ANN401 (a field's value)
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _to_ros(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _plain(node: str, values: Settings | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(values, Settings):
        values = {name: _value_at(values, name) for name, _ in fields(type(values))}
    flat = {name: _to_ros(value) for name, value in _flatten(values)}
    for name, value in flat.items():
        if value is None:
            raise ConfigError(f"parameter '{name}' of {node} is None: ROS parameters have no null, leave the key out")
    return _nest(flat)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, _join(prefix, name))
        else:
            yield _join(prefix, name), value


def _node_key(name: str) -> str:
    return name if name.startswith("/") else f"/**/{name}"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _source(node: Node, prefix: str) -> str:
    where = f" under '{prefix}'" if prefix else ""
    return f"parameters of {node.get_fully_qualified_name()}{where}"
