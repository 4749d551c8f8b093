from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ssada_core.adaptation.actions import (
    AskLabels,
    Judge,
    Promote,
    Refuse,
    ResumeRound,
    SetAside,
    StartRound,
    StopRound,
)
from ssada_core.adaptation.cycle import (
    Cycle,
    CycleSettings,
    CycleState,
    Facts,
    advance,
    obstacle,
    questions,
)
from ssada_core.errors import StoreError

SETTINGS = CycleSettings(
    budget=12,
    batch=6,
    max_open=6,
    min_frames=30,
    frames_between=20,
    new_labels=6,
    min_audit_labels=1,
    cooldown_s=10,
    retries=1,
)
READY = Facts(now_s=100, asked=6, labelled_train=4, labelled_audit=2)
AT = {phase: CycleState(phase, since_s=50.0) for phase in ("collecting", "training", "suspended", "judging", "waiting")}

TABLE = [
    # what, state, facts, next phase, actions
    ("too few frames", AT["collecting"], Facts(100, buffered_new=29), "collecting", []),
    ("first batch", AT["collecting"], Facts(100, buffered_new=30), "collecting", [AskLabels(6)]),
    ("second batch needs fewer", AT["collecting"], Facts(100, buffered_new=20, asked=6), "collecting", [AskLabels(6)]),
    ("batch is open", AT["collecting"], Facts(100, buffered_new=99, asked=6, open=1), "collecting", []),
    ("rest of the budget", AT["collecting"], Facts(100, buffered_new=99, asked=10), "collecting", [AskLabels(2)]),
    ("budget spent", AT["collecting"], Facts(100, buffered_new=99, asked=12), "collecting", []),
    ("over the budget", AT["collecting"], Facts(100, buffered_new=99, asked=15), "collecting", []),
    ("enough labels", AT["collecting"], replace(READY, labels_since_round=6), "training", [StartRound("6 new labels")]),
    ("too few labels", AT["collecting"], replace(READY, labels_since_round=5), "collecting", []),
    (
        "a round comes before the next batch",
        AT["collecting"],
        replace(READY, labels_since_round=6, buffered_new=99),
        "training",
        [StartRound("6 new labels")],
    ),
    (
        "last labels of the budget",
        AT["collecting"],
        replace(READY, asked=12, labels_since_round=2),
        "training",
        [StartRound("the budget is spent, 2 new labels")],
    ),
    ("some are open", AT["collecting"], replace(READY, asked=12, open=1, labels_since_round=2), "collecting", []),
    ("requested", AT["collecting"], replace(READY, adapt_requested=True), "training", [StartRound("requested")]),
    ("requested without labels", AT["collecting"], Facts(100, adapt_requested=True), "collecting", []),
    (
        "no audit label, and none will come",
        AT["collecting"],
        replace(READY, asked=12, labelled_audit=0, labels_since_round=6),
        "training",
        [StartRound("6 new labels")],
    ),
    (
        "no audit label",
        AT["collecting"],
        replace(READY, labelled_audit=0, labels_since_round=6),
        "collecting",
        [],
    ),
    (
        "cooldown",
        replace(AT["collecting"], ended_s=91.0),
        replace(READY, labels_since_round=6),
        "collecting",
        [],
    ),
    (
        "cooldown over",
        replace(AT["collecting"], ended_s=90.0),
        replace(READY, labels_since_round=6),
        "training",
        [StartRound("6 new labels")],
    ),
    (
        "a request does not wait",
        replace(AT["collecting"], ended_s=99.0),
        replace(READY, adapt_requested=True),
        "training",
        [StartRound("requested")],
    ),
    (
        "a stray worker",
        AT["collecting"],
        replace(READY, labels_since_round=6, training="running"),
        "collecting",
        [],
    ),
    ("at work", AT["training"], replace(READY, training="running"), "training", []),
    ("finished", AT["training"], replace(READY, training="finished"), "judging", [Judge()]),
    ("failed", AT["training"], replace(READY, training="failed"), "collecting", []),
    ("lost in a restart", AT["training"], READY, "training", [ResumeRound()]),
    ("pause", AT["training"], replace(READY, training="running", paused=True), "suspended", [StopRound("paused")]),
    ("paused, finished meanwhile", AT["training"], replace(READY, training="finished", paused=True), "training", []),
    ("still stopping", AT["suspended"], replace(READY, training="running", paused=True), "suspended", []),
    ("paused on", AT["suspended"], replace(READY, paused=True), "suspended", []),
    ("resumed", AT["suspended"], READY, "training", [ResumeRound()]),
    ("resumed while stopping", AT["suspended"], replace(READY, training="running"), "suspended", []),
    ("finished before the stop", AT["suspended"], replace(READY, training="finished"), "judging", [Judge()]),
    ("no verdict yet", AT["judging"], replace(READY, training="finished"), "judging", []),
    (
        "promoted",
        AT["judging"],
        replace(READY, outcome="promote", challenger="v2"),
        "collecting",
        [Promote("v2", "the gate promoted it")],
    ),
    (
        "refused",
        AT["judging"],
        replace(READY, outcome="refuse", challenger="v2"),
        "collecting",
        [Refuse("v2", "the gate refused it")],
    ),
    ("undecided", AT["judging"], replace(READY, outcome="undecided", challenger="v2"), "collecting", [SetAside("v2")]),
    ("for a human", AT["judging"], replace(READY, outcome="wait_for_human", challenger="v2"), "waiting", []),
    ("verdict in a pause", AT["judging"], replace(READY, outcome="promote", paused=True), "judging", []),
    ("no answer", AT["waiting"], replace(READY, labels_since_round=9, buffered_new=99), "waiting", []),
    (
        "confirmed",
        AT["waiting"],
        replace(READY, answer="confirm", challenger="v2"),
        "collecting",
        [Promote("v2", "a human confirmed it")],
    ),
    (
        "refused by a human",
        AT["waiting"],
        replace(READY, answer="refuse", challenger="v2"),
        "collecting",
        [Refuse("v2", "a human refused it")],
    ),
    ("an answer to nothing", AT["collecting"], replace(READY, answer="confirm", challenger="v2"), "collecting", []),
]


