"""A recording as samples: any frame by its index."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from rosbags.interfaces import Connection

from ssada_core.data.bag_messages import (
    bag_errors,
    image_connection,
    label_connection,
    messages,
    open_reader,
    read_frame,
    read_label,
    stamp_of,
)
from ssada_core.data.samples import Array, check_sizes, mapped_space
from ssada_core.errors import BagError
from ssada_core.labels import LabelSpace

T = TypeVar("T")


class BagSamples:
    """The frames of a recording. Names are stamps in nanoseconds; labels are those with the same stamp.

    The recording is read through once for its stamps; frames are then read where they lie. Thread-safe.
    """

    def __init__(
        self, path: Path, label_space: LabelSpace, *, topic: str | None = None, label_topic: str | None = None
    ) -> None:
        """Open the recording and index it; topics are found as in :func:`~ssada_core.data.bags.read_bag`.

        Raises:
            BagError: if it is missing, damaged, has no frames or not the topic.
        """
        self.path = path
        self.label_space = label_space
        self._lock = threading.Lock()
        with ExitStack() as stack:
            self._reader = stack.enter_context(open_reader(path))
            self._images = image_connection(self._reader, path, topic)
            self._labels = label_connection(self._reader, path, label_topic)
            self._frames = self._index(self._images)
            self._label_at = dict(self._index(self._labels)) if self._labels else {}
            self._stack = stack.pop_all()
        if not self._frames:
            self.close()
            raise BagError(f"bag {path} has no frames on {self._images.topic}")

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, index: int) -> str:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return str(self._frames[index][0])

    def image(self, index: int) -> Array:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self._fetch(self._images, *self._frames[index], lambda message: read_frame(message).decoded())

    def jpeg(self, index: int) -> bytes | None:
        """See :class:`~ssada_core.data.samples.EncodedSamples`."""
        return self._fetch(self._images, *self._frames[index], lambda message: read_frame(message).jpeg)

    def label(self, index: int) -> Array | None:
        """See :class:`~ssada_core.data.samples.Samples`."""
        stamp = self._frames[index][0]
        if self._labels is None or stamp not in self._label_at:
            return None
        label = self._fetch(self._labels, stamp, self._label_at[stamp], read_label)
        check_sizes(self.name(index), self.image(index), label)
        return mapped_space(self.label_space).decode(label, source=f"{self.path} at {stamp}")

    def close(self) -> None:
        """Close the recording; frames cannot be read afterwards."""
        self._stack.close()

    def _index(self, connection: Connection) -> list[tuple[int, int]]:
        """Stamps and record times of a topic's messages."""
        return [(stamp_of(message), time) for time, message in messages(self._reader, self.path, connection)]

    def _fetch(self, connection: Connection, stamp: int, time: int, read: Callable[[Any], T]) -> T:
        with self._lock:
            for _, message in messages(self._reader, self.path, connection, start=time, stop=time + 1):
                if stamp_of(message) == stamp:
                    with bag_errors(self.path, "read"):
                        return read(message)
        raise BagError(f"bag {self.path} changed while it was read: frame {stamp} is gone")
