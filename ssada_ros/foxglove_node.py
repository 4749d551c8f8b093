"""``foxglove_node``: the topics for Foxglove viewers, by the Foxglove SDK (lifecycle node; extra ``foxglove``)."""

from __future__ import annotations

import queue
from contextlib import ExitStack
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState

from ssada_core.errors import SsadaError, require
from ssada_ros.foxglove_settings import FoxgloveSettings
from ssada_ros.foxglove_topics import FoxgloveTopics
from ssada_ros.lifecycle import ManagedNode, run_node
from ssada_ros.parameters import declare_settings

GRAPH_PERIOD_S = 1.0
"""How often new topics are looked for."""


class FoxgloveNode(ManagedNode):
    """Lifecycle shell: the server listens while configured, topics are offered while active."""

    def __init__(self) -> None:
        super().__init__("foxglove_node")
        self.settings = declare_settings(self, FoxgloveSettings)
        self.autostart = self.settings.autostart
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # topics are also looked for while simulated time stands
        self._undo_configure, self._undo_activate = ExitStack(), ExitStack()
        self._topics: FoxgloveTopics | None = None
        self.url = ""
        """Where viewers connect to; empty while the server does not listen."""

    def configure(self, _state: LifecycleState) -> None:
        """Listen."""
        foxglove = require("foxglove", extra="foxglove", purpose="the Foxglove server")
        self._board = foxglove.Context()
        self._listener = _Listener(self)
        with ExitStack() as undo:
            undo.callback(self.destroy_guard_condition, self._listener.alarm)
            server = self._listen(foxglove)
            undo.callback(server.stop)
            self.url = f"ws://{self.settings.host}:{server.port}"
            undo.callback(setattr, self, "url", "")
            self._undo_configure = undo.pop_all()
        self.get_logger().info(f"Foxglove viewers: open {self.url}")

    def activate(self, _state: LifecycleState) -> None:
        """Offer topics."""
        topics = FoxgloveTopics(self, self._board, self.settings.topics, self.get_logger().info)
        with ExitStack() as undo:
            undo.callback(topics.close)
            topics.refresh()
            timer = self.create_timer(GRAPH_PERIOD_S, topics.refresh, clock=self._steady)
            undo.callback(self.destroy_timer, timer)
            self._topics = topics
            undo.callback(setattr, self, "_topics", None)
            self._undo_activate = undo.pop_all()

    def deactivate(self, _state: LifecycleState) -> None:
        """Withdraw the topics; viewers stay connected."""
        self._undo_activate.close()

    def cleanup(self, _state: LifecycleState) -> None:
        """Disconnect the viewers and listen no more."""
        self._undo_configure.close()

    def on_views(self) -> None:
        """Carry out what the server's threads have heard from viewers."""
        while not self._listener.heard.empty():
            channel, client, looks = self._listener.heard.get()
            if self._topics is not None:
                self._topics.view(channel, client, looks=looks)

    def _listen(self, foxglove: Any) -> Any:  # noqa: ANN401 (the SDK is optional)
        settings = self.settings
        try:
            return foxglove.start_server(
                name="ssada_ros",
                host=settings.host,
                port=settings.port,
                server_listener=self._listener,
                context=self._board,
                message_backlog_size=settings.backlog,
            )
        except (RuntimeError, OSError, ValueError) as error:
            where = f"{settings.host}:{settings.port}"
            # No wrong parameter, as far as anybody can tell: a port that is taken may be free at the next start.
            raise SsadaError(f"cannot listen on {where} ({error}): set the parameters host and port") from error


class _Listener:
    """Called in the server's threads; hands over to the thread that spins the node."""

    def __init__(self, node: FoxgloveNode) -> None:
        self.heard: queue.SimpleQueue[tuple[int, int, bool]] = queue.SimpleQueue()
        self.alarm = node.create_guard_condition(node.on_views)

    def on_subscribe(self, client: Any, channel: Any) -> None:  # noqa: ANN401 (the SDK is optional)
        self._hand_over(channel.id, client.id, looks=True)

    def on_unsubscribe(self, client: Any, channel: Any) -> None:  # noqa: ANN401
        self._hand_over(channel.id, client.id, looks=False)

    def _hand_over(self, channel: int, client: int, *, looks: bool) -> None:
        self.heard.put((channel, client, looks))
        self.alarm.trigger()


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    return run_node(FoxgloveNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
