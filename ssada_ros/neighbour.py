"""The adaptation's eye on its own robot's masks: their latency from ``/diagnostics``, and whether training waits."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.node import Node

from ssada_core.adaptation.sharing import PauseRule, Seen, SharingSettings, tell, too_hot
from ssada_core.errors import StoreError
from ssada_ros import diagnostics
from ssada_ros.qos import reliable_profile
from ssada_ros.statistics import LATENCY_KEY

NEWS_S = 5.0
"""Older figures are no news."""
PERIOD_S = 1.0


class Neighbour:
    """Decides once a second, and tells the worker by a file in the folder of the rounds."""

    def __init__(self, node: Node, settings: SharingSettings, rounds: Path, clock: Clock, undo: ExitStack) -> None:
        """Begin to listen; ``undo`` ends it and lets training go on."""
        self._node = node
        self._rounds = rounds
        self._rule = PauseRule(settings)
        self._heard: dict[str, tuple[float, float]] = {}
        listen = node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, reliable_profile())
        undo.callback(self._tell, "")
        undo.callback(node.destroy_subscription, listen)
        undo.callback(node.destroy_timer, node.create_timer(PERIOD_S, self._look, clock=clock))

    @property
    def reason(self) -> str:
        """Why training waits; empty while it may go on."""
        return self._rule.reason

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        own = self._node.get_namespace().strip("/")
        for status in message.status:
            if diagnostics.namespace_of(status.name) != own:  # another robot's
                continue
            for pair in status.values:
                value = _figure(pair.value) if pair.key == LATENCY_KEY else None
                if value is not None:
                    self._heard[status.name] = (value, time.monotonic())

    def _look(self) -> None:
        now = time.monotonic()
        self._heard = {name: news for name, news in self._heard.items() if now - news[1] < NEWS_S}
        p99 = max((value for value, _ in self._heard.values()), default=0.0)
        before = self._rule.reason
        reason = self._rule.update(Seen(p99, too_hot()), now)
        if bool(reason) != bool(before):
            self._node.get_logger().info(f"training waits: {reason}" if reason else "training may go on")
        if reason or before:
            self._tell(reason)

    def _tell(self, reason: str) -> None:
        try:
            tell(self._rounds, reason)
        except StoreError as error:
            self._node.get_logger().warning(f"training cannot be told to wait: {error}")


def _figure(text: str) -> float | None:
    """What the text says, None where it is no figure: anybody may publish diagnostics."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
