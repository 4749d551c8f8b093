"""How things stand, as the cycle wants to know it: counts of the pool, the round, the road, the companions."""

from __future__ import annotations

from ssada_core.adaptation.asking import ASKED_STATES, Questions
from ssada_core.adaptation.companions import Companions
from ssada_core.adaptation.conductor import Conductor
from ssada_core.adaptation.cycle import Answer, Facts, ShadowState
from ssada_core.adaptation.following import RoadFollower
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.store.pool import FramePool, State

ANSWERED: tuple[State, ...] = ("labelled", "skipped", "rejected")
"""Queries that nobody has to be waited for any more."""


def gather(
    settings: AdaptationSettings,
    pool: FramePool,
    questions: Questions,
    conductor: Conductor,
    follower: RoadFollower,
    companions: Companions,
    *,
    now_s: float,
    paused: bool,
    adapt_requested: bool,
    answer: Answer,
    resting: bool,
) -> Facts:
    """The facts of this moment; cheap enough to be asked twice a second.

    Raises:
        StoreError: if the pool cannot be read.
        WorkerError: if a killed worker cannot be started again.
    """
    cycle = settings.cycle
    drifted = follower.drifted and settings.drift.start_rounds
    road = follower.domain or None
    asked = pool.count(states=ASKED_STATES)
    labelled = pool.count(states=["labelled"])
    judging = pool.count(states=["labelled"], audit=True)
    most = max(cycle.min_frames, cycle.frames_between, cycle.batch)  # more than the cycle asks for costs time only
    return Facts(
        now_s=now_s,
        buffered_new=questions.count_new(at_most=most, domain=road if drifted else None),
        asked=asked,
        open=pool.count(states=["queried"]),
        labelled_train=labelled - judging,
        labelled_audit=pool.count(states=["labelled"], audit=True, flagged=False, domain=road),
        labels_since_round=new_labels(pool, conductor),
        training=conductor.training(),
        paused=paused,
        adapt_requested=adapt_requested,
        outcome=conductor.outcome,
        challenger=str(conductor.decision.get("version", "")),
        answer=answer,
        flagged=len(pool.unasked_clips()),
        audit_wanted=_audit_wanted(questions, conductor),
        second_look=_second_look(pool, conductor, all_asked=asked >= cycle.budget),
        drifted=drifted,
        resting=resting,
        shadow=_shadow(settings, companions),
        shadow_words=companions.shadow_alarm.words if companions.shadow_alarm else "",
    )


def new_labels(pool: FramePool, conductor: Conductor) -> int:
    """Labels that a round could start for: not those that an undecided verdict asked for, which judge its challenger.

    A round because of them would train on the same labels again, for another first look at much the same challenger.
    Other labels start one while the verdict still waits: there is something to learn, and answers may never come.

    Raises:
        StoreError: if the pool cannot be read.
    """
    asks = set(conductor.asks())
    judging = pool.frames(states=["labelled"], audit=True) if asks else []
    waited_for = sum(record.query_id in asks for record in judging)
    return max(0, pool.labels_accepted() - conductor.labels_used - waited_for)


def _audit_wanted(questions: Questions, conductor: Conductor) -> int:
    """Only as many as there are frames of that road to ask about, scored by the version in use."""
    wanted = conductor.audit_wanted()
    if not wanted:
        return 0
    target = str(conductor.decision.get("target", ""))
    return questions.count_audit(at_most=wanted, domain=target)


def _second_look(pool: FramePool, conductor: Conductor, *, all_asked: bool) -> str:
    if not conductor.asks():
        return ""
    answered = pool.frames(states=ANSWERED, audit=True)
    return conductor.second_look({str(record.query_id) for record in answered}, all_asked=all_asked)


def _shadow(settings: AdaptationSettings, companions: Companions) -> ShadowState:
    if not settings.shadow.required:
        return "off"
    if companions.shadow_alarm is not None:
        return "alarm"
    shadow = companions.shadow
    return "done" if shadow is not None and not shadow.missing() else "driving"
