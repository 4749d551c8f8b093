"""The adapter of the live node, played in recorded time.

The live node's adaptation (:class:`~ssada_core.adaptation.adapter.Adapter`) is given the recording's clock. A round is
trained at once, while the drive stands still, and its outcome stays hidden until ``round_seconds`` of the drive have
passed: so what it does depends neither on this machine's speed nor on how busy it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ssada_core.adaptation.adapter import STEP_S, Adapter
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.annotation.submit import SubmitResult
from ssada_core.data.samples import Array
from ssada_core.errors import WorkerError
from ssada_core.replay.adapted import AskedFrame, PlayedRound, Swap
from ssada_core.replay.driver import Answerer
from ssada_core.store.pool import FrameRecord

POLL_S = 0.05
STEPS_AT_MOST = 10_000


class RecordedAdapter:
    """Feeds an adapter and notes what it does.

    Attributes:
        version: in use.
        asked: queries in the order in which they were asked.
        rounds: in order.
        swaps: in order.
    """

    def __init__(
        self, settings: AdaptationSettings, round_seconds: float, answer: Answerer, log: Callable[[str], None]
    ) -> None:
        """Open the adapter.

        Raises:
            ModelError: if the registry has no current model.
            StoreError: if a folder cannot be used.
        """
        self._round_seconds = round_seconds
        self._answer = answer
        self._log = log
        self._now_s = 0.0
        self._in_round = False
        self._waiting: list[AskedFrame] = []
        self.asked: list[AskedFrame] = []
        self.rounds: list[PlayedRound] = []
        self.swaps: list[Swap] = []
        self.adapter = Adapter(settings, self, log)
        self.version = str(self.adapter.registry.current())

    # -- the drive ---------------------------------------------------------------------------------

    def offer(self, image: Array, *, jpeg: bytes | None, camera: str, stamp_ns: int) -> FrameRecord | None:
        """A frame; its record where the pool kept it."""
        added = self.adapter.offer(image, jpeg=jpeg, camera=camera, stamp_ns=stamp_ns)
        return added.record if added is not None else None

    def step(self, now_s: float) -> None:
        """Let the adapter do all that is to be done at a time of the drive.

        Raises:
            SsadaError: if a frame or label cannot be taken, scored or asked for.
        """
        self.conclude(now_s)
        self._now_s = max(self._now_s, now_s)
        # While a round is under way its clock stands, so that it scores frames and does not look for the outcome.
        self._tick(self.rounds[-1].started_s if self._in_round else self._now_s)
        self._answer_queries()
        if not self._in_round and self.adapter.status()["phase"] == "training":
            self._train()

    def conclude(self, now_s: float) -> None:
        """End the round under way if its time is over by ``now_s``: judge it, and swap if the gate says so."""
        if not self._in_round or now_s < self.rounds[-1].ended_s:
            return
        played = self.rounds[-1]
        self._now_s = played.ended_s
        clock = played.ended_s
        for _ in range(STEPS_AT_MOST):
            self._tick(clock)
            if self.adapter.status()["phase"] not in {"training", "judging"}:
                break
            clock += STEP_S
        self._in_round = False
        played.decision = dict(self.adapter.status()["decision"])

    def settle(self, now_s: float, quiet_s: float) -> None:
        """No more frames come: go on until nothing has happened for ``quiet_s``, or a round has been started."""
        clock, until = now_s, now_s + quiet_s
        for _ in range(STEPS_AT_MOST):
            before = self._events()
            clock += STEP_S
            self.step(clock)
            if self._events() != before:
                until = clock + quiet_s
            if self._in_round or clock > until:
                return

    def finish(self, now_s: float, quiet_s: float) -> None:
        """The drive is over: whatever is under way comes to its end."""
        for _ in range(STEPS_AT_MOST):
            self.settle(now_s, quiet_s)
            if not self._in_round:
                return
            now_s = self.rounds[-1].ended_s
            self.conclude(now_s)

    def close(self) -> None:
        """Close the stores."""
        self.adapter.close()

    # -- what the adapter tells (Listener) -------------------------------------------------------

    def on_queries(self, records: Sequence[FrameRecord]) -> None:
        """See :class:`~ssada_core.adaptation.adapter.Listener`."""
        asked = [AskedFrame(record, self._now_s) for record in records]
        self.asked += asked
        self._waiting += asked

    def on_label(self, result: SubmitResult) -> None:
        """See :class:`~ssada_core.adaptation.adapter.Listener`."""
        for asked in self.asked:
            if asked.record.query_id == result.query_id:
                asked.result = result

    def on_promoted(self, version: str, reason: str) -> None:
        """See :class:`~ssada_core.adaptation.adapter.Listener`."""
        self.version = version
        self.swaps.append(Swap(version, self._now_s, reason))

    # -- parts ---------------------------------------------------------------------------------------

    def _tick(self, clock_s: float) -> None:
        while self.adapter.tick(clock_s):
            pass

    def _answer_queries(self) -> None:
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            label = self._answer(asked.record)
            if label is not None and asked.record.query_id is not None:
                self.adapter.submit(asked.record.query_id, label, "replay")

    def _train(self) -> None:
        """Wait for the worker here, so that the pool stays as it was when the round was started."""
        self._in_round = True
        self.rounds.append(PlayedRound(self._now_s, self._now_s + self._round_seconds))
        said = time.monotonic()
        while self.adapter.training() == "running":
            time.sleep(POLL_S)
            if time.monotonic() - said > 15.0:
                said = time.monotonic()
                figures = self.adapter.status()["training"]
                done, all_of_them = figures.get("iteration", 0), figures.get("iterations", "?")
                self._log(f"training: iteration {done} of {all_of_them}")
        if self.adapter.training() == "idle":
            raise WorkerError("the training worker was stopped from outside: run the replay again")

    def _events(self) -> tuple[int, int, int]:
        answered = sum(asked.result is not None for asked in self.asked)
        return len(self.asked), answered, len(self.rounds)
