"""Everything that can go wrong, at moments that a seed decides."""

from __future__ import annotations

import json
import random
import signal
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from sensor_msgs.msg import Image
from stage import ADAPTATION, ANNOTATE, CAMERA, SEGMENTATION, WORKER, Stage, send, worker
from std_msgs.msg import String
from std_srvs.srv import Trigger
from watch import Watch

from ssada_ros.conversions import make_header
from ssada_ros.supervisor import Supervisor

WEIGHTS = {
    f"kill {SEGMENTATION}": 2.0,
    f"kill {ADAPTATION}": 2.0,
    f"kill {WORKER}": 3.0,
    f"kill {ANNOTATE}": 2.0,
    f"kill {CAMERA}": 1.0,
    f"stop {SEGMENTATION}": 1.0,
    f"stop {ADAPTATION}": 1.0,
    f"stop {WORKER}": 1.0,
    f"stop {ANNOTATE}": 1.0,
    f"stop {CAMERA}": 0.5,
    f"hang {WORKER}": 1.0,
    "fill disk": 2.0,
    "garbage frames": 2.0,
    "garbage labels": 2.0,
    "garbage requests": 1.0,
    "garbage promotions": 1.0,
    "ask for a round": 3.0,
}
SPARED_S = 13.0
"""Seconds for which a victim is left alone: a process that keeps ending is another test's subject."""
APART_S = 9.0
"""Camera and segmentation are not hit together: a mask needs a frame."""
REMOUNTS_S = (3.0, 7.0)


@dataclass(frozen=True)
class Blow:
    """One fault: when, in seconds from the start, what, and for how long where it has an end of its own."""

    at_s: float
    what: str
    for_s: float


@dataclass
class Outage:
    """A time without masks for a reason: from ``start`` on; ``until`` is when the reason ended (steady clock)."""

    why: str
    start: float
    until: float


@dataclass
class Log:
    """What the storm did."""

    done: dict[str, int] = field(default_factory=dict)
    told: list[tuple[float, str]] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)


def plan(seed: int, seconds: float) -> list[Blow]:
    """The blows of a storm; a pure function of both."""
    rng = random.Random(seed)
    last: dict[str, float] = {}
    blows: list[Blow] = []
    at = 3.0
    while at < seconds:
        what = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        length = rng.uniform(*REMOUNTS_S) if what == "fill disk" else rng.uniform(1.0, 4.0)
        verb, _, victim = what.partition(" ")
        if verb in ("kill", "stop", "hang", "fill"):
            other = {CAMERA: SEGMENTATION, SEGMENTATION: CAMERA}.get(victim, "")
            if at - last.get(victim, -99.0) < SPARED_S or at - last.get(other, -99.0) < APART_S:
                at += 0.5
                continue
            last[victim] = at
        if at + length < seconds:
            blows.append(Blow(at, what, length))
        at += rng.uniform(1.5, 4.5)
    return blows


