"""The adaptation, without ROS: frames in, queries out, labels in, promoted models out.

Everything that lasts is on the disk (pool, registry, rounds), so an adapter that was killed goes on where it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ssada_core.adaptation.asking import ASKED_STATES, Questions
from ssada_core.adaptation.conductor import Conductor
from ssada_core.adaptation.cycle import (
    Action,
    Answer,
    AskLabels,
    Cycle,
    CycleState,
    Facts,
    Judge,
    Promote,
    Refuse,
    ResumeRound,
    SetAside,
    StartRound,
    StopRound,
    obstacle,
)
from ssada_core.adaptation.scorer import PoolScorer
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.annotation.submit import SubmitResult, submit
from ssada_core.data.samples import Array
from ssada_core.errors import SsadaError
from ssada_core.store.pool import FramePool, FrameRecord
from ssada_core.store.pool_records import Added
from ssada_core.store.registry import ModelRegistry

STEP_S = 0.5
"""Seconds between two looks at the facts: they come from the database."""


class Listener(Protocol):
    """Who is told what happened; called by the thread that calls :meth:`Adapter.tick` or a service."""

    def on_queries(self, records: Sequence[FrameRecord]) -> None:
        """These frames wait for a human."""

    def on_label(self, result: SubmitResult) -> None:
        """A label was accepted, held or refused."""

    def on_promoted(self, version: str, reason: str) -> None:
        """This version is the current one now."""


class Adapter:
    """Ties pool, acquisition, rounds, gate and registry together. Safe from several threads.

    A training worker ends with the thread that called :meth:`tick` when it was started; the next :meth:`tick`, from
    whichever thread, resumes it.
    """

    def __init__(self, settings: AdaptationSettings, listener: Listener, log: Callable[[str], None]) -> None:
        """Open the stores and find out where an earlier run stopped.

        Raises:
            ModelError: if the registry has no current model.
            StoreError: if a folder cannot be used.
        """
        self.settings = settings
        self._listener = listener
        self._log = log
        self._lock = threading.RLock()
        self.registry = ModelRegistry(Path(settings.registry_dir), settings.registry)
        current, damage = self.registry.ensure_sound()
        if damage:
            log(f"{current} is current again: {damage}")
        label_space = self.registry.manifest(current).labels()
        with ExitStack() as undo:  # what was opened before a failure is closed again
            self.pool = FramePool(Path(settings.pool_dir), settings.pool, label_space=label_space)
            undo.callback(self.pool.close)
            self._scorer = PoolScorer(self.pool, self.registry, settings.engine, log)
            undo.callback(self._scorer.close)
            self._scorer.use(current)
            self._conductor = Conductor(settings, self.registry, log)
            self._cycle = Cycle(settings.judgeable_cycle(), self._conductor.recall())
            self._questions = Questions(self.pool, self._scorer, settings, log)
            undo.pop_all()
        self._version = current
        self._next_step_s = float("-inf")
        self._paused = False
        self._adapt_requested = False
        self._answer: Answer = "none"

    # -- what comes in ---------------------------------------------------------------------------

    def offer(self, image: Array | None, *, jpeg: bytes | None, camera: str, stamp_ns: int) -> Added | None:
        """A camera's frame; the pool decides whether it keeps it. None while paused.

        Raises:
            DataError: if it is no image.
        """
        with self._lock:
            if self._paused:
                return None
            added = self.pool.add(image, jpeg=jpeg, camera=camera, stamp_ns=stamp_ns)
            if added.record is not None:
                self._scorer.enqueue(added.record)
            return added

    def submit(self, query_id: str, label: Array, annotator: str) -> SubmitResult:
        """A human's label; accepted ones survive a power cut once this returns."""
        with self._lock:
            result = submit(self.pool, query_id, label, annotator, settings=self.settings.label_check)
            self._listener.on_label(result)
            return result

    def training(self) -> str:
        """How the worker of the newest round stands: a replay waits for it instead of driving on."""
        with self._lock:
            return self._conductor.training()

    def open_queries(self) -> list[FrameRecord]:
        """Queries without an answer, for annotators that come later."""
        return self.pool.frames(states=["queried"])

    # -- services ----------------------------------------------------------------------------------

    def adapt(self, now_s: float) -> tuple[bool, str]:
        """Ask for a round now."""
        with self._lock:
            why_not = obstacle(self._cycle.state, self._facts(now_s), self._cycle.settings)
            if why_not is not None:
                return False, why_not
            self._adapt_requested = True
            return True, "a round starts"

    def pause(self, paused: bool) -> str:
        """While paused nothing is stored, asked or trained; labels are still taken."""
        with self._lock:
            self._paused = paused
            return "paused" if paused else "running"

    def rollback(self, reason: str) -> str:
        """Go back to the version that was current before; returns it.

        A round that was built on the version taken back, and a challenger judged against it, end here.

        Raises:
            StoreError: if there is none.
        """
        with self._lock:
            version = self.registry.rollback(reason)
            self._follow_registry(reason)
            return version

    def answer(self, answer: Answer) -> tuple[bool, str]:
        """Confirm or refuse a challenger that waits for a human."""
        with self._lock:
            if self._cycle.state.phase != "waiting":
                return False, "no version waits for a human"
            self._answer = answer
            return True, f"{answer}: {self._challenger}"

    # -- what happens by itself --------------------------------------------------------------------

    def tick(self, now_s: float) -> bool:
        """Do the next small thing: score a frame, take labels from the folder, step the cycle.

        A round that cannot be started, resumed, judged or promoted ends with its reason in :meth:`status`.

        Args:
            now_s: seconds on a clock that does not go back.

        Returns:
            Whether there is more to do at once.

        Raises:
            SsadaError: if a frame or label cannot be taken, scored or asked for; the next call goes on.
        """
        with self._lock:
            if now_s >= self._next_step_s:
                self._next_step_s = now_s + STEP_S
                self._step(now_s)
            for result in self._questions.poll():
                self._listener.on_label(result)
            return not self._paused and self._scorer.score_next()

    def close(self) -> None:
        """Stop a running worker (it can be resumed), close the stores."""
        with self._lock:
            self._conductor.rounds.stop()
            self._scorer.close()
            self.pool.close()

    def status(self) -> dict[str, Any]:
        """Plain figures for the status topic and diagnostics."""
        with self._lock:
            stats = self.pool.stats()
            progress = self._conductor.rounds.progress()
            return {
                "version": self._version,
                "phase": self._cycle.state.phase,
                "paused": self._paused,
                "pool": dict(stats.counts),
                "pool_bytes": stats.image_bytes,
                "pool_trouble": self.pool.trouble,
                "budget": self.settings.cycle.budget,
                "asked": sum(stats.counts[state] for state in ASKED_STATES),
                "labels": stats.counts["labelled"],
                "audit_labels": stats.audit_labelled,
                "training": progress.figures if progress is not None else {},
                "decision": self._conductor.decision,
                "failure": self._conductor.failure,
            }

    # -- one step of the cycle ---------------------------------------------------------------------

    def _step(self, now_s: float) -> None:
        self._follow_registry("made current by another process")
        try:
            facts = self._facts(now_s)
            phase = self._cycle.state.phase
            actions = self._cycle.step(facts)
            if facts.training == "failed" and phase != self._cycle.state.phase:
                self._conductor.fail(self._conductor.rounds.failure())
            for action in actions:
                self._attempt(action, now_s)
        finally:
            self._conductor.remember(self._cycle.state)

    def _attempt(self, action: Action, now_s: float) -> None:
        """Perform an action; a failure of a round's own ends the round, and nothing else."""
        try:
            self._perform(action)
        except SsadaError as error:
            if isinstance(action, AskLabels):
                raise
            self._conductor.fail(str(error))
            failures = self._cycle.state.failures + 1
            self._cycle.state = replace(self._cycle.state, phase="collecting", ended_s=now_s, failures=failures)

    def _facts(self, now_s: float) -> Facts:
        pool, cycle = self.pool, self.settings.cycle
        labelled = pool.count(states=["labelled"])
        audit = pool.count(states=["labelled"], audit=True)
        most = max(cycle.min_frames, cycle.frames_between, cycle.batch)  # more than the cycle asks for costs time only
        return Facts(
            now_s=now_s,
            buffered_new=self._questions.count_new(at_most=most),
            asked=pool.count(states=ASKED_STATES),
            open=pool.count(states=["queried"]),
            labelled_train=labelled - audit,
            labelled_audit=audit,
            labels_since_round=max(0, labelled - self._conductor.labels_used),
            training=self._conductor.training(),
            paused=self._paused,
            adapt_requested=self._adapt_requested,
            outcome=self._conductor.outcome,
            challenger=self._challenger,
            answer=self._answer,
        )

    @property
    def _challenger(self) -> str:
        return str(self._conductor.decision.get("version", ""))

    def _perform(self, action: Action) -> None:
        if isinstance(action, AskLabels):
            self._ask(action.count)
        elif isinstance(action, StartRound):
            self._adapt_requested = False
            self._conductor.start(action.reason, labels=self.pool.count(states=["labelled"]))
        elif isinstance(action, StopRound):
            self._conductor.rounds.stop()
        elif isinstance(action, ResumeRound):
            if not self._conductor.resume():  # its folder was deleted
                self._cycle.state = CycleState()
        elif isinstance(action, Judge):
            self._conductor.judge(self.pool.label_space)
        elif isinstance(action, Promote):
            self._promote(action)
        elif isinstance(action, Refuse | SetAside):
            self._answer = "none"
            reason = action.reason if isinstance(action, Refuse) else "too little evidence"
            self._conductor.set_aside(action.version, reason)

    def _ask(self, count: int) -> None:
        records = self._questions.ask(count)
        self._listener.on_queries(records)
        self._questions.publish()

    def _promote(self, action: Promote) -> None:
        self._answer = "none"
        if self._conductor.promote(action.version, action.reason):
            self._use(action.version, str(self._conductor.decision["words"]))

    def _use(self, version: str, reason: str) -> None:
        self._version = version
        self._listener.on_promoted(version, reason)
        self._scorer.use(version)

    def _follow_registry(self, reason: str) -> None:
        """Take over a current version that did not come from here; what was built on the old one ends."""
        current = self.registry.current_or_fail()
        if current == self._version:
            return
        phase = self._cycle.state.phase
        if phase in ("training", "suspended"):
            self._conductor.rounds.stop()
            self._conductor.overtake(f"{self._version} is not current any more, {current} is ({reason})")
        elif phase in ("judging", "waiting") and current != self._challenger:
            self._conductor.overtake(f"it was judged against {self._version}, and {current} is current now ({reason})")
        self._answer = "none"
        self._cycle.state = replace(self._cycle.state, phase="collecting")
        self._use(current, reason)
