"""The adaptation node of a replay over ROS, seen from outside: its queries are answered, its rounds and swaps noted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.annotation.submit import SubmitResult
from ssada_core.data.samples import Array
from ssada_core.errors import SsadaError, StoreError
from ssada_core.replay.driver import RosLog, RosRequest
from ssada_core.store.pool import DATABASE_FILE
from ssada_core.store.pool_queries import by_query
from ssada_core.store.pool_schema import Database
from ssada_ros.adaptation_settings import AdaptationNodeSettings
from ssada_ros.answering import Answers
from ssada_ros.conversions import json_of
from ssada_ros.qos import latched_profile

ADAPTATION = "adaptation_node"
QUIET_S = 5.0
"""Seconds without an event after which nothing more is expected; the node reports once a second."""
AT_WORK = {"training", "suspended", "judging"}


class AdaptationWitness:
    """Callbacks only note; :meth:`work`, from the thread that drives, does what takes time."""

    def __init__(self, node: Node, request: RosRequest, seen: RosLog, now_s: Callable[[], float]) -> None:
        """Subscribe; ``now_s`` gives the seconds of the drive."""
        assert request.adaptation is not None  # noqa: S101 (asked by who makes one)
        self._node = node
        self._request = request
        self._pool = Path(request.adaptation.pool_dir)
        self._seen = seen
        self._now_s = now_s
        self._asked: deque[Header] = deque()
        self._pending: dict[str, tuple[Array, Header]] = {}
        self._status: dict[str, Any] = {}
        self._judged: str | None = None
        self._started_s: float | None = None
        self._event = time.monotonic()
        self._answers = Answers(node, self._on_query, self._on_result)
        with ExitStack() as undo:
            self._answers.advertise(undo)
            self._answers.listen(undo)
            undo.pop_all()  # all of it goes with the node
        node.create_subscription(String, f"{ADAPTATION}/status", self._on_status, latched_profile())
        node.create_subscription(String, "ssada/promoted", self._on_promoted, latched_profile())

    def is_connected(self) -> bool:
        """Whether the node hears answers, and is heard."""
        return bool(self._answers.publisher.get_subscription_count() and self._status)

    def is_busy(self) -> bool:
        """Whether something is under way, or something may still come of what was."""
        if self._status.get("phase") in AT_WORK or self._asked or self._pending:
            return True
        return time.monotonic() - self._event < QUIET_S

    def work(self) -> None:
        """Answer queries.

        Raises:
            SsadaError: if a training round failed.
        """
        if self._status.get("failure"):
            raise SsadaError(f"the training round failed: {self._status['failure']}")
        while self._asked:
            header = self._asked.popleft()
            label = self._label(header.frame_id)
            if label is not None:
                self._pending[header.frame_id] = (label, header)
        for query_id, (label, header) in list(self._pending.items()):
            if self._answers.are_due(query_id):
                self._answers.give(label, header)

    def _label(self, query_id: str) -> Array | None:
        """The pool says which camera's frame it is; a query's header does not."""
        if self._request.answer is None:
            return None
        with closing(Database(self._pool / DATABASE_FILE)) as database:
            try:
                record = by_query(database, query_id)
            except StoreError:
                return None
        return self._request.answer(record)

    # -- callbacks -----------------------------------------------------------------------------------

    def _on_query(self, query: Image) -> None:
        if query.header.frame_id not in self._seen.queries:
            self._seen.queries[query.header.frame_id] = self._now_s()
            self._asked.append(query.header)
            self._event = time.monotonic()

    def _on_result(self, result: SubmitResult) -> None:
        self._pending.pop(result.query_id, None)
        self._seen.results[result.query_id] = result
        self._event = time.monotonic()

    def _on_promoted(self, message: String) -> None:
        content = json_of(message)
        version, reason = str(content["version"]), str(content["reason"])
        known = self._seen.promotions[-1][0] if self._seen.promotions else self._request.version
        if version != known:  # what is in use at the start is announced, too
            self._seen.promotions.append((version, self._now_s(), reason))
            self._event = time.monotonic()

    def _on_status(self, message: String) -> None:
        status, now_s = json_of(message), self._now_s()
        if status["phase"] in AT_WORK and self._started_s is None:
            self._started_s = now_s
        decision, rounds = status["decision"], self._seen.rounds
        if decision and decision.get("version") != self._judged:
            rounds.append((now_s if self._started_s is None else self._started_s, now_s, decision))
            self._judged, self._started_s = decision.get("version"), None
            self._event = time.monotonic()
        elif decision and rounds:  # more may be said of it later
            rounds[-1] = (*rounds[-1][:2], decision)
        self._status = status


def node_settings(settings: AdaptationSettings, cameras: Mapping[str, Any]) -> AdaptationNodeSettings:
    """Parameters of the node: the adaptation's own, and where its frames come from."""
    return AdaptationNodeSettings.model_validate({**settings.model_dump(), **cameras})
