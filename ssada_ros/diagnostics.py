"""``/diagnostics``: figures into ``DiagnosticArray``, with levels by stated rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR
STALE = DiagnosticStatus.STALE


def node_name(node: Node) -> str:
    """What the names of a node's statuses begin with, such as ``robot1/segmentation_node``."""
    return str(node.get_fully_qualified_name()).lstrip("/")


def namespace_of(name: str) -> str:
    """The namespace of the node that a status is of, by its name: ``robot1``; empty for none."""
    return name.partition(": ")[0].rpartition("/")[0]


def status(name: str, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticStatus:
    """One status; floats are rounded to two decimals."""
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id="ssada",
        values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
    )


def diagnostic_array(node: Node, statuses: Iterable[DiagnosticStatus]) -> DiagnosticArray:
    """The statuses, stamped by the node's clock."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = node.get_clock().now().to_msg()
    return message


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
