"""Somebody who answers queries over both ways in, at times wrongly, and writes down what was acknowledged."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

import cv2
import numpy as np
from sensor_msgs.msg import Image
from stage import Stage
from watch import Watch

from ssada_core.data.encodings import encode_png
from ssada_ros.conversions import fill_image, make_header

AGAIN_S = 6.0
"""Seconds after which an answer that nobody acknowledged is given again."""
POISONS = ("shuffled", "constant", "another space", "flipped")


def poison(label: np.ndarray, kind: str, rng: random.Random) -> np.ndarray:
    """A wrong label of the frame's size."""
    classes = np.random.default_rng(rng.getrandbits(32))
    if kind == "shuffled":
        return classes.permutation(label.ravel()).reshape(label.shape).astype(np.uint8)
    if kind == "constant":
        return np.full_like(label, rng.randrange(11))
    if kind == "another space":  # ids of Cityscapes, some of which CamVid has not
        return np.where(label < 11, (label.astype(int) * 7 + 4) % 19, 255).astype(np.uint8)
    blocks = classes.random((label.shape[0] // 16, label.shape[1] // 16)) < 0.3
    flipped = cv2.resize(blocks.astype(np.uint8), label.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.where(flipped & (label < 11), (label + 1 + rng.randrange(9)) % 11, label).astype(np.uint8)


@dataclass
class Task:
    """A query on its way to the right label.

    Attributes:
        query_id: which.
        plan: labels to give, in this order; the last one is the truth.
        over_page: by the page, else by the topic.
        confirmed: it was held, and is given once more with a human's word for it.
        given_at: when the first label of the plan was given last; 0 before.
    """

    query_id: str
    stamp_ns: int
    plan: list[np.ndarray]
    over_page: bool
    confirmed: bool = False
    given_at: float = 0.0


@dataclass
class Ledger:
    """What was acknowledged: labels by query, in order, and counts of every answer."""

    accepted: dict[str, list[bytes]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    poisoned: int = 0
    poison_accepted: int = 0


class Annotator:
    """Works in a thread of its own, because the page may hang for a while."""

    def __init__(self, stage: Stage, watch: Watch, seed: int) -> None:
        self._stage = stage
        self._watch = watch
        self._random = random.Random(seed)
        self._tasks: dict[str, Task] = {}
        self._done: set[str] = set()
        self._unknown: dict[str, float] = {}
        self._results_read = 0
        self._stop = threading.Event()
        self.ledger = Ledger()
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._run, name="annotator", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.2):
                self._step()
        except Exception as error:  # a thread has no caller: kept, and looked at in the end
            self.errors.append(f"annotator: {type(error).__name__}: {error}")
            raise

    def _step(self) -> None:
        seen = self._watch.seen
        for query_id, stamp in list(seen.queries.items()):
            if query_id in self._done or query_id in self._tasks:
                continue
            if stamp in seen.truth:
                self._tasks[query_id] = self._task(query_id, stamp, seen.truth[stamp])
            else:
                self._skip(query_id)
        while self._results_read < len(seen.results):
            self._note(seen.results[self._results_read])
            self._results_read += 1
        for task in list(self._tasks.values()):
            if time.monotonic() - task.given_at > AGAIN_S:
                self._give(task)

    def _skip(self, query_id: str) -> None:
        """The storm's garbage is asked about, too: nobody knows what is in it, and an open question keeps its place."""
        now = time.monotonic()
        if now - self._unknown.setdefault(query_id, now) > AGAIN_S:
            self._unknown[query_id] = now
            body = json.dumps({"reason": "nothing to be seen"}).encode()
            if self._call(f"{query_id}/skip", body, "application/json") is not None:
                self._done.add(query_id)
                self._count("skipped")

    def _task(self, query_id: str, stamp: int, truth: np.ndarray) -> Task:
        over_page = self._random.random() < 0.5
        if self._random.random() > 0.15:
            return Task(query_id, stamp, [truth], over_page)
        self.ledger.poisoned += 1
        wrong = poison(truth, self._random.choice(POISONS), self._random)
        # Only the page says which of several labels it has answered: over the topic an answer may come twice.
        return Task(query_id, stamp, [wrong, truth], over_page=True)

    def _give(self, task: Task) -> None:
        task.given_at = time.monotonic()
        if task.over_page or task.confirmed:
            result = self._post(task)
            if result is not None:
                self._note(result)
        else:
            header = make_header(task.stamp_ns, task.query_id)
            self._watch.answers.publish(fill_image(Image(), task.plan[0], "mono8", header))

    def _post(self, task: Task) -> dict[str, str] | None:
        confirmed = "true" if task.confirmed else "false"
        return self._call(f"{task.query_id}/label?confirmed={confirmed}", encode_png(task.plan[0]), "image/png")

    def _call(self, path: str, body: bytes, kind: str) -> dict[str, str] | None:
        """The page's answer; None where it could not be asked."""
        address = f"http://127.0.0.1:{self._stage.port}/api/queries/{path}"
        who = {"X-Holder": "chaos", "X-Person": "chaos", "X-Name": "chaos"}
        request = urllib.request.Request(address, body, {"Content-Type": kind, **who})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except (OSError, ValueError, urllib.error.URLError) as error:  # killed, stopped, or the disk is full: later
            reason = f"page: {getattr(error, 'code', type(error).__name__)}"
            self._count(reason)
            return None

    def _note(self, result: dict[str, str]) -> None:
        status, task = str(result.get("status")), self._tasks.get(str(result.get("query_id")))
        self._count(status)
        if task is None:
            return
        if status == "accepted":
            self.ledger.accepted.setdefault(task.query_id, []).append(task.plan[0].tobytes())
            self.ledger.poison_accepted += len(task.plan) > 1
        if status == "held" and len(task.plan) == 1:
            task.confirmed = True  # the truth: a human looks again and stands by it
        elif status in ("accepted", "held") or len(task.plan) > 1 or "rejected" in str(result.get("why")):
            task.plan = task.plan[1:]  # a refused poison is done with as well
        task.given_at = 0.0
        if not task.plan:
            del self._tasks[task.query_id]
            self._done.add(task.query_id)

    def _count(self, what: str) -> None:
        self.ledger.counts[what] = self.ledger.counts.get(what, 0) + 1
