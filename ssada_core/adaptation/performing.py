"""Carries out what the cycle asks for: queries, rounds, promotions, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ssada_core.adaptation.actions import (
    Action,
    AskAudit,
    AskFlagged,
    AskLabels,
    Judge,
    Promote,
    Refuse,
    ResumeRound,
    SetAside,
    StartRound,
    StartShadow,
    StopRound,
)
from ssada_core.adaptation.asking import ASKED_STATES
from ssada_core.adaptation.bystander import Bystander
from ssada_core.adaptation.cycle import Answer, Cycle, CycleState, Facts
from ssada_core.adaptation.expectations import Expectations
from ssada_core.adaptation.flags import choose_flagged
from ssada_core.adaptation.offers import Offer, fitting
from ssada_core.adaptation.situation import gather, new_labels
from ssada_core.adaptation.tools import Tools
from ssada_core.errors import SsadaError, StoreError, WorkerError
from ssada_core.store.pool import Choice, FrameRecord


class Performer:
    """One vehicle's adaptation at work; not safe from several threads, its owner is.

    Attributes:
        version: the version in use.
        paused: nothing is asked or trained.
        adapt_requested: a human asked for a round.
        answer: what a human said to a challenger that waits.
    """

    def __init__(self, tools: Tools, cycle: Cycle, version: str) -> None:
        """Go on where an earlier process stopped.

        Raises:
            StoreError: if what it left cannot be read.
        """
        self._tools, self._cycle, self.version = tools, cycle, version
        self._rest_until_s = float("-inf")
        self._entered, self._named = 0, -1
        self._offering = Bystander("offers", tools.log)
        self.offer: Offer | None = None
        """A version that fits the road better; confirm takes it."""
        self.paused = False
        self.adapt_requested = False
        self.answer: Answer = "none"
        tools.conductor.count_from(tools.pool)
        tools.follower.use(version)
        self._watch_again()
        if cycle.state.phase == "shadowing":
            self._drive_along(self.challenger)

    @property
    def challenger(self) -> str:
        """The version that the newest decision is about."""
        return str(self._tools.conductor.decision.get("version", ""))

    def step(self, now_s: float) -> None:
        """Look at the facts and do what they ask for.

        Raises:
            SsadaError: if frames cannot be asked for, or a store refuses; the next call goes on.
        """
        self.follow_registry("made current by another process")
        self._heed_watch(now_s)
        self._look_for_offer()
        self._name_target()
        try:
            facts = self.facts(now_s)
            phase = self._cycle.state.phase
            actions = self._cycle.step(facts)
            if facts.training == "failed" and phase != self._cycle.state.phase:
                self._tools.conductor.fail(self._tools.conductor.rounds.failure())
            for action in actions:
                self._attempt(action, now_s)
        finally:
            self._tools.conductor.remember(self._cycle.state)

    def _attempt(self, action: Action, now_s: float) -> None:
        """Perform an action; a failure of a round's own ends the round, and nothing else."""
        try:
            self._perform(action)
        except SsadaError as error:
            if isinstance(action, AskLabels | AskFlagged | AskAudit):
                raise
            conductor = self._tools.conductor
            # Where not even its folder could be made, the newest round is the one before.
            begun = not isinstance(action, StartRound) or conductor.rounds.unfinished() is not None
            conductor.fail(str(error), begun=begun)
            failures = self._cycle.state.failures + 1
            self._cycle.state = replace(self._cycle.state, phase="collecting", ended_s=now_s, failures=failures)

    def facts(self, now_s: float) -> Facts:
        """How things stand."""
        tools = self._tools
        return gather(
            tools.settings,
            tools.pool,
            tools.questions,
            tools.conductor,
            tools.follower,
            tools.companions,
            now_s=now_s,
            paused=self.paused,
            adapt_requested=self.adapt_requested,
            answer=self.answer,
            resting=now_s < self._rest_until_s,
        )

    def _perform(self, action: Action) -> None:
        if isinstance(action, AskLabels):
            self._tell(self._tools.questions.ask(action.count, self._tools.follower.domain))
        elif isinstance(action, AskFlagged):
            self._tell(self._tools.questions.ask_for(choose_flagged(self._tools.pool, self._tools.settings.flags)))
        elif isinstance(action, AskAudit):
            target = str(self._tools.conductor.decision.get("target", ""))
            records = self._tools.questions.ask_audit(action.count, target)
            if records:
                self._tools.conductor.asked([str(record.query_id) for record in records])
            self._tell(records)
        elif isinstance(action, StartRound):
            self.adapt_requested = False
            labels, target = self._tools.pool.labels_accepted(), self._tools.follower.domain
            if action.challenger:  # it trains on none, so that only what it asked for is used up by it
                labels -= new_labels(self._tools.pool, self._tools.conductor)
                target = str(self._tools.conductor.decision.get("target", ""))
            self._tools.conductor.start(action.reason, labels=labels, target=target, challenger=action.challenger)
        elif isinstance(action, StopRound):
            self._tools.conductor.rounds.stop()
        elif isinstance(action, ResumeRound):
            if not self._tools.conductor.resume():  # its folder was deleted
                self._cycle.state = CycleState()
        else:
            self._conclude(action)

    def _conclude(self, action: Action) -> None:
        """What ends a round."""
        if isinstance(action, Judge):
            self._tools.companions.end_shadow()
            self._tools.conductor.judge(self._tools.pool.label_space)
            self._named = -1
        elif isinstance(action, StartShadow):
            self._drive_along(action.version)
        elif isinstance(action, Promote):
            self._promote(action)
        elif isinstance(action, Refuse | SetAside):
            self.answer = "none"
            self._tools.companions.end_shadow()
            reason = action.reason if isinstance(action, Refuse) else "too little evidence"
            self._tools.conductor.set_aside(action.version, reason)
            if isinstance(action, SetAside) and self._tools.settings.shadow.undecided:
                self._drive_along(action.version)

    def _tell(self, records: Sequence[FrameRecord]) -> None:
        if records:
            self._tools.listener.on_queries(records)
            self._tools.questions.publish()

    def troubles(self) -> dict[str, str]:
        """What is wrong with those who only look on, by name; empty while all is well."""
        companions = self._tools.companions
        guards = {
            "drift score": self._tools.follower.guard,
            "watch": companions.watch_guard,
            "shadow drive": companions.shadow_guard,
            "offers": self._offering,
        }
        return {name: guard.trouble for name, guard in guards.items() if guard.trouble}

    def _drive_along(self, version: str) -> None:
        self._tools.companions.begin_shadow(version, self.version, self._expectations(version))

    def _expectations(self, version: str) -> Expectations | None:
        try:
            return self._tools.conductor.expectations(version)
        except (StoreError, WorkerError) as error:  # the watch can do without
            self._tools.log(str(error))
            return None

    def _promote(self, action: Promote) -> None:
        self.answer = "none"
        before = self.version
        if self._tools.conductor.promote(action.version, action.reason):
            self._use(action.version, str(self._tools.conductor.decision["words"]))
            if before != action.version:
                self._tools.companions.begin_watch(action.version, before, self._expectations(action.version))

    def _use(self, version: str, reason: str) -> None:
        self.version = version
        self.offer = None
        self._tools.companions.end_watch()
        self._tools.companions.end_shadow()
        self._tools.listener.on_promoted(version, reason)
        try:
            self._work_with(version)
        except SsadaError as error:  # it is current all the same; follow_registry tries again
            self._tools.log(str(error))
            self._tools.scorer.close()  # another version's answers are not this one's

    def _work_with(self, version: str) -> None:
        self._tools.scorer.use(version)
        self._tools.follower.use(version)

    def _heed_watch(self, now_s: float) -> None:
        """An alarm takes the promoted version back, asks about the frames that show it, and brings rest."""
        alarm, watch, settings = self._tools.companions.alarm, self._tools.companions.watch, self._tools.settings.watch
        if alarm is not None and watch is not None:
            reason = f"the watch took {watch.version} back: {alarm.words}"
            self._rest_until_s = now_s + settings.cooldown_s
            try:
                self._tools.registry.rollback(reason)
            except SsadaError as error:  # tried again with every step; everything else goes on
                self._tools.companions.watch_guard.say(f"{watch.version} cannot be taken back yet: {error}")
                return
            self._tools.log(reason)
            self._tools.companions.end_watch()
            self.follow_registry(reason)
            self._ask_about(alarm.frame_ids[: settings.ask], f"the watch took {watch.version} back here")
        shadow = self._tools.companions.shadow
        if shadow is not None and not self.paused:
            self._ask_about(shadow.take_differing(), f"{shadow.version} and {shadow.champion} differ most here")

    def _name_target(self) -> None:
        if self._tools.follower.entered == self._named:
            return
        self._named = self._tools.follower.entered
        try:
            self._tools.conductor.name_target(self._tools.pool)
        except StoreError as error:  # the round stays one of a road without a name
            self._tools.log(str(error))

    def _look_for_offer(self) -> None:
        """On a road that was met before, a registered version may fit better than the one in use."""
        tools = self._tools
        if tools.settings.drift.recurring == "off" or tools.follower.entered == self._entered:
            return
        self._entered = tools.follower.entered
        self.offer = self._offering.attempt(lambda: fitting(tools.registry, tools.follower.domain, self.version), None)
        if self.offer is not None:
            tools.log(self.offer.words())

    def take_offer(self) -> str:
        """Make the offered version the current one, which is watched like any other; returns it.

        Raises:
            ModelError: if it has gone, or a file of it is damaged.
            StoreError: if nothing is offered, or the disk refuses.
        """
        if self.offer is None:
            raise StoreError("no version is offered: promote one by name with 'ssada models promote'")
        offer, self.offer = self.offer, None
        words = f"a human took the offer: {offer.words()}"
        kept = self._tools.registry.manifest(offer.version).decision or {}
        self._tools.registry.promote(offer.version, {**kept, "verdict": "promote", "promoted_because": words})
        self.follow_registry(words)
        return offer.version

    def _ask_about(self, frame_ids: Sequence[int], reason: str) -> None:
        """Within the budget, ask about single frames, to train on."""
        cycle = self._tools.settings.cycle
        asked, waiting = self._tools.pool.count(states=ASKED_STATES), self._tools.pool.count(states=["queried"])
        room = max(0, min(cycle.budget - asked, cycle.max_open - waiting))
        choices = [Choice(frame_id, 1.0, audit=False, reason=reason) for frame_id in frame_ids[:room]]
        self._tell(self._tools.questions.ask_for(choices))

    def follow_registry(self, reason: str) -> None:
        """Take over a current version that did not come from here; what was built on the old one ends.

        Raises:
            ModelError: if there is no current version, or it could not be loaded before and still cannot.
            EngineError: likewise.
        """
        current = self._tools.registry.current_or_fail()
        if current == self.version:
            self._work_with(current)
            return
        phase = self._cycle.state.phase
        self._tools.companions.end_shadow()
        if phase in ("training", "suspended"):
            self._tools.conductor.rounds.stop()
            self._tools.conductor.overtake(f"{self.version} is not current any more, {current} is ({reason})")
        elif phase in ("judging", "shadowing", "waiting") and current != self.challenger:
            self._tools.conductor.overtake(
                f"it was judged against {self.version}, and {current} is current now ({reason})"
            )
        self.answer = "none"
        self._cycle.state = replace(self._cycle.state, phase="collecting")
        before = self.version
        self._use(current, reason)
        last = self._tools.registry.history()[-1:]
        if last and last[0]["action"] == "promote" and before in self._tools.registry.versions():
            self._tools.companions.begin_watch(current, before, self._expectations(current))

    def _watch_again(self) -> None:
        """Go on with the watch, or begin the one that a kill right after the promotion prevented."""
        tools, version = self._tools, self.version
        expectations = self._expectations(version)
        if tools.companions.resume_watch(version, expectations):
            return
        last = next(iter(tools.registry.history()[-1:]), {})
        before = last.get("previous")
        promoted = last.get("action") == "promote" and last.get("version") == version
        if promoted and before in tools.registry.versions():
            tools.companions.begin_watch(version, str(before), expectations)