class Storm:
    """Carries a plan out. :meth:`step` is called by the thread that looks after the processes."""

    def __init__(self, stage: Stage, supervisor: Supervisor, watch: Watch, blows: list[Blow], start: float) -> None:
        self._stage = stage
        self._supervisor = supervisor
        self._watch = watch
        self._todo = [(start + blow.at_s, blow) for blow in blows]
        self._ends: list[tuple[float, Callable[[], object]]] = []
        self._random = random.Random(len(blows))
        self.begun = start
        self.log = Log()

    def over(self) -> bool:
        """Whether nothing more will happen, and everything that was begun has ended."""
        return not self._todo and not self._ends

    def step(self, now: float) -> None:
        """Do what is due."""
        for at, end in [entry for entry in self._ends if entry[0] <= now]:
            self._ends.remove((at, end))
            end()
        while self._todo and self._todo[0][0] <= now:
            _, blow = self._todo.pop(0)
            what = blow.what if self._strike(blow, now) else f"{blow.what} (nobody there)"
            self.log.done[what] = self.log.done.get(what, 0) + 1
            self.log.told.append((round(now - self.begun, 2), what))

    def _strike(self, blow: Blow, now: float) -> bool:
        verb, _, victim = blow.what.partition(" ")
        if verb in ("kill", "stop", "hang"):
            return self._signal(verb, victim, blow, now)
        if verb == "fill":
            return self._fill(blow, now)
        {
            "garbage frames": self._garbage_frames,
            "garbage labels": self._garbage_labels,
            "garbage requests": self._garbage_requests,
            "garbage promotions": self._garbage_promotions,
            "ask for a round": self._ask,
        }[blow.what]()
        return True

    def _signal(self, verb: str, victim: str, blow: Blow, now: float) -> bool:
        pid = worker(self._stage) if victim == WORKER else self._pid(victim)
        if pid is None:
            return False
        hit = send(pid, signal.SIGKILL if verb == "kill" else signal.SIGSTOP)
        if hit and verb == "stop":
            self._ends.append((now + blow.for_s, lambda: send(pid, signal.SIGCONT)))
        if hit and victim == SEGMENTATION:
            self.log.outages.append(Outage(blow.what, now, now if verb == "kill" else now + blow.for_s))
        return hit

    def _pid(self, name: str) -> int | None:
        return self._supervisor.pid(name) if self._supervisor.poll().get(name, 0) is None else None

    def _fill(self, blow: Blow, now: float) -> bool:
        if not self._stage.mounted:
            return False
        self._stage.fill_disk()
        self._ends.append((now + blow.for_s, self._stage.free_disk))
        return True

    # -- what nobody should send ----------------------------------------------------------------------

    def _garbage_frames(self) -> None:
        good = np.random.default_rng(self._random.getrandbits(32)).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        for stamp, encoding, size, data in (
            (0, "bgr8", (48, 64), good.tobytes()),  # 1970
            (4_102_444_800 * 10**9 % 2**31 * 10**9, "bgr8", (48, 64), good.tobytes()),  # decades ahead
            (1, "rgb9", (48, 64), good.tobytes()),
            (2, "bgr8", (4800, 6400), b"short"),
            (3, "", (0, 0), b""),
            (4, "32FC1", (2, 2), np.full((2, 2), np.nan, np.float32).tobytes()),
        ):
            message = Image(header=make_header(stamp, "garbage"), encoding=encoding, height=size[0], width=size[1])
            message.step = size[1] * (4 if encoding == "32FC1" else 3)
            message.data.frombytes(data)
            self._watch.camera.publish(message)

    def _garbage_labels(self) -> None:
        known = next(iter(self._watch.seen.queries), "aaaaaa-000001")
        for query_id, encoding, size in (
            ("../../../etc/passwd", "mono8", (192, 320)),
            ("ffffff-000001", "mono8", (192, 320)),
            (known, "mono8", (7, 9)),
            (known, "bgr8", (192, 320)),
            (known + "\0", "mono8", (192, 320)),
            ("x" * 5000, "mono8", (1, 1)),
        ):
            message = Image(header=make_header(0, query_id), encoding=encoding, height=size[0], width=size[1])
            message.step = size[1]
            message.data.frombytes(bytes(size[0] * size[1]))
            with suppress(UnicodeError, ValueError):
                self._watch.answers.publish(message)

    def _garbage_requests(self) -> None:
        root = f"http://127.0.0.1:{self._stage.port}"
        known = next(iter(self._watch.seen.queries), "aaaaaa-000001")
        for path, body in (
            ("/api/queries/..%2f..%2fpool.sqlite/image", None),
            (f"/api/queries/{known}/label", b"no png"),
            (f"/api/queries/{known}/label", b"\x89PNG\r\n\x1a\n" + bytes(3000)),
            (f"/api/queries/{known}/skip", b'{"reason": 3'),
            ("/api/queries/ffffff-999999/label", bytes(100)),
            ("/api/nothing", None),
        ):
            with suppress(OSError, ValueError):
                urllib.request.urlopen(urllib.request.Request(root + path, body), timeout=1).read()

    def _garbage_promotions(self) -> None:
        for text in ("", "not json", "[]", json.dumps({"version": "../../../tmp"}), json.dumps({"version": "v9999"})):
            self._watch.promoted.publish(String(data=text))

    def _ask(self) -> None:
        client = self._watch.node.create_client(Trigger, f"{ADAPTATION}/adapt")
        if client.service_is_ready() or client.wait_for_service(timeout_sec=0.5):
            client.call_async(Trigger.Request())  # granted or not: both are answers
