"""``oracle_node``: answers queries from ground truth that travels beside the camera (simulated drives, labelled bags).

A stand-in for the human in demos and tests, over the same topics that a human's tool would use.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack

from pydantic import Field
from rclpy.lifecycle import LifecycleState
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from ssada_core.data.encodings import decode_label, encode_png
from ssada_core.errors import EncodingError
from ssada_core.settings import Settings
from ssada_ros.conversions import fill_image, json_of, label_from_image, stamp_to_ns
from ssada_ros.lifecycle import ManagedNode, run_node
from ssada_ros.parameters import declare_settings
from ssada_ros.qos import query_profile, reliable_profile

AGAIN_S = 10.0
"""Seconds after which an answer that nobody acknowledged is given again."""


class OracleSettings(Settings):
    """Parameters of the oracle."""

    label_topic: str = Field("camera/label", description="Ground truth: mono8 with the camera frame's header.")
    answers: int = Field(0, ge=0, le=100000, description="Queries answered at most; 0 answers all.")
    memory: int = Field(20000, ge=1, le=1000000, description="Ground-truth labels kept (compressed) for late queries.")
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")


class OracleNode(ManagedNode):
    """Remembers labels by stamp; a query is answered with the label of the same stamp."""

    def __init__(self) -> None:
        super().__init__("oracle_node")
        self.settings = declare_settings(self, OracleSettings)
        self.autostart = self.settings.autostart
        self._undo_configure, self._undo_activate = ExitStack(), ExitStack()
        self._labels: OrderedDict[int, bytes] = OrderedDict()
        self._answered: set[str] = set()
        self._pending: dict[str, Header] = {}

    def configure(self, _state: LifecycleState) -> None:
        """Create the topic of the answers."""
        self._annotation = self.create_publisher(Image, "ssada/annotation", reliable_profile(depth=100))
        self._undo_configure.callback(self.destroy_publisher, self._annotation)

    def activate(self, _state: LifecycleState) -> None:
        """Listen to labels and queries."""
        with ExitStack() as undo:
            for kind, topic, callback, profile in (
                (Image, self.settings.label_topic, self._on_label, reliable_profile(depth=16)),
                (Image, "ssada/query", self._on_query, query_profile(depth=100)),
                (String, "ssada/annotation_result", self._on_result, reliable_profile(depth=16)),
            ):
                undo.callback(self.destroy_subscription, self.create_subscription(kind, topic, callback, profile))
            # An answer is lost where the reader is not yet discovered, or is killed with the answer in its hands.
            undo.callback(self.destroy_timer, self.create_timer(AGAIN_S, self._answer_again))
            self._undo_activate = undo.pop_all()

    def deactivate(self, _state: LifecycleState) -> None:
        """Hear nothing; what is known stays known."""
        self._undo_activate.close()

    def cleanup(self, _state: LifecycleState) -> None:
        """Forget everything."""
        self._undo_configure.close()
        self._labels.clear()
        self._answered.clear()
        self._pending.clear()

    def _on_label(self, message: Image) -> None:
        try:
            label = label_from_image(message)
        except EncodingError as error:
            self.get_logger().warning(f"{self.settings.label_topic}: {error}", once=True)
            return
        self._labels[stamp_to_ns(message.header.stamp)] = encode_png(label)
        if len(self._labels) > self.settings.memory:
            self._labels.popitem(last=False)

    def _on_query(self, query: Image) -> None:
        """Answer, until the answer is acknowledged."""
        query_id = query.header.frame_id
        if query_id not in self._answered and 0 < self.settings.answers <= len(self._answered):
            return
        if stamp_to_ns(query.header.stamp) not in self._labels:
            self.get_logger().warning(f"query {query_id}: no ground truth with its stamp was seen")
            return
        self._answered.add(query_id)
        self._pending[query_id] = query.header
        self._answer(query.header)

    def _answer(self, header: Header) -> None:
        png = self._labels.get(stamp_to_ns(header.stamp))
        if png is not None:
            self._annotation.publish(fill_image(Image(), decode_label(png), "mono8", header))

    def _answer_again(self) -> None:
        for header in list(self._pending.values()):
            self._answer(header)

    def _on_result(self, message: String) -> None:
        try:
            result = json_of(message)
        except EncodingError as error:
            self.get_logger().warning(f"ssada/annotation_result: {error}")
            return
        self._pending.pop(str(result.get("query_id")), None)
        self.get_logger().info(f"label {result.get('query_id')}: {result.get('status')} {result.get('why', '')}")


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    return run_node(OracleNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
