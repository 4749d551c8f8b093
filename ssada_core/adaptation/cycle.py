"""What should happen next: a pure state machine over facts, without I/O and without a clock of its own.

The adaptation node gathers :class:`Facts`, calls :meth:`Cycle.step`, and carries every action out before it
gathers facts again. The state is a handful of plain values, so that a node that was killed goes on where it was.

    collecting ──StartRound──► training ──Judge──► judging ──Promote / Refuse / SetAside──► collecting
                                │    ▲                ├──StartShadow──► shadowing ──Promote / Refuse──► collecting
                       StopRound▼    │ResumeRound     └──► waiting ◄──────┘ └─Promote / Refuse──► collecting
                              suspended
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from pydantic import Field

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
from ssada_core.errors import StoreError
from ssada_core.settings import Settings

Phase = Literal["collecting", "training", "suspended", "judging", "shadowing", "waiting"]
PHASES: tuple[Phase, ...] = get_args(Phase)
Training = Literal["idle", "running", "finished", "failed"]
Answer = Literal["none", "confirm", "refuse"]
Outcome = Literal["none", "promote", "refuse", "undecided", "wait_for_human"]
ShadowState = Literal["off", "driving", "done", "alarm"]


class CycleSettings(Settings):
    """When to ask for labels and when to train."""

    budget: int = Field(
        48, ge=0, le=100_000, description="Frames a human may be asked to label, audit frames included."
    )
    batch: int = Field(8, ge=1, le=1000, description="Frames asked for at once.")
    max_open: int = Field(8, ge=1, le=1000, description="Unanswered queries at any time.")
    min_frames: int = Field(30, ge=1, description="Frames in the pool before the first query.")
    frames_between: int = Field(20, ge=1, description="New frames in the pool before each further batch.")
    new_labels: int = Field(8, ge=1, description="Labels since the last round that start one.")
    min_audit_labels: int = Field(
        -1,
        ge=-1,
        description="Audit labels without which no round starts, because nothing could judge it; "
        "-1: as many as the gate asks for.",
    )
    period_s: float = Field(0.0, ge=0, description="Seconds after which a round starts without new labels; 0 is never.")
    cooldown_s: float = Field(10.0, ge=0, description="Seconds of rest after a round; a request does not wait for it.")
    retries: int = Field(1, ge=0, le=10, description="How often a failed round is started again by itself.")


@dataclass(frozen=True)
class Facts:
    """How things stand, as the node sees them.

    Attributes:
        now_s: seconds on a clock that does not go back while the node runs.
        buffered_new: frames stored in the pool since the last batch of queries, that could be asked for.
        asked: queries asked so far, answered or not.
        open: queries without an answer.
        labelled_train: labels that are trained on.
        labelled_audit: labels that only judge.
        labels_since_round: labels accepted since the last round was started, without those of a second look.
        training: the worker of the newest round; ``idle`` where there was none or it was stopped. ``finished`` and
            ``failed`` may stay as they are until the next round starts.
        paused: by service, heat or latency.
        adapt_requested: a human asked for a round.
        outcome: the gate's verdict on the finished round; ``none`` until there is one.
        challenger: the version it is about.
        answer: what the human said to a challenger that waits.
        flagged: moments that a driver flagged and nobody was asked about yet.
        audit_wanted: audit frames that an undecided verdict needs and that were not asked for yet.
        second_look: the undecided version whose frames are answered now; empty if there is none.
        drifted: the road is one that the model was not made for, and that starts rounds.
        resting: the cool-down after an alarm of the watch.
        shadow: the shadow drive of the challenger; ``off`` where none is required.
        shadow_words: what its alarm said.
    """

    now_s: float
    buffered_new: int = 0
    asked: int = 0
    open: int = 0
    labelled_train: int = 0
    labelled_audit: int = 0
    labels_since_round: int = 0
    training: Training = "idle"
    paused: bool = False
    adapt_requested: bool = False
    outcome: Outcome = "none"
    challenger: str = ""
    answer: Answer = "none"
    flagged: int = 0
    audit_wanted: int = 0
    second_look: str = ""
    drifted: bool = False
    resting: bool = False
    shadow: ShadowState = "off"
    shadow_words: str = ""


@dataclass(frozen=True)
class CycleState:
    """All that the machine remembers.

    Attributes:
        phase: where in the cycle it is.
        since_s: when the last round was started, or the machine; None before the first step.
        ended_s: when the last round ended; None before that.
        failures: failed rounds in a row.
    """

    phase: Phase = "collecting"
    since_s: float | None = None
    ended_s: float | None = None
    failures: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> CycleState:
        """After a restart of the node: times are forgotten (another clock), a verdict under way is asked again.

        Raises:
            StoreError: if ``values`` is not what :meth:`to_dict` gave.
        """
        phase = values.get("phase")
        if phase not in PHASES:
            raise StoreError(f"stored cycle state has phase {phase!r}: delete the file to start with 'collecting'")
        return cls(phase="training" if phase == "judging" else phase, failures=int(values.get("failures", 0)))


class Cycle:
    """Holds the state between steps; everything else is in pure functions."""

    def __init__(self, settings: CycleSettings, state: CycleState | None = None) -> None:
        self.settings = settings
        self.state = state or CycleState()

    def step(self, facts: Facts) -> list[Action]:
        """What is to be done now, in order; often nothing."""
        self.state, actions = advance(self.state, facts, self.settings)
        return actions


def advance(state: CycleState, facts: Facts, settings: CycleSettings) -> tuple[CycleState, list[Action]]:
    """One step. While paused the only action is to stop a running round."""
    if state.since_s is None or facts.now_s < state.since_s:
        state = replace(state, since_s=facts.now_s)
    if facts.paused:
        return _pause(state, facts)
    if state.phase == "collecting":
        return _collect(state, facts, settings)
    if state.phase == "judging":
        return _conclude(state, facts)
    if state.phase == "shadowing":
        return _drive_along(state, facts)
    if state.phase == "waiting":
        return _hear(state, facts)
    return _train(state, facts)


_UNSETTLED: dict[Phase, str] = {
    "waiting": "waits for a human: confirm or refuse it first",
    "shadowing": "is on its shadow drive: wait for its end",
}


def obstacle(state: CycleState, facts: Facts, settings: CycleSettings) -> str | None:
    """Why no round can be started now, even if a human asks for it; None if one can."""
    if facts.paused:
        return "adaptation is paused: resume it first"
    if state.phase in _UNSETTLED:
        return f"version {facts.challenger} {_UNSETTLED[state.phase]}"
    if state.phase != "collecting" or facts.training == "running":
        return "a round is under way"
    if facts.labelled_train < 1:
        return "no frame is labelled for training yet: answer a query first"
    if facts.labelled_audit < settings.min_audit_labels and not _budget_is_spent(facts, settings):
        return (
            f"{facts.labelled_audit} audit frames are labelled, {settings.min_audit_labels} are the least "
            "that can judge a round: answer more queries"
        )
    return None


def _budget_is_spent(facts: Facts, settings: CycleSettings) -> bool:
    """No more labels will come: better a round that the gate calls undecided, in words, than to wait for ever."""
    return facts.asked >= settings.budget and not facts.open


def questions(facts: Facts, settings: CycleSettings) -> int:
    """How many frames to ask for now: a whole batch or what is left of the budget, or none."""
    count = min(settings.batch, settings.max_open, settings.budget - facts.asked)
    needed = settings.frames_between if facts.asked else settings.min_frames
    if count < 1 or facts.open + count > settings.max_open or facts.buffered_new < max(needed, count):
        return 0
    return count


def _pause(state: CycleState, facts: Facts) -> tuple[CycleState, list[Action]]:
    if state.phase == "training" and facts.training == "running":
        return replace(state, phase="suspended"), [StopRound("paused")]
    return state, []


def _collect(state: CycleState, facts: Facts, settings: CycleSettings) -> tuple[CycleState, list[Action]]:
    if facts.flagged and facts.open < settings.max_open:
        return state, [AskFlagged()]
    if facts.second_look and not facts.adapt_requested and not _rests(state, facts, settings):
        start = StartRound("the frames it asked for are labelled", facts.second_look)
        return replace(state, phase="training", since_s=facts.now_s), [start]
    reason = _reason(state, facts, settings) if obstacle(state, facts, settings) is None else None
    if reason is not None:
        return replace(state, phase="training", since_s=facts.now_s), [StartRound(reason)]
    audit = min(facts.audit_wanted, settings.max_open - facts.open, settings.budget - facts.asked)
    if audit > 0:
        return state, [AskAudit(audit)]
    count = questions(facts, settings)
    return state, [AskLabels(count)] if count else []


def _reason(state: CycleState, facts: Facts, settings: CycleSettings) -> str | None:
    """Why a round should start, or None."""
    if facts.adapt_requested:
        return "requested"
    if _rests(state, facts, settings):
        return None
    if 0 < state.failures <= settings.retries:
        return "the last round failed"
    since = facts.now_s if state.since_s is None else state.since_s
    if settings.period_s and facts.now_s - since >= settings.period_s:
        return f"{settings.period_s:g} s since the last round"
    return _label_reason(facts, settings)


def _rests(state: CycleState, facts: Facts, settings: CycleSettings) -> bool:
    ended = state.ended_s is not None and 0 <= facts.now_s - state.ended_s < settings.cooldown_s
    return facts.resting or ended


def _label_reason(facts: Facts, settings: CycleSettings) -> str | None:
    if facts.labels_since_round >= settings.new_labels:
        return f"{facts.labels_since_round} new labels"
    half = max(1, min(settings.batch, settings.max_open, settings.new_labels) // 2)
    if facts.drifted and facts.labels_since_round >= half and not facts.open:
        return f"the road changed, {facts.labels_since_round} new labels"
    # The last labels of a budget are seldom a full batch.
    if facts.labels_since_round and _budget_is_spent(facts, settings):
        return f"the budget is spent, {facts.labels_since_round} new labels"
    return None


def _train(state: CycleState, facts: Facts) -> tuple[CycleState, list[Action]]:
    """Training or suspended, and not paused."""
    if facts.training == "finished":
        return replace(state, phase="judging"), [Judge()]
    if facts.training == "failed":
        return replace(state, phase="collecting", ended_s=facts.now_s, failures=state.failures + 1), []
    if facts.training == "idle":
        return replace(state, phase="training"), [ResumeRound()]
    return state, []  # at work, or still writing the checkpoint of a stop


def _conclude(state: CycleState, facts: Facts) -> tuple[CycleState, list[Action]]:
    ended = replace(state, phase="collecting", ended_s=facts.now_s, failures=0)
    if facts.outcome in ("promote", "wait_for_human") and facts.shadow != "off":
        return replace(state, phase="shadowing"), [StartShadow(facts.challenger)]
    if facts.outcome == "promote":
        return ended, [Promote(facts.challenger, "the gate promoted it")]
    if facts.outcome == "refuse":
        return ended, [Refuse(facts.challenger, "the gate refused it")]
    if facts.outcome == "undecided":
        return ended, [SetAside(facts.challenger)]
    if facts.outcome == "wait_for_human":
        return replace(state, phase="waiting"), []
    return state, []


def _drive_along(state: CycleState, facts: Facts) -> tuple[CycleState, list[Action]]:
    """Until the challenger has seen enough of the road, or behaves otherwise than before the gate."""
    ended = replace(state, phase="collecting", ended_s=facts.now_s, failures=0)
    if facts.shadow == "alarm":
        return ended, [Refuse(facts.challenger, f"its shadow drive raised an alarm: {facts.shadow_words}")]
    if facts.shadow == "driving":
        return state, []
    if facts.outcome == "wait_for_human":
        return replace(state, phase="waiting"), []
    return ended, [Promote(facts.challenger, "the gate promoted it, and its shadow drive was quiet")]


def _hear(state: CycleState, facts: Facts) -> tuple[CycleState, list[Action]]:
    ended = replace(state, phase="collecting", ended_s=facts.now_s, failures=0)
    if facts.answer == "confirm":
        return ended, [Promote(facts.challenger, "a human confirmed it")]
    if facts.answer == "refuse":
        return ended, [Refuse(facts.challenger, "a human refused it")]
    return state, []
