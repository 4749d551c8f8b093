"""``oracle_node``: answers queries from ground truth that travels beside the camera (simulated drives, labelled bags).

A stand-in for the human in demos and tests, over the same topics that a human's tool would use.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack

from pydantic import Field
from rclpy.lifecycle import LifecycleState
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ssada_core.annotation.submit import SubmitResult
from ssada_core.data.encodings import decode_label, encode_png
from ssada_core.errors import EncodingError
from ssada_core.settings import Settings
from ssada_ros.answering import AnsweringNode
from ssada_ros.conversions import label_from_image, stamp_to_ns
from ssada_ros.lifecycle import run_node
from ssada_ros.parameters import declare_settings
from ssada_ros.qos import reliable_profile


class OracleSettings(Settings):
    """Parameters of the oracle."""

    label_topic: str = Field("camera/label", description="Ground truth: mono8 with the camera frame's header.")
    answers: int = Field(0, ge=0, le=100000, description="Queries answered at most; 0 answers all.")
    memory: int = Field(20000, ge=1, le=1000000, description="Ground-truth labels kept (compressed) for late queries.")
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")


class OracleNode(AnsweringNode):
    """Remembers labels by stamp; a query is answered with the label of the same stamp."""

    def __init__(self) -> None:
        super().__init__("oracle_node")
        self.settings = declare_settings(self, OracleSettings)
        self.autostart = self.settings.autostart
        self._labels: OrderedDict[int, bytes] = OrderedDict()
        self._answered: set[str] = set()
        self._pending: dict[str, Header] = {}

    def subscribe(self, undo: ExitStack) -> None:
        """Listen to the ground truth."""
        labels = self.create_subscription(Image, self.settings.label_topic, self._on_label, reliable_profile(depth=16))
        undo.callback(self.destroy_subscription, labels)

    def cleanup(self, state: LifecycleState) -> None:
        """Forget everything."""
        super().cleanup(state)
        self._labels.clear()
        self._answered.clear()
        self._pending.clear()

    def on_query(self, query: Image) -> None:
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

    def give_answers(self) -> None:
        """Answer again what was not acknowledged."""
        for query_id, header in list(self._pending.items()):
            if self.answers.are_due(query_id):
                self._answer(header)

    def on_result(self, result: SubmitResult) -> None:
        """Leave an answer at that."""
        self._pending.pop(result.query_id, None)

    def _on_label(self, message: Image) -> None:
        try:
            label = label_from_image(message)
        except EncodingError as error:
            self.get_logger().warning(f"{self.settings.label_topic}: {error}", once=True)
            return
        self._labels[stamp_to_ns(message.header.stamp)] = encode_png(label)
        if len(self._labels) > self.settings.memory:
            self._labels.popitem(last=False)

    def _answer(self, header: Header) -> None:
        png = self._labels.get(stamp_to_ns(header.stamp))
        if png is not None:
            self.answers.give(decode_label(png), header)


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    return run_node(OracleNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
