"""Conducts the rounds: starts and judges them, promotes what passed, and remembers across restarts where it was.

Three places on the disk must agree after a kill at any instant: the newest round's folder, ``cycle.json`` (the
phase), and the registry's current version. They are written in that order, and :meth:`Conductor.recall` reads the
truth from the first: a round without a decision is unfinished, whatever the phase says; a decision that was not
carried out yet is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssada_core.adaptation.case_bars import CaseBars
from ssada_core.adaptation.cycle import CycleState, Outcome, Training
from ssada_core.adaptation.expectations import Expectations
from ssada_core.adaptation.round import RoundSpec
from ssada_core.adaptation.round_data import name_of_unnamed
from ssada_core.adaptation.rounds import Rounds
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.errors import StoreError, WorkerError
from ssada_core.labels import LabelSpace
from ssada_core.store.files import make_directory, read_json, write_json
from ssada_core.store.pool import FramePool
from ssada_core.store.pool_reader import PoolReader
from ssada_core.store.registry import ModelRegistry

STATE_FILE = "cycle.json"
MOST_ASKED = 16
"""Audit frames that are asked for to decide on one version; a gain that needs more of them is not worth them."""
FAILED = "failed"
"""Verdict of a round that came to no measurement."""


class Conductor:
    """The rounds of one vehicle, with what was decided on the newest.

    Attributes:
        outcome: verdict of a judged round that was not carried out yet.
        decision: on the newest round, in figures and words; empty while it is under way, and before the first.
        failure: why the newest round failed, in one line; empty if it did not.
        labels_used: labels of the pool that the newest round used up; see :meth:`count_from`.
    """

    def __init__(self, settings: AdaptationSettings, registry: ModelRegistry, log: Callable[[str], None]) -> None:
        """Find the rounds of earlier runs.

        Raises:
            StoreError: if the folder of the rounds cannot be used.
        """
        self._settings = settings
        self._registry = registry
        self._log = log
        self._root = Path(settings.rounds_dir)
        make_directory(self._root)
        self._bars = CaseBars(self._root)
        self.rounds = Rounds(
            self._root, restarts=settings.worker_restarts, hung_after_s=settings.worker_hung_after_s, log=log
        )
        self.labels_used, self._pool_id = 0, ""
        self.outcome: Outcome = "none"
        self.decision = self.rounds.decision()
        self.failure = str(self.decision.get("words", "")) if self.decision.get("verdict") == FAILED else ""
        self._remembered = CycleState()

    def count_from(self, pool: FramePool) -> None:
        """Take the labels of this pool for new that the newest round did not use up: all of another pool's.

        Of an older copy of the pool, or one that was purged, every further label is new.

        Raises:
            StoreError: if the pool cannot be read.
        """
        self._pool_id = pool.pool_id
        self.labels_used = min(self.rounds.labels(pool.pool_id), pool.labels_accepted())

    # -- where an earlier run stopped --------------------------------------------------------------

    def recall(self) -> CycleState:
        """The state to go on from.

        Raises:
            StoreError: if what was stored cannot be read, or is something else.
        """
        values = self._stored()
        stored = CycleState.restored(values)
        idle = CycleState(failures=stored.failures)
        if self.rounds.unfinished() is not None:
            return idle if self._end_overtaken() else CycleState("training", failures=stored.failures)
        if values["phase"] == "collecting" or self.decision.get("version") == self._registry.current():
            return idle  # carried out already, or never begun
        verdict = self.decision.get("verdict")
        if verdict == FAILED:
            return CycleState(failures=stored.failures + 1)
        if values["phase"] == "waiting":
            return CycleState("waiting") if verdict == "wait_for_human" else idle
        if verdict not in ("promote", "refuse", "undecided", "wait_for_human"):
            return idle
        self.outcome = verdict
        return CycleState("shadowing" if values["phase"] == "shadowing" else "judging")

    def _end_overtaken(self) -> bool:
        """End the unfinished round if its champion is not current any more; whether it did."""
        try:
            spec = self.rounds.spec()
        except WorkerError:  # it fails with that reason once it is resumed
            return False
        current = self._registry.current()
        if spec is None or spec.champion == current:
            return False
        self.overtake(f"it was started from {spec.champion}, and {current} is current now")
        return True

    def remember(self, state: CycleState) -> None:
        """Store the phase if it has changed.

        Raises:
            StoreError: if the disk refuses; the next call tries again.
        """
        kept = self._remembered
        if (state.phase, state.failures) != (kept.phase, kept.failures):
            write_json(self._root / STATE_FILE, state.to_dict())
            self._remembered = state

    def _stored(self) -> Mapping[str, Any]:
        path = self._root / STATE_FILE
        values = read_json(path) if path.exists() else CycleState().to_dict()
        if not isinstance(values, dict):
            raise StoreError(f"{path} is no stored cycle state: delete it to start with 'collecting'")
        self._remembered = CycleState.restored(values)
        return values

    # -- the life of a round -------------------------------------------------------------------------

    def training(self) -> Training:
        """How the worker stands, as the cycle wants to know it."""
        state = self.rounds.poll()
        return "idle" if state is None or state == "stopped" else state

    def start(self, reason: str, *, labels: int, target: str = "", challenger: str = "") -> None:
        """Start a round from the current version with the pool's labels.

        Args:
            reason: why.
            labels: that it uses up; later ones are new.
            target: the road to adapt to.
            challenger: an undecided version that is only measured again, on more frames.

        Raises:
            WorkerError: if the worker cannot be started.
            StoreError: if the disk refuses.
        """
        settings = self._settings
        champion = self._registry.current_or_fail()
        spec = RoundSpec(
            pool_dir=str(Path(settings.pool_dir).resolve()),
            pool=self._pool_id,
            registry_dir=str(Path(settings.registry_dir).resolve()),
            champion=champion,
            first=self._registry.first() or champion,
            source_pack=str(Path(settings.source_pack).resolve()) if settings.source_pack else "",
            reason=reason,
            target=target,
            challenger=challenger,
            labels=labels,
            low_priority=settings.low_priority,
            registry=settings.registry,
            training=settings.training,
            engine=settings.engine,
        )
        free = "" if settings.source_pack else ", without a source pack: the gate holds to the first model's answers"
        what = f"{challenger} is measured again" if challenger else f"training starts from {champion}"
        self._log(f"{what}: {reason}{free}")
        self.failure = ""
        if not challenger:  # one that cannot even begin is not tried again for the same labels
            self.labels_used = labels
        try:
            self.rounds.start(spec)
        finally:
            if self.rounds.unfinished() is not None:  # what was decided before is of another round
                self.decision, self.labels_used = {}, labels

    def resume(self) -> bool:
        """Go on with the unfinished round; False if there is none.

        Raises:
            WorkerError: if the worker cannot be started.
        """
        run_dir = self.rounds.unfinished()
        if run_dir is not None:
            self.rounds.stop()  # forgets a worker that has stopped already
            self.rounds.resume(run_dir)
        return run_dir is not None

    def judge(self, label_space: LabelSpace) -> None:
        """Let the gate decide on the finished round, and keep the decision.

        Raises:
            WorkerError: if the round left nothing that can be read.
            StoreError: likewise, or if the disk refuses.
        """
        result, decision = self.rounds.judge(self._settings.gate, label_space, self._bars)
        figures = {"version": result.challenger, "champion": result.champion, **decision.model_dump(mode="json")}
        self._keep({**figures, "round": result.model_dump(mode="json")})
        self.outcome = decision.verdict
        if decision.verdict != "promote":
            self._registry.record(result.challenger, self.decision)
        self._log(f"gate on {result.challenger}: {decision.verdict}: {decision.words}")

    def promote(self, version: str, reason: str) -> bool:
        """Make a judged version the current one; False if its champion is not the current version any more.

        Raises:
            ModelError: if a file of it is damaged.
            StoreError: if the disk refuses.
        """
        self.outcome = "none"
        current, champion = self._registry.current_or_fail(), self.decision["champion"]
        if current == version:  # killed between the promotion and the note of it
            return True
        if current != champion:
            self.overtake(f"it was judged against {champion}, and {current} is current now")
            return False
        self._registry.promote(version, {**self.decision, "promoted_because": reason})
        labels = self.decision.get("round", {}).get("case_labels", {})
        self._bars.lift(self.decision.get("cases", {}), labels)
        return True

    def expectations(self, version: str) -> Expectations | None:
        """How ``version`` answered beside its champion when it was measured; None where nobody measured it.

        Raises:
            StoreError: if that cannot be read.
            WorkerError: if it is something else.
        """
        run_dir = self.rounds.run_dir
        found = Expectations.load(run_dir) if run_dir is not None else None
        if found is None or found.candidate != version:
            return None
        return found.named(str(self.decision.get("target", "")))

    def name_target(self, pool: PoolReader) -> None:
        """A round that was started before its road had a name is one of that road, once it has one.

        Raises:
            StoreError: if the round or the pool cannot be read, or the disk refuses.
        """
        run_dir = self.rounds.run_dir
        if run_dir is None or self.rounds.unfinished() is not None or self.decision.get("target") != "":
            return
        name = name_of_unnamed(pool, run_dir)
        if name:
            self._keep({**self.decision, "target": name})

    def audit_wanted(self) -> int:
        """Audit frames that an undecided verdict needs and that were not asked for yet; none once it is out of date."""
        needed = int(self.decision.get("frames_needed", 0))
        if needed > MOST_ASKED or not self._may_look_again():
            return 0
        return max(0, needed - len(self.decision.get("asks", [])))

    def asks(self) -> list[str]:
        """Query ids of the frames that an undecided verdict asked for; none once it is out of date."""
        return list(self.decision.get("asks", [])) if self._may_look_again() else []

    def asked(self, query_ids: Sequence[str]) -> None:
        """Note with the undecided verdict which frames it waits for.

        Raises:
            StoreError: if the disk refuses.
        """
        self._keep({**self.decision, "asks": [*self.decision.get("asks", []), *query_ids]})

    def second_look(self, answered: Collection[str], *, all_asked: bool) -> str:
        """The undecided version whose frames are all answered, so that it can be judged once more; empty if none is.

        Args:
            answered: query ids that nobody has to be waited for any more.
            all_asked: the budget allows no further frame, needed or not.
        """
        asks = self.asks()
        ready = asks and set(asks) <= set(answered) and (all_asked or not self.audit_wanted())
        return str(self.decision["version"]) if ready else ""

    def _may_look_again(self) -> bool:
        """Whether the newest verdict is an undecided one on the model in use, and the first on its challenger."""
        decision = self.decision
        # Looking again and again until chance promotes would be no test any more: one second look.
        first = bool(decision.get("round", {}).get("iterations", 0))  # for a second one nothing is trained
        if decision.get("verdict") != "undecided" or not first:
            return False
        same = decision.get("champion") == self._registry.current()
        return same and decision.get("version") in self._registry.versions()

    def set_aside(self, version: str, reason: str) -> None:
        """Keep the champion; the decision stays as it is."""
        self.outcome = "none"
        self._log(f"{version} is not promoted ({reason}): {self.decision['words']}")

    def overtake(self, why: str) -> None:
        """The newest round's challenger was not promoted yet, and must not be any more.

        Raises:
            StoreError: if the disk refuses.
        """
        self.outcome = "none"
        words = f"Set aside: {why}; start a new round with 'adapt'."
        self._keep({**self.decision, "verdict": "refuse", "words": words})
        self._log(f"{self.decision.get('version', 'the challenger')}: {words}")

    def fail(self, why: str, *, begun: bool = True) -> None:
        """Close the newest round as failed; nothing of it is promoted. One that never began leaves nothing to close."""
        self.outcome = "none"
        self.failure = why
        self._log(f"training round failed: {why}")
        if not begun:
            return
        decision = {"verdict": FAILED, "words": why}
        try:
            self._keep(decision)
        except StoreError as error:  # likely the very reason; after a restart the round is tried again
            self.decision = decision
            self._log(str(error))

    def _keep(self, decision: dict[str, Any]) -> None:
        self.rounds.close(decision)
        self.decision = decision