@pytest.mark.parametrize(("state", "facts", "phase", "actions"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_transitions(state, facts, phase, actions):
    after, done = advance(state, facts, SETTINGS)
    assert after.phase == phase
    assert done == actions


def test_a_period_starts_rounds_without_new_labels():
    cycle = Cycle(CycleSettings(period_s=60, cooldown_s=0, budget=6))
    assert cycle.step(replace(READY, now_s=10)) == []
    assert cycle.step(replace(READY, now_s=69)) == []
    assert cycle.step(replace(READY, now_s=70)) == [StartRound("60 s since the last round")]
    cycle.step(replace(READY, now_s=80, training="finished"))
    cycle.step(replace(READY, now_s=81, outcome="refuse", challenger="v2"))
    assert cycle.step(replace(READY, now_s=129)) == []
    assert cycle.step(replace(READY, now_s=130)) == [StartRound("60 s since the last round")]


def test_a_failed_round_is_tried_again_once_and_then_waits_for_labels():
    cycle = Cycle(SETTINGS)
    assert cycle.step(replace(READY, labels_since_round=6)) == [StartRound("6 new labels")]
    assert cycle.step(replace(READY, now_s=110, training="failed")) == []
    assert cycle.step(replace(READY, now_s=119)) == []
    assert cycle.step(replace(READY, now_s=120)) == [StartRound("the last round failed")]
    cycle.step(replace(READY, now_s=130, training="failed"))
    assert cycle.step(replace(READY, now_s=1000)) == []
    assert cycle.step(replace(READY, now_s=1001, labels_since_round=6)) == [StartRound("6 new labels")]


def test_a_second_look_that_could_not_start_is_tried_again_after_a_rest():
    facts = replace(READY, second_look="v2")
    state = CycleState("collecting", since_s=50.0, ended_s=95.0, failures=1)
    assert advance(state, facts, SETTINGS)[1] == []
    (again,) = advance(state, replace(facts, now_s=105.0), SETTINGS)[1]
    assert again.challenger == "v2"


def test_a_stored_state_survives_a_restart_and_judges_again():
    stored = json.loads(json.dumps(AT["judging"].to_dict()))
    state = CycleState.restored(stored)
    after, actions = advance(state, Facts(now_s=1.0, training="finished"), SETTINGS)
    assert (after.phase, actions) == ("judging", [Judge()])
    assert CycleState.restored(AT["waiting"].to_dict()).phase == "waiting"
    with pytest.raises(StoreError, match="phase 'asleep'"):
        CycleState.restored({"phase": "asleep"})


def test_why_no_round_can_start_is_said():
    assert obstacle(AT["collecting"], READY, SETTINGS) is None
    assert "paused" in obstacle(AT["collecting"], replace(READY, paused=True), SETTINGS)
    assert "v7 waits for a human" in obstacle(AT["waiting"], replace(READY, challenger="v7"), SETTINGS)
    assert "under way" in obstacle(AT["training"], READY, SETTINGS)
    assert "no frame is labelled" in obstacle(AT["collecting"], Facts(0), SETTINGS)
    assert "0 audit frames" in obstacle(AT["collecting"], replace(READY, labelled_audit=0), SETTINGS)


@given(
    st.integers(0, 40),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 50),
    st.integers(0, 12),
    st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_questions_stay_within_budget_open_bound_and_pool(budget, batch, max_open, asked, still_open, buffered):
    chosen = CycleSettings(budget=budget, batch=batch, max_open=max_open, min_frames=1, frames_between=1)
    count = questions(Facts(0, buffered_new=buffered, asked=asked, open=still_open), chosen)
    assert count >= 0
    if count:
        assert asked + count <= budget
        assert still_open + count <= max_open
        assert count <= min(batch, buffered)


class World(RuleBasedStateMachine):
    """A node with a pool, a worker and a human, in any order of events; the cycle drives it."""

    def __init__(self):
        super().__init__()
        self.cycle = Cycle(
            CycleSettings(
                budget=9,
                batch=4,
                max_open=5,
                min_frames=5,
                frames_between=3,
                new_labels=3,
                min_audit_labels=1,
                cooldown_s=5,
                period_s=500,
            )
        )
        self.facts = Facts(now_s=0.0)
        self.promoted: list[str] = []
        self.judged = 0
        self.rounds = 0

    def change(self, **values):
        self.facts = replace(self.facts, **values)
        for action in self.cycle.step(self.facts):
            self.perform(action)

    def perform(self, action):
        facts = self.facts
        assert not facts.paused or isinstance(action, StopRound)
        if isinstance(action, AskLabels):
            self.facts = replace(
                facts, asked=facts.asked + action.count, open=facts.open + action.count, buffered_new=0
            )
        elif isinstance(action, StartRound):
            assert facts.training != "running", "two rounds at once"
            assert facts.labelled_train
            assert facts.labelled_audit or (facts.asked == 9 and not facts.open), "nothing could judge it yet"
            self.rounds += 1
            name = f"v{self.rounds}"
            self.facts = replace(
                facts, training="running", labels_since_round=0, adapt_requested=False, challenger=name
            )
        elif isinstance(action, ResumeRound):
            assert facts.training == "idle", "two rounds at once"
            assert self.rounds
            self.facts = replace(facts, training="running")
        elif isinstance(action, StopRound):
            assert facts.training == "running"
        elif isinstance(action, Judge):
            assert facts.training == "finished"
            self.judged += 1
        else:
            if isinstance(action, Promote):
                assert facts.outcome == "promote" or facts.answer == "confirm"
                assert action.version not in self.promoted
                self.promoted.append(action.version)
            self.facts = replace(facts, outcome="none", answer="none")

    @rule(frames=st.integers(1, 6), seconds=st.floats(0, 20))
    def drive(self, frames, seconds):
        self.change(now_s=self.facts.now_s + seconds, buffered_new=self.facts.buffered_new + frames)

    @rule(audit=st.booleans())
    def label(self, audit):
        facts = self.facts
        if facts.open:
            kind = (
                {"labelled_audit": facts.labelled_audit + 1} if audit else {"labelled_train": facts.labelled_train + 1}
            )
            self.change(open=facts.open - 1, labels_since_round=facts.labels_since_round + 1, **kind)

    @rule()
    def skip(self):
        self.change(open=max(0, self.facts.open - 1))

    @rule(end=st.sampled_from(["finished", "failed"]))
    def worker_ends(self, end):
        if self.facts.training == "running":
            self.change(training=end)

    @rule()
    def worker_has_stopped(self):
        if self.facts.training == "running" and self.cycle.state.phase == "suspended":
            self.change(training="idle")

    @rule(outcome=st.sampled_from(["promote", "refuse", "undecided", "wait_for_human"]))
    def gate_decides(self, outcome):
        if self.cycle.state.phase == "judging":
            self.change(outcome=outcome)

    @rule(answer=st.sampled_from(["confirm", "refuse"]))
    def human_answers(self, answer):
        if self.cycle.state.phase == "waiting":
            self.change(answer=answer)

    @rule(paused=st.booleans())
    def pause(self, paused):
        self.change(paused=paused)

    @rule()
    def request(self):
        self.change(adapt_requested=True)

    @rule()
    def restart(self):
        # The node dies with its worker; facts that live on disk stay.
        self.cycle = Cycle(self.cycle.settings, CycleState.restored(json.loads(json.dumps(self.cycle.state.to_dict()))))
        self.change(now_s=0.0, training="idle" if self.facts.training == "running" else self.facts.training)

    @invariant()
    def the_budget_holds(self):
        assert self.facts.asked <= 9
        assert self.facts.open <= 5

    @invariant()
    def every_promotion_was_judged(self):
        assert len(self.promoted) <= self.judged

    @invariant()
    def a_worker_runs_only_in_its_phases(self):
        if self.facts.training == "running":
            assert self.cycle.state.phase in ("training", "suspended")


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_a_whole_drive_asks_trains_and_promotes():
    world = World()
    for _ in range(40):
        world.drive(3, 6.0)
        world.label(audit=world.facts.labelled_audit < 1)
        world.worker_ends("finished")
        world.gate_decides("promote")
    assert world.facts.asked == 9
    assert world.facts.labels_since_round == 0
    assert len(world.promoted) >= 3
