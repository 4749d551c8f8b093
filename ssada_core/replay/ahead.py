"""Read ahead in a thread, so that decoding goes on while a model is at work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

FRAMES_AHEAD = 4
_WAIT_S = 0.1


@contextmanager
def ahead(items: Iterator[T], count: int = FRAMES_AHEAD) -> Iterator[Iterator[T]]:
    """The same items in the same order, at most ``count`` of them read before they are asked for.

    What the iterator raises is raised where its item would have come. On leaving, reading ends.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=count)
    stopping = threading.Event()

    def put(entry: tuple[T | None, BaseException | None]) -> None:
        while not stopping.is_set():
            try:
                ready.put(entry, timeout=_WAIT_S)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            for item in items:
                put((item, None))
                if stopping.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that asks)
            put((None, error))
        else:
            put((None, StopIteration()))

    def taken() -> Iterator[T]:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None  # noqa: S101 (for the type checker: without an error there is an item)
            yield item

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopping.set()
        thread.join()
