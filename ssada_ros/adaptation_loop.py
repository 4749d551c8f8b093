"""The work of the adaptation's thread: frames into the pool, labels to their queries, one step after another."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage

from ssada_core.adaptation.adapter import Adapter
from ssada_core.annotation.submit import SubmitResult
from ssada_core.data.samples import Array
from ssada_core.errors import BackendError, SsadaError
from ssada_ros.backend_watch import BackendWatch
from ssada_ros.cameras import Camera, decode
from ssada_ros.conversions import stamp_to_ns
from ssada_ros.mailbox import Delivery, FrameMailbox

WAIT_S = 0.2
"""How long the thread sleeps at most when there is nothing to do."""
TROUBLE_S = 10.0
"""How long an error stays in the diagnostics after it happened last."""
MAX_SAID = 100
"""Different errors that are logged; some quote figures that differ every time."""
_JPEG_MAGIC = b"\xff\xd8"


@dataclass(frozen=True)
class Answer:
    """A label on its way from the topic to the pool; uint8 H×W."""

    query_id: str
    label: Array


class AdaptationLoop:
    """Runs until :meth:`stop`. What goes wrong with a frame, a label or a step is said once; the loop goes on."""

    def __init__(
        self,
        adapter: Adapter,
        cameras: Mapping[str, Camera],
        *,
        max_bytes: int,
        on_refused: Callable[[SubmitResult], None],
        log_warning: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            adapter: does the work; its listener hears of everything else.
            cameras: by name.
            max_bytes: larger messages and pictures are refused.
            on_refused: hears of labels that could not even be judged.
            log_warning: gets one line for each new error.
        """
        self._adapter = adapter
        self._cameras = cameras
        self._max_bytes = max_bytes
        self._on_refused = on_refused
        self._log_warning = log_warning
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._flags: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._said: set[str] = set()
        self._trouble = ("", float("-inf"))
        self._backend = BackendWatch()
        self.mailbox = FrameMailbox(list(cameras))
        """Where the cameras' frames are left."""

    def put_answer(self, answer: Answer) -> None:
        """Leave a label; from any thread."""
        self._answers.put(answer)

    def put_flag(self) -> None:
        """The driver pressed the button; from any thread."""
        self._flags.put(None)

    def stop(self) -> None:
        """Have :meth:`run` return after what is at hand."""
        self._stopping.set()
        self.mailbox.close()

    def trouble(self) -> str:
        """The newest error of the last :data:`TROUBLE_S`; empty if there was none."""
        words, when = self._trouble
        return words if time.monotonic() - when < TROUBLE_S else ""

    def run(self) -> None:
        """Work; in a thread of its own.

        Raises:
            BackendError: if the backend is gone; frames that were not scored are scored by a new process.
        """
        busy = False
        while not self._stopping.is_set():
            delivery = self.mailbox.take(0.0 if busy else WAIT_S)
            busy = False
            if delivery is not None:
                with self._survived():
                    self._offer(delivery)
            while not self._answers.empty():
                self._submit(self._answers.get())
            while not self._flags.empty():
                self._flags.get()
                with self._survived():
                    self._adapter.flag()
            with self._survived():
                busy = self._adapter.tick(time.monotonic())
                if busy:
                    self._backend.worked()

    def _offer(self, delivery: Delivery) -> None:
        message, frame = decode(delivery.message, compressed=delivery.compressed, max_bytes=self._max_bytes)
        region = self._cameras[delivery.camera].region  # what the masks are made of is what is learned from
        own_bytes = region.is_whole and isinstance(message, CompressedImage)
        is_jpeg = own_bytes and bytes(message.data[:2]) == _JPEG_MAGIC
        self._adapter.offer(
            region.crop(frame),
            jpeg=bytes(message.data) if is_jpeg else None,
            camera=delivery.camera,
            stamp_ns=stamp_to_ns(message.header.stamp),
        )

    def _submit(self, answer: Answer) -> None:
        try:
            self._adapter.submit(answer.query_id, answer.label, "ros")
        except SsadaError as error:
            # Its sender must not take it for stored.
            self._on_refused(SubmitResult(answer.query_id, "refused", str(error)))
            self._note(str(error))

    @contextmanager
    def _survived(self) -> Iterator[None]:
        try:
            yield
        except SsadaError as error:
            self._note(str(error))
            if isinstance(error, BackendError) and self._backend.failed(time.monotonic()):
                raise

    def _note(self, words: str) -> None:
        self._trouble = (words, time.monotonic())
        if words not in self._said and len(self._said) < MAX_SAID:
            self._said.add(words)
            self._log_warning(words)
