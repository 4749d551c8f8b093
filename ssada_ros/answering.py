"""What everybody does who answers queries over ROS: oracle, example annotator, a replay over ROS.

An answer is lost where its reader is not yet discovered, or is killed with the answer in its hands. So it is given
again until its result comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from rclpy.lifecycle import LifecycleState
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from ssada_core.annotation.submit import SubmitResult
from ssada_core.data.samples import Array
from ssada_core.errors import EncodingError
from ssada_ros.conversions import fill_image, json_of
from ssada_ros.lifecycle import ManagedNode
from ssada_ros.qos import query_profile, reliable_profile

AGAIN_S = 10.0
"""Seconds after which an answer that nobody acknowledged is given again."""
DEPTH = 100


class Answers:
    """``ssada/query`` in, ``ssada/annotation`` out, ``ssada/annotation_result`` in.

    Attributes:
        given: answers without a result yet, and when they were given last (seconds, monotonic).
    """

    def __init__(
        self, node: Node, on_query: Callable[[Image], None], on_result: Callable[[SubmitResult], None]
    ) -> None:
        """Prepare; ``on_result`` hears of accepted, held and refused answers, whoever gave them."""
        self._node = node
        self._on_query = on_query
        self._heard = on_result
        self.given: dict[str, float] = {}

    def advertise(self, undo: ExitStack) -> None:
        """Create the topic of the answers; ``undo`` destroys it."""
        self.publisher = self._node.create_publisher(Image, "ssada/annotation", reliable_profile(depth=DEPTH))
        undo.callback(self._node.destroy_publisher, self.publisher)

    def listen(self, undo: ExitStack) -> None:
        """Subscribe to queries and results; ``undo`` destroys both."""
        for kind, topic, callback, profile in (
            (Image, "ssada/query", self._on_query, query_profile(depth=DEPTH)),
            (String, "ssada/annotation_result", self._on_result, reliable_profile(depth=DEPTH)),
        ):
            subscription = self._node.create_subscription(kind, topic, callback, profile)
            undo.callback(self._node.destroy_subscription, subscription)

    def are_due(self, query_id: str) -> bool:
        """Whether an answer is to be given: never yet, or so long ago that it may have been lost."""
        return time.monotonic() - self.given.get(query_id, float("-inf")) >= AGAIN_S

    def give(self, label: Array, header: Header) -> None:
        """Answer the query of a header (``frame_id`` is its id) with class ids, uint8 H×W."""
        self.given[header.frame_id] = time.monotonic()
        self.publisher.publish(fill_image(Image(), label, "mono8", header))

    def _on_result(self, message: String) -> None:
        try:
            content = json_of(message)
        except EncodingError as error:
            self._node.get_logger().warning(f"ssada/annotation_result: {error}")
            return
        query_id, why = str(content.get("query_id")), str(content.get("why") or "")
        for status in ("accepted", "held", "refused"):
            if content.get("status") == status:
                self._heard(SubmitResult(query_id, status, why))
                self.given.pop(query_id, None)


class AnsweringNode(ManagedNode):
    """A lifecycle node that answers; a subclass says how in :meth:`on_query` and :meth:`give_answers`."""

    period_s: float = 1.0
    """Seconds between two calls of :meth:`give_answers`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.answers = Answers(self, self.on_query, self._log_result)
        self._undo_configure, self._undo_activate = ExitStack(), ExitStack()

    def configure(self, _state: LifecycleState) -> None:
        """Create the topic of the answers."""
        self.answers.advertise(self._undo_configure)

    def activate(self, _state: LifecycleState) -> None:
        """Listen, and look again and again for answers to give."""
        with ExitStack() as undo:
            self.subscribe(undo)
            self.answers.listen(undo)
            undo.callback(self.destroy_timer, self.create_timer(min(self.period_s, AGAIN_S), self.give_answers))
            self._undo_activate = undo.pop_all()

    def deactivate(self, _state: LifecycleState) -> None:
        """Hear and say nothing; what is known stays known."""
        self._undo_activate.close()

    def cleanup(self, _state: LifecycleState) -> None:
        """Give the topic back."""
        self._undo_configure.close()
        self.answers.given.clear()

    def subscribe(self, undo: ExitStack) -> None:
        """Subscribe to whatever the answers are made of; ``undo`` gives it back."""

    def on_query(self, query: Image) -> None:
        """Take a question: the frame as bgr8, the query's id as the header's ``frame_id``."""
        raise NotImplementedError

    def give_answers(self) -> None:
        """Give every answer that there is and that :meth:`Answers.are_due` lets through."""
        raise NotImplementedError

    def on_result(self, result: SubmitResult) -> None:
        """Hear what became of an answer."""

    def _log_result(self, result: SubmitResult) -> None:
        self.on_result(result)
        self.get_logger().info(f"label {result.query_id}: {result.status} {result.why}")
