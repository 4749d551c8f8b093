"""What tests of the annotation page share: a real pool with predictions, a real server, a person at a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ssada_core.annotation.serve import JOB_VARIABLE
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.labels import CAMVID
from ssada_core.store.pool import Choice, FramePool, PoolSettings

REPOSITORY = Path(__file__).resolve().parent.parent
SIZE = (144, 240)
SETTINGS = PoolSettings(keep_free_share=0.0, rate=1000.0, duplicate_threshold=0.0, standstill_threshold=0.0)


def predicted(label: np.ndarray) -> np.ndarray:
    """What a middling model would say: coarse, and without the small things."""
    known = np.where(label >= CAMVID.num_classes, 1, label).astype(np.uint8)
    height, width = label.shape
    coarse = cv2.resize(known, (width // 8, height // 8), interpolation=cv2.INTER_NEAREST)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def fill_pool(root: Path, *, frames: int = 3, size: tuple[int, int] = SIZE, predictions: bool = True) -> list[str]:
    """Queries of a simulated night with predictions; returns their ids, the most wanted first."""
    drive = SimulatedDrive(seed=3, size=size, rate=1.0)
    rng = np.random.default_rng(0)
    with FramePool(root, SETTINGS, label_space=CAMVID) as pool:
        labels = {}
        for index in range(frames):
            image, label = drive.frame(5 * index, "night")
            record = pool.add(image, camera="front", stamp_ns=index * 10**9).record
            assert record is not None
            labels[record.id] = label
        choices = [
            Choice(number, 1.0 - 0.1 * k, k == 2, f"entropy {1 - 0.1 * k:.3f}") for k, number in enumerate(labels)
        ]
        records = pool.query(choices)
        for record in records if predictions else []:
            doubt = cv2.resize(rng.integers(90, 255, (9, 15)).astype(np.uint8), size[::-1])
            pool.set_prediction(record.id, predicted(labels[record.id]), doubt)
        return [str(record.query_id) for record in records]


def open_pool(root: Path) -> FramePool:
    """The pool, from beside the server."""
    return FramePool(root, SETTINGS, label_space=CAMVID)


class Server:
    """The annotation page's server in a process of its own."""

    def __init__(self, root: Path, **annotate: object) -> None:
        self._job = {
            "pool_dir": str(root),
            "label_space": json.loads(CAMVID.to_json()),
            "pool": SETTINGS.model_dump(),
            "annotate": {"port": 0, **annotate},
        }
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    @property
    def origin(self) -> str:
        return self.address.rstrip("/")

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ssada_core.annotation.serve"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), JOB_VARIABLE: json.dumps(self._job)},
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"the server did not start: {line}"
        self.address = found.group(0)
        self._job["annotate"]["port"] = int(self.origin.rpartition(":")[2])  # the next start is at the same place

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=60)
            self._process.stdout.close()
            self._process = None


@contextmanager
def serving(root: Path, **annotate: object) -> Iterator[Server]:
    """A running server; ``annotate`` are settings of it."""
    server = Server(root, **annotate)
    server.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)


class Person:
    """Somebody at a page, who points at pixels of the frame."""

    def __init__(self, watched, address: str, name: str = "Ada") -> None:
        self.watched = watched
        self.page = watched.page
        self.page.add_init_script(f"localStorage.setItem('ssada-name', {name!r})")
        self.page.goto(address)

    def open(self, query_id: str) -> None:
        self.page.click(f".card[data-id='{query_id}']")
        self.wait_for(query_id)

    def wait_for(self, query_id: str) -> None:
        self.page.wait_for_selector(f"body[data-ready='{query_id}'][data-patches]")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where on the screen the middle of a pixel of the frame is."""
        box = self.page.locator("#overlay").bounding_box()
        width, height = self.page.evaluate("[overlay.width, overlay.height]")
        return box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.place(x, y))

    def drag(self, *points: tuple[int, int]) -> None:
        self.page.mouse.move(*self.place(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.place(*point))
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def toast(self, words: str) -> None:
        self.page.wait_for_function("words => toast.textContent.includes(words)", arg=words)

    def saved(self) -> None:
        self.page.wait_for_selector("#saved.saved")


def capsule(shape: tuple[int, int], start: tuple[int, int], end: tuple[int, int], radius: float) -> np.ndarray:
    """Pixels (bool H×W) whose centre is within ``radius`` of the line between two pixels' centres (x, y)."""
    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(float)
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = dx * dx + dy * dy
    t = np.clip(((xs - start[0]) * dx + (ys - start[1]) * dy) / length, 0, 1) if length else 0.0
    return (xs - start[0] - t * dx) ** 2 + (ys - start[1] - t * dy) ** 2 <= radius**2


def connected(values: np.ndarray, x: int, y: int) -> np.ndarray:
    """Pixels (bool H×W) that are 4-connected with (x, y) and have its value."""
    _, parts = cv2.connectedComponents((values == values[y, x]).astype(np.uint8), connectivity=4)
    return parts == parts[y, x]
