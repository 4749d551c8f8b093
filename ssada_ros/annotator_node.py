"""``annotator_node``: an example of an annotator over ROS, for a desk that may answer days later.

Queries become ``<query id>.jpg`` in a folder, each with a ``.json`` that keeps the header. A ``<query id>.png`` saved
beside goes back as ``ssada/annotation``, again and again until its result comes, also when node or desk were switched
off in between. An own tool replaces the folder by whatever shows the frame and returns class ids.
"""

from __future__ import annotations

import contextlib
import re
import time
from contextlib import ExitStack
from pathlib import Path

from pydantic import Field
from rclpy.lifecycle import LifecycleState
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ssada_core.data.encodings import decode_label, encode_jpeg
from ssada_core.errors import EncodingError, SsadaError
from ssada_core.settings import Settings
from ssada_core.store.files import make_directory, read_json, write_atomic, write_json
from ssada_ros.conversions import fill_image, image_to_bgr, json_of, make_header, stamp_to_ns
from ssada_ros.lifecycle import ManagedNode, run_node
from ssada_ros.parameters import declare_settings
from ssada_ros.qos import query_profile, reliable_profile

AGAIN_S = 10.0
"""Seconds after which an answer that nobody acknowledged is given again."""
_QUERY_ID = re.compile(r"[\w-]{1,64}")
"""What may become a file's name."""


class AnnotatorSettings(Settings):
    """Parameters of the example annotator."""

    folder: str = Field("ssada/desk", description="Folder for the questions, and for the answers beside them.")
    period_s: float = Field(1.0, gt=0, le=3600, description="Seconds between two looks for new answers.")
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")


class AnnotatorNode(ManagedNode):
    """Questions from the topic into the folder, answers from the folder to the topic."""

    def __init__(self) -> None:
        super().__init__("annotator_node")
        self.settings = declare_settings(self, AnnotatorSettings)
        self.autostart = self.settings.autostart
        self._folder = Path(self.settings.folder)
        self._undo_configure, self._undo_activate = ExitStack(), ExitStack()
        self._given: dict[str, float] = {}

    def configure(self, _state: LifecycleState) -> None:
        """Create the folder and the topic of the answers."""
        make_directory(self._folder)
        self._annotation = self.create_publisher(Image, "ssada/annotation", reliable_profile(depth=100))
        self._undo_configure.callback(self.destroy_publisher, self._annotation)

    def activate(self, _state: LifecycleState) -> None:
        """Listen to queries and results, and look after the folder."""
        with ExitStack() as undo:
            for kind, topic, callback, profile in (
                (Image, "ssada/query", self._on_query, query_profile(depth=100)),
                (String, "ssada/annotation_result", self._on_result, reliable_profile(depth=100)),
            ):
                undo.callback(self.destroy_subscription, self.create_subscription(kind, topic, callback, profile))
            undo.callback(self.destroy_timer, self.create_timer(self.settings.period_s, self._give_answers))
            self._undo_activate = undo.pop_all()

    def deactivate(self, _state: LifecycleState) -> None:
        """Hear and say nothing."""
        self._undo_activate.close()

    def cleanup(self, _state: LifecycleState) -> None:
        """Give the topic back; the folder stays."""
        self._undo_configure.close()
        self._given.clear()

    def _on_query(self, query: Image) -> None:
        """Put the question down, unless it is there already."""
        query_id = query.header.frame_id
        if not _QUERY_ID.fullmatch(query_id) or (self._folder / f"{query_id}.json").exists():
            return
        try:
            write_atomic(self._folder / f"{query_id}.jpg", encode_jpeg(image_to_bgr(query)))
            # Last: what has its facts is complete.
            write_json(self._folder / f"{query_id}.json", {"stamp_ns": stamp_to_ns(query.header.stamp)})
        except SsadaError as error:
            self.get_logger().warning(f"query {query_id}: {error}")

    def _give_answers(self) -> None:
        """Send every answer that is there and was not acknowledged; a file that is still being written waits."""
        for path in sorted(self._folder.glob("*.png")):
            query_id, now = path.stem, time.monotonic()
            if now - self._given.get(query_id, float("-inf")) < AGAIN_S:
                continue
            with contextlib.suppress(OSError):
                self._give(query_id, path.read_bytes(), now)

    def _give(self, query_id: str, png: bytes, now: float) -> None:
        try:
            label = decode_label(png)
            stamp_ns = int(read_json(self._folder / f"{query_id}.json")["stamp_ns"])
        except (SsadaError, KeyError, TypeError, ValueError) as error:
            self.get_logger().warning(f"{query_id}.png: {error}", throttle_duration_sec=AGAIN_S)
            return
        self._given[query_id] = now
        self._annotation.publish(fill_image(Image(), label, "mono8", make_header(stamp_ns, query_id)))

    def _on_result(self, message: String) -> None:
        """Move an answer away by what became of it; why it was held or refused stands beside it."""
        try:
            result = json_of(message)
        except EncodingError as error:
            self.get_logger().warning(f"ssada/annotation_result: {error}")
            return
        query_id, status = str(result.get("query_id")), str(result.get("status"))
        if query_id not in self._given or status not in {"accepted", "held", "refused"}:
            return
        del self._given[query_id]
        folder = self._folder / status
        make_directory(folder)
        with contextlib.suppress(FileNotFoundError):  # it was taken back meanwhile
            (self._folder / f"{query_id}.png").replace(folder / f"{query_id}.png")
        if result.get("why"):
            write_atomic(folder / f"{query_id}.txt", f"{result['why']}\n".encode())
        self.get_logger().info(f"label {query_id}: {status} {result.get('why', '')}")


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    return run_node(AnnotatorNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
