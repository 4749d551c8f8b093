"""A thread of a node that does not end in silence."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.node import Node


class NodeThread:
    """Runs ``work`` beside the executor. An exception that ends it is raised again where the node spins.

    A node that spins on while its working thread is gone looks alive and does nothing. So the process ends with the
    traceback and exit status 1, and whoever looks after processes can start it again.

    Attributes:
        failure: what ended the thread; None while it runs and after a regular end.
    """

    failure: Exception | None = None

    def __init__(
        self, node: Node, name: str, work: Callable[[], None], on_failure: Callable[[Exception], None]
    ) -> None:
        """Start ``work``.

        Args:
            node: whose executor learns of a failure; also decides by its context whether the process is ending.
            name: of the thread.
            work: returns when it is told to by other means.
            on_failure: called in the thread that spins the node, before the exception is raised there.
        """
        self._node = node
        self._work = work
        self._on_failure = on_failure
        self._alarm = node.create_guard_condition(self._raise)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of ``work``, which must have been asked for."""
        self._thread.join()
        self._node.destroy_guard_condition(self._alarm)

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 (a thread has no caller: kept here, raised where the node spins)
            # On a signal the context ends while the thread is still at work, and its publishers with it.
            if self._node.context.ok():
                self.failure = error
                self._alarm.trigger()

    def _raise(self) -> None:
        if self.failure is not None:
            self._on_failure(self.failure)
            raise self.failure
