"""``annotator_node``: an example of an annotator over ROS, for a desk that may answer days later.

Queries become ``<query id>.jpg`` in a folder, each with a ``.json`` that keeps the header. A ``<query id>.png`` saved
beside goes back as ``ssada/annotation``, again and again until its result comes, also when node or desk were switched
off in between. An own tool replaces the folder by whatever shows the frame and returns class ids.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from pydantic import Field
from rclpy.lifecycle import LifecycleState
from sensor_msgs.msg import Image

from ssada_core.annotation.submit import SubmitResult
from ssada_core.data.encodings import decode_label, encode_jpeg
from ssada_core.errors import SsadaError
from ssada_core.settings import Settings
from ssada_core.store.files import make_directory, read_json, write_atomic, write_json
from ssada_ros.answering import AGAIN_S, AnsweringNode
from ssada_ros.conversions import image_to_bgr, make_header, stamp_to_ns
from ssada_ros.lifecycle import run_node
from ssada_ros.parameters import declare_settings

_QUERY_ID = re.compile(r"[\w-]{1,64}")
"""What may become a file's name."""


class AnnotatorSettings(Settings):
    """Parameters of the example annotator."""

    folder: str = Field("ssada/desk", description="Folder for the questions, and for the answers beside them.")
    period_s: float = Field(1.0, gt=0, le=3600, description="Seconds between two looks for new answers.")
    autostart: bool = Field(True, description="Configure and activate without waiting for a lifecycle manager.")


class AnnotatorNode(AnsweringNode):
    """Questions from the topic into the folder, answers from the folder to the topic."""

    def __init__(self) -> None:
        super().__init__("annotator_node")
        self.settings = declare_settings(self, AnnotatorSettings)
        self.autostart, self.period_s = self.settings.autostart, self.settings.period_s
        self._folder = Path(self.settings.folder)

    def configure(self, state: LifecycleState) -> None:
        """Create the folder and the topic of the answers; the folder stays."""
        make_directory(self._folder)
        super().configure(state)

    def on_query(self, query: Image) -> None:
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

    def give_answers(self) -> None:
        """Send every answer that is there and was not acknowledged; a file that is still being written waits."""
        for path in sorted(self._folder.glob("*.png")):
            if self.answers.are_due(path.stem):
                with contextlib.suppress(OSError):
                    self._give(path.stem, path.read_bytes())

    def _give(self, query_id: str, png: bytes) -> None:
        try:
            label = decode_label(png)
            stamp_ns = int(read_json(self._folder / f"{query_id}.json")["stamp_ns"])
        except (SsadaError, KeyError, TypeError, ValueError) as error:
            self.get_logger().warning(f"{query_id}.png: {error}", throttle_duration_sec=AGAIN_S)
            return
        self.answers.give(label, make_header(stamp_ns, query_id))

    def on_result(self, result: SubmitResult) -> None:
        """Move an answer away by what became of it; why it was held or refused stands beside it."""
        query_id = result.query_id
        if query_id not in self.answers.given:
            return
        folder = self._folder / result.status
        make_directory(folder)
        with contextlib.suppress(FileNotFoundError):  # it was taken back meanwhile
            (self._folder / f"{query_id}.png").replace(folder / f"{query_id}.png")
        if result.why:
            write_atomic(folder / f"{query_id}.txt", f"{result.why}\n".encode())


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    return run_node(AnnotatorNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
