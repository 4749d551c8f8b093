"""The adaptation, without ROS: frames in, queries out, labels in, promoted models out.

Everything that lasts is on the disk (pool, registry, rounds), so an adapter that was killed goes on where it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ssada_core.adaptation.asking import ASKED_STATES, Questions
from ssada_core.adaptation.bystander import Bystander
from ssada_core.adaptation.companions import Companions
from ssada_core.adaptation.conductor import Conductor
from ssada_core.adaptation.cycle import Answer, Cycle, obstacle
from ssada_core.adaptation.flags import ClipRecorder
from ssada_core.adaptation.following import RoadFollower
from ssada_core.adaptation.performing import Performer
from ssada_core.adaptation.scorer import Glance, Live, PoolScorer
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.adaptation.tools import Listener, Tools
from ssada_core.annotation.submit import SubmitResult, submit
from ssada_core.data.samples import Array
from ssada_core.store.pool import FramePool, FrameRecord
from ssada_core.store.pool_records import Added
from ssada_core.store.registry import ModelRegistry

__all__ = ["Adapter", "Listener"]

STEP_S = 0.5
"""Seconds between two looks at the facts: they come from the database."""
PUBLISH_S = 5.0
"""Seconds after which the folder of the queries shows no frame that was rejected, purged or hidden since."""


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
            self._companions = Companions(
                self.registry,
                label_space,
                Path(settings.rounds_dir),
                engine=settings.engine,
                watch=settings.watch,
                shadow=settings.shadow,
                log=log,
            )
            undo.callback(self._companions.close)
            self._conductor = Conductor(settings, self.registry, log)
            self._follower = RoadFollower(self.pool, self.registry, self._scorer, settings, log)
            self._recorder, self._clipping = ClipRecorder(self.pool, settings.flags), Bystander("clips", log)
            self._cycle = Cycle(settings.judgeable_cycle(), self._conductor.recall())
            self._questions = Questions(self.pool, self._scorer, settings, log)
            self._work = Performer(self._tools(listener), self._cycle, current)
            undo.pop_all()
        self._scorer.on_live = self._on_live
        self._next_step_s = self._next_publish_s = float("-inf")

    def _tools(self, listener: Listener) -> Tools:
        return Tools(
            settings=self.settings,
            pool=self.pool,
            registry=self.registry,
            scorer=self._scorer,
            questions=self._questions,
            conductor=self._conductor,
            follower=self._follower,
            companions=self._companions,
            listener=listener,
            log=self._log,
        )

    def _on_live(self, live: Live) -> None:
        self._follower.observe(live)
        self._companions.observe(live, self._follower.domain)

    # -- what comes in ---------------------------------------------------------------------------

    def offer(self, image: Array | None, *, jpeg: bytes | None, camera: str, stamp_ns: int) -> Added | None:
        """A camera's frame; the pool decides whether it keeps it. None while paused.

        Raises:
            DataError: if it is no image.
        """
        with self._lock:
            if self._work.paused:
                return None
            domain = self._follower.domain
            nothing: list[FrameRecord] = []
            clip = self._clipping.attempt(
                lambda: self._recorder.add(image, jpeg=jpeg, camera=camera, stamp_ns=stamp_ns, domain=domain), nothing
            )
            for record in clip:
                self._scorer.enqueue(record)
            added = self.pool.add(image, jpeg=jpeg, camera=camera, stamp_ns=stamp_ns, domain=domain)
            if added.record is not None:
                self._scorer.enqueue(added.record)
            elif added.reason in ("full", "disk", "duplicate"):  # not kept, but seen
                self._scorer.glance(Glance(image, jpeg, camera, stamp_ns))
            return added

    def flag(self, stamp_ns: int | None = None) -> str:
        """A driver says that something went wrong, just now or at a stamp: keep it, and ask about it first.

        Raises:
            StoreError: if no frame has come yet, or the disk refuses.
        """
        with self._lock:
            clip, kept = self._recorder.flag(stamp_ns)
            for record in kept:
                self._scorer.enqueue(record)
            words = f"flag {clip.id}: {len(kept)} frames of the seconds before are kept and asked about first"
            self._log(words)
            return words

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
            why_not = obstacle(self._cycle.state, self._work.facts(now_s), self._cycle.settings)
            if why_not is not None:
                return False, why_not
            self._work.adapt_requested = True
            return True, "a round starts"

    def pause(self, paused: bool) -> str:
        """While paused nothing is stored, asked or trained; labels are still taken."""
        with self._lock:
            self._work.paused = paused
            return "paused" if paused else "running"

    def rollback(self, reason: str) -> str:
        """Go back to the version that was current before; returns it.

        A round that was built on the version taken back, and a challenger judged against it, end here.

        Raises:
            StoreError: if there is none.
        """
        with self._lock:
            version = self.registry.rollback(reason)
            self._work.follow_registry(reason)
            return version

    def answer(self, answer: Answer) -> tuple[bool, str]:
        """Confirm or refuse a challenger that waits for a human, or a version that is offered.

        Raises:
            ModelError: if an offered version has gone, or is damaged.
            StoreError: if the disk refuses.
        """
        with self._lock:
            if self._work.offer is not None and self._cycle.state.phase == "collecting":
                if answer == "confirm":
                    return True, f"confirm: {self._work.take_offer()}"
                self._work.offer = None
                return True, "the offered version is not taken"
            if self._cycle.state.phase != "waiting":
                return False, "no version waits for a human"
            self._work.answer = answer
            return True, f"{answer}: {self._work.challenger}"

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
                self._work.step(now_s)
            try:
                self._exchange(now_s)
            finally:  # an annotator's folder that is away stops no watch
                busy = not self._work.paused and (self._scorer.score_next() or self._follower.step())
            return busy

    def _exchange(self, now_s: float) -> None:
        if now_s >= self._next_publish_s:
            self._next_publish_s = now_s + PUBLISH_S
            self._questions.publish()
        for result in self._questions.poll():
            self._listener.on_label(result)

    def close(self) -> None:
        """Stop a running worker (it can be resumed), close the stores."""
        with self._lock:
            self._conductor.rounds.stop()
            self._companions.close()
            self._scorer.close()
            self.pool.close()

    def status(self) -> dict[str, Any]:
        """Plain figures for the status topic and diagnostics."""
        with self._lock:
            stats = self.pool.stats()
            progress = self._conductor.rounds.progress()
            return {
                "version": self._work.version,
                "phase": self._cycle.state.phase,
                "paused": self._work.paused,
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
                "road": self._follower.status(),
                **self._companions.status(),
                "flags": len(self.pool.clips()),
                "troubles": self._troubles(),
                "offer": self._work.offer.words() if self._work.offer is not None else "",
            }

    def _troubles(self) -> dict[str, str]:
        clips = {"clips": self._clipping.trouble} if self._clipping.trouble else {}
        return {**self._work.troubles(), **clips}
