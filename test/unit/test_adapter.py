"""The adaptation without ROS, over real stores: what a human, a kill or another process does to it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil
import pytest
from adaptation_fixtures import (
    DRIVE,
    SECOND,
    adaptation_settings,
    fill_pool,
    make_registry,
    measurements,
    open_pool,
    round_spec,
    wait_until,
)

from ssada_core.adaptation.adapter import Adapter
from ssada_core.adaptation.conductor import STATE_FILE
from ssada_core.adaptation.cycle import CycleState
from ssada_core.adaptation.gate import GateSettings
from ssada_core.adaptation.round import (
    DECISION_FILE,
    MEASUREMENTS_FILE,
    RESULT_FILE,
    ROUND_FILE,
    RoundResult,
    write_round,
)
from ssada_core.errors import EngineError, ModelError, StoreError
from ssada_core.store.files import read_json, write_json
from ssada_core.store.manifest import WEIGHTS_FILE
from ssada_core.store.pool import Choice


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self):
        self.queries, self.labels, self.promoted = [], [], []

    def on_queries(self, records):
        self.queries += records

    def on_label(self, result):
        self.labels.append(result)

    def on_promoted(self, version, reason):
        self.promoted.append(version)


class Vehicle:
    """Stores on disk, and an adapter that can be restarted."""

    def __init__(self, root: Path, **changes):
        self.root = root
        self.settings = adaptation_settings(root, **changes)
        self.heard = Heard()
        self.said: list[str] = []
        self.now_s = 0.0
        self.adapter: Adapter | None = None

    def start(self) -> Adapter:
        self.stop()
        self.adapter = Adapter(self.settings, self.heard, self.said.append)
        return self.adapter

    def stop(self) -> None:
        if self.adapter is not None:
            self.adapter.close()
        self.adapter = None

    def step(self) -> dict:
        self.now_s += 1.0
        self.adapter.tick(self.now_s)
        return self.adapter.status()

    def finished_round(self, *, shares=(0.6, 0.9, 0.6), champion="v0001", challenger="v0002") -> Path:
        """What a worker leaves that has done its work."""
        run_dir = self.root / "rounds" / "round-0001"
        write_round(run_dir, round_spec(self.root, champion=champion, labels=6))
        measurements(shares).save(run_dir / MEASUREMENTS_FILE)
        result = RoundResult(
            challenger=challenger, champion=champion, iterations=6, seconds=1.0, labelled=4, audit=2, unlabelled=6,
            source=0, losses={"loss": 1.0}, class_weights=[1.0] * 11,
        )  # fmt: skip
        write_json(run_dir / RESULT_FILE, result.model_dump(mode="json"))
        return run_dir

    def decided_round(self, verdict: str, phase: str, *, champion="v0001") -> None:
        """The node went down after the gate's decision, before it was carried out."""
        run_dir = self.finished_round(champion=champion)
        decision = {"version": "v0002", "champion": champion, "verdict": verdict, "words": "because"}
        write_json(run_dir / DECISION_FILE, decision)
        write_json(self.root / "rounds" / STATE_FILE, CycleState(phase).to_dict())


@pytest.fixture
def vehicle(tmp_path):
    make_registry(tmp_path / "registry", versions=2)
    made = Vehicle(tmp_path)
    yield made
    made.stop()


def test_a_registry_without_a_current_model_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="no current model: promote"):
        Vehicle(tmp_path).start()


def test_an_adapter_that_cannot_be_made_leaves_nothing_open(tmp_path):
    make_registry(tmp_path / "registry")
    (tmp_path / "rounds").write_text("a file where the rounds' folder should be")
    with pytest.raises(StoreError):
        Vehicle(tmp_path).start()
    still_open = [file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]
    assert still_open == []


def test_frames_become_queries_and_answers_labels(vehicle):
    adapter = vehicle.start()
    for index in range(8):
        image = DRIVE.frame(index, "night")[0]
        assert adapter.offer(image, jpeg=None, camera="front", stamp_ns=index * SECOND).reason == "stored"
    for _ in range(12):
        vehicle.step()
    assert len(vehicle.heard.queries) == 6
    assert sum(record.audit for record in vehicle.heard.queries) == 1
    for record in vehicle.heard.queries[:5]:
        assert adapter.pool.prediction(record) is not None
        _, label = DRIVE.frame(record.stamp_ns // SECOND, "night")
        assert adapter.submit(record.query_id, label, "test").status == "accepted"
    status = vehicle.step()
    assert (status["asked"], status["labels"], status["phase"]) == (6, 5, "collecting")
    assert adapter.open_queries() == [adapter.pool.by_query(vehicle.heard.queries[5].query_id)]

    assert adapter.pause(True) == "paused"
    assert adapter.offer(image, jpeg=None, camera="front", stamp_ns=99 * SECOND) is None
    assert adapter.adapt(vehicle.now_s) == (False, "adaptation is paused: resume it first")


def test_a_labels_folder_that_is_away_stops_no_scoring(tmp_path):
    make_registry(tmp_path / "registry", versions=2)
    vehicle = Vehicle(tmp_path, queries_dir=str(tmp_path / "queries"), labels_dir=str(tmp_path / "stick" / "labels"))
    adapter = vehicle.start()
    try:
        shutil.rmtree(tmp_path / "stick")
        for index in range(3):
            image = DRIVE.frame(index, "night")[0]
            adapter.offer(image, jpeg=None, camera="front", stamp_ns=index * SECOND)
            with pytest.raises(StoreError, match=r"cannot read .*labels"):
                vehicle.step()
        assert [record.model_version for record in adapter.pool.frames()] == ["v0001"] * 3
    finally:
        vehicle.stop()


def test_an_unfinished_round_goes_on_whatever_the_phase_file_says(vehicle):
    fill_pool(vehicle.root / "pool")
    vehicle.finished_round()
    adapter = vehicle.start()
    assert adapter.status()["phase"] == "training"
    wait_until(lambda: vehicle.step()["phase"] == "collecting" and vehicle.heard.promoted, "the promotion", pause=0.05)
    assert adapter.registry.current() == "v0002"
    assert adapter.status()["decision"]["verdict"] == "promote"
    assert adapter.registry.manifest("v0002").decision["champion"] == "v0001"
    assert read_json(vehicle.root / "rounds" / STATE_FILE)["phase"] == "collecting"


def add_a_foreign_key(run_dir):
    path = run_dir / ROUND_FILE
    path.write_text(path.read_text() + "key_of_another_release: 3\n")


def test_a_decided_round_of_another_release_is_no_obstacle(vehicle):
    fill_pool(vehicle.root / "pool")
    vehicle.decided_round("refuse", "collecting")
    add_a_foreign_key(vehicle.root / "rounds" / "round-0001")
    adapter = vehicle.start()
    assert vehicle.step()["phase"] == "collecting"
    assert adapter._conductor.labels_used == 6


def test_no_label_of_a_new_pool_was_used_up_by_the_round_before(vehicle):
    """With as many labels used up as the budget allows, rounds of a new pool never started by themselves."""
    vehicle.decided_round("refuse", "collecting")
    run_dir = vehicle.root / "rounds" / "round-0001"
    fill_pool(vehicle.root / "pool")
    adapter = vehicle.start()
    assert adapter._work.facts(0.0).labels_since_round == 0, "a round that names no pool was of this one"
    write_round(run_dir, round_spec(vehicle.root, labels=6, pool=adapter.pool.pool_id))
    assert vehicle.start()._work.facts(0.0).labels_since_round == 0
    write_round(run_dir, round_spec(vehicle.root, labels=6, pool="another"))
    adapter = vehicle.start()
    assert adapter._work.facts(0.0).labels_since_round == 6
    assert vehicle.step()["phase"] == "training"
    assert adapter._conductor.rounds.spec().pool == adapter.pool.pool_id


def test_further_labels_of_an_older_copy_of_the_pool_are_new(vehicle):
    vehicle.decided_round("refuse", "collecting")
    fill_pool(vehicle.root / "pool", labelled=2, audit=1)
    pool = vehicle.start().pool
    (asked,) = pool.query([Choice(pool.frames(states=["buffered"])[0].id, 1.0, False, "")])
    pool.accept_label(str(asked.query_id), DRIVE.frame(9, "night")[1], "test")
    assert vehicle.adapter._work.facts(0.0).labels_since_round == 1


def test_an_unfinished_round_of_another_release_fails_alone(vehicle):
    add_a_foreign_key(vehicle.finished_round())
    vehicle.start()
    status = vehicle.step()
    assert "unknown key 'key_of_another_release'" in status["failure"]
    assert (status["phase"], vehicle.adapter.status()["decision"]["verdict"]) == ("collecting", "failed")


@pytest.mark.parametrize("phase", ["training", "judging"])
def test_a_decision_that_was_not_carried_out_is_after_a_restart(vehicle, phase):
    vehicle.decided_round("promote", phase)
    adapter = vehicle.start()
    vehicle.step()
    assert vehicle.heard.promoted == ["v0002"]
    assert adapter.registry.current() == "v0002"
    vehicle.start()  # killed after the promotion, before it was noted
    write_json(vehicle.root / "rounds" / STATE_FILE, CycleState(phase).to_dict())
    vehicle.start()
    assert vehicle.step()["phase"] == "collecting"
    assert len(adapter.registry.history()) == 2, "the first version and one promotion"


@pytest.mark.parametrize("verdict", ["refuse", "undecided", "failed"])
def test_what_did_not_pass_stays_behind_after_a_restart(vehicle, verdict):
    vehicle.decided_round(verdict, "judging")
    adapter = vehicle.start()
    assert vehicle.step()["phase"] == "collecting"
    assert adapter.registry.current() == "v0001"
    assert adapter.status()["failure"] == ("because" if verdict == "failed" else "")


def test_a_challenger_waits_for_a_human_across_restarts(vehicle):
    vehicle.settings = adaptation_settings(vehicle.root, gate=GateSettings(policy="manual"))
    fill_pool(vehicle.root / "pool")
    vehicle.finished_round()
    vehicle.start()
    wait_until(lambda: vehicle.step()["phase"] == "waiting", "the gate", pause=0.05)
    assert vehicle.adapter.registry.current() == "v0001"

    adapter = vehicle.start()
    assert vehicle.step()["phase"] == "waiting"
    assert "v0002 waits for a human" in adapter.adapt(vehicle.now_s)[1]
    assert adapter.answer("confirm") == (True, "confirm: v0002")
    assert vehicle.step()["phase"] == "collecting"
    assert vehicle.heard.promoted == ["v0002"]
    assert adapter.registry.current() == "v0002"
    assert adapter.registry.manifest("v0002").decision["promoted_because"] == "a human confirmed it"
    assert adapter.answer("confirm") == (False, "no version waits for a human")

    assert adapter.rollback("it was worse") == "v0001"
    assert vehicle.heard.promoted == ["v0002", "v0001"]
    with pytest.raises(StoreError, match="nothing to roll back to"):
        adapter.rollback("again")


def test_a_human_may_refuse(vehicle):
    vehicle.decided_round("wait_for_human", "waiting")
    adapter = vehicle.start()
    adapter.answer("refuse")
    assert vehicle.step()["phase"] == "collecting"
    assert adapter.registry.current() == "v0001"
    assert vehicle.heard.promoted == []
    assert vehicle.said[-1] == "v0002 is not promoted (a human refused it): because"
    vehicle.start()
    assert vehicle.step()["phase"] == "collecting"


def test_a_rollback_ends_a_challenger_that_was_judged_against_what_it_took_back(vehicle):
    make_registry_current(vehicle, "v0003")
    vehicle.decided_round("wait_for_human", "waiting", champion="v0003")
    adapter = vehicle.start()
    assert adapter.rollback("asked by service") == "v0001"
    status = vehicle.step()
    assert status["phase"] == "collecting"
    assert "judged against v0003, and v0001 is current now (asked by service)" in status["decision"]["words"]
    assert adapter.answer("confirm")[0] is False
    assert read_json(vehicle.root / "rounds" / "round-0001" / DECISION_FILE)["verdict"] == "refuse"
    assert adapter.registry.current() == "v0001"


def test_a_champion_changed_while_the_node_was_down_is_no_champion(vehicle):
    make_registry_current(vehicle, "v0003")
    vehicle.decided_round("promote", "judging")  # against v0001
    adapter = vehicle.start()
    status = vehicle.step()
    assert adapter.registry.current() == "v0003"
    assert vehicle.heard.promoted == []
    assert status["phase"] == "collecting"
    assert "judged against v0001, and v0003 is current now" in status["decision"]["words"]


def test_a_promotion_by_another_process_is_followed(vehicle):
    adapter = vehicle.start()
    vehicle.step()
    adapter.registry.promote("v0002")
    assert vehicle.step()["version"] == "v0002"
    assert vehicle.heard.promoted == ["v0002"]
    vehicle.step()
    assert vehicle.heard.promoted == ["v0002"]


def test_a_current_version_that_could_not_be_loaded_is_tried_again(vehicle):
    adapter = vehicle.start()
    vehicle.step()
    adapter.registry.promote("v0002")
    weights = vehicle.root / "registry" / "v0002" / WEIGHTS_FILE
    weights.rename(vehicle.root / "away")
    assert vehicle.step()["version"] == "v0002"
    assert adapter._scorer.version == "", "v0001's answers are not v0002's"
    with pytest.raises(EngineError, match="not deployed for torch"):
        vehicle.step()
    (vehicle.root / "away").rename(weights)
    vehicle.step()
    assert adapter._scorer.version == "v0002"
    assert vehicle.heard.promoted == ["v0002"]


def test_an_unfinished_round_of_a_champion_that_is_not_current_any_more_ends(vehicle):
    """Taken back by hand while the node was down: the round went on, for nothing."""
    fill_pool(vehicle.root / "pool")
    vehicle.finished_round(champion="v0002", challenger="v0001")
    vehicle.start()
    status = vehicle.step()
    assert status["phase"] == "collecting"
    assert "it was started from v0002, and v0001 is current now" in status["decision"]["words"]
    assert vehicle.adapter._conductor.rounds.unfinished() is None


def make_registry_current(vehicle, version):
    registry = make_registry(vehicle.root / "more", versions=3)
    source = registry.path("v0003")
    target = vehicle.root / "registry"
    from ssada_core.store.registry import ModelRegistry

    adopted = ModelRegistry(target).adopt(source)
    assert adopted == version
    ModelRegistry(target).promote(adopted)


def test_a_rollback_ends_a_round_that_trains_on_what_it_took_back(vehicle):
    fill_pool(vehicle.root / "pool")
    long = adaptation_settings(vehicle.root).training.model_copy(update={"iterations": 100_000})
    vehicle.settings = adaptation_settings(vehicle.root, training=long)
    make_registry_current(vehicle, "v0003")
    adapter = vehicle.start()
    wait_until(lambda: vehicle.step()["training"], "the first iteration", pause=0.05)
    assert adapter.rollback("asked by service") == "v0001"
    status = vehicle.step()
    assert (status["phase"], status["training"]) == ("collecting", {})
    assert "v0003 is not current any more, v0001 is (asked by service)" in status["decision"]["words"]
    assert status["failure"] == ""
    vehicle.start()
    assert vehicle.step()["phase"] == "collecting"


def test_a_round_that_is_overtaken_has_no_figures_of_the_one_before(vehicle):
    fill_pool(vehicle.root / "pool")
    make_registry_current(vehicle, "v0003")
    vehicle.decided_round("refuse", "collecting", champion="v0003")
    adapter = vehicle.start()
    assert adapter.adapt(vehicle.now_s)[0]
    status = vehicle.step()
    assert (status["phase"], status["decision"]) == ("training", {})
    adapter.rollback("asked by service")
    decision = read_json(vehicle.root / "rounds" / "round-0002" / DECISION_FILE)
    assert sorted(decision) == ["verdict", "words"]
    assert "v0003 is not current any more" in decision["words"]


def test_a_round_that_cannot_be_written_leaves_the_one_before_as_it_was(vehicle):
    fill_pool(vehicle.root / "pool")
    vehicle.decided_round("undecided", "collecting")
    adapter = vehicle.start()
    before = adapter.status()["decision"]
    (vehicle.root / "rounds" / "round-0002").write_text("a file where the round's folder should be")
    assert adapter.adapt(vehicle.now_s)[0]
    status = vehicle.step()
    assert (status["phase"], status["decision"]) == ("collecting", before)
    assert "round-0002" in status["failure"]
    assert read_json(vehicle.root / "rounds" / "round-0001" / DECISION_FILE) == before


def test_a_failed_round_ends_with_its_reason_and_the_adapter_goes_on(vehicle):
    fill_pool(vehicle.root / "pool")
    pack = vehicle.root / "pack.zip"
    pack.write_bytes(b"no zip")
    vehicle.settings = adaptation_settings(vehicle.root, source_pack=str(pack))
    adapter = vehicle.start()
    wait_until(lambda: vehicle.step()["failure"], "the failure", pause=0.05)
    status = adapter.status()
    assert status["phase"] == "collecting"
    assert status["failure"].startswith("exit status 1: ")
    assert "pack.zip" in status["failure"]
    assert "\n" not in status["failure"]
    assert vehicle.step()["phase"] == "collecting", "it is not tried again without new labels"
    assert vehicle.start().status()["failure"] == status["failure"]


def test_an_unreadable_result_is_a_failed_round(vehicle):
    run_dir = vehicle.finished_round()
    (run_dir / MEASUREMENTS_FILE).write_bytes(b"cut off")
    vehicle.start()
    wait_until(lambda: vehicle.step()["failure"], "the failure", pause=0.05)
    assert "not a readable measurements file" in vehicle.adapter.status()["failure"]
    assert vehicle.step()["phase"] == "collecting"


def test_a_damaged_file_of_an_unfinished_round_ends_the_round_alone(vehicle):
    """Bytes that flipped in a compressed array ended the adaptation at every start."""
    run_dir = vehicle.finished_round()
    path = run_dir / MEASUREMENTS_FILE
    whole = bytearray(path.read_bytes())
    middle = whole.index(b"champion.source.npy") - 200  # in the deflated matrices before it
    whole[middle : middle + 20] = bytes(byte ^ 0xFF for byte in whole[middle : middle + 20])
    path.write_bytes(whole)
    vehicle.start()
    wait_until(lambda: vehicle.step()["failure"], "the failure", pause=0.05)
    assert "not a readable measurements file" in vehicle.adapter.status()["failure"]
    assert (vehicle.step()["phase"], read_json(run_dir / DECISION_FILE)["verdict"]) == ("collecting", "failed")


@pytest.mark.parametrize("content", [b"\xff\xfe\x80", b"reason: 2026-99-99"])
def test_a_round_whose_own_file_is_damaged_fails_alone(vehicle, content):
    run_dir = vehicle.finished_round()
    (run_dir / ROUND_FILE).write_bytes(content)
    vehicle.start()
    status = vehicle.step()
    assert "round.yaml: cannot be read" in status["failure"]
    assert (status["phase"], read_json(run_dir / DECISION_FILE)["verdict"]) == ("collecting", "failed")


def test_a_damaged_challenger_is_not_promoted(vehicle):
    vehicle.decided_round("promote", "judging")
    (vehicle.root / "registry" / "v0002" / WEIGHTS_FILE).write_bytes(b"something else")
    adapter = vehicle.start()
    status = vehicle.step()
    assert "v0002" in status["failure"]
    assert (status["phase"], adapter.registry.current()) == ("collecting", "v0001")
    assert vehicle.step()["phase"] == "collecting"
    assert vehicle.heard.promoted == []


def test_facts_are_cheap_in_a_full_pool(vehicle):
    fill_pool(vehicle.root / "pool", frames=9)
    with open_pool(vehicle.root / "pool") as pool, pool._database.transaction(durable=False):
        pool._database.execute_many(
            "INSERT INTO frames (camera, stamp_ns, vehicle, width, height, state, image_file, stored_at, bytes, "
            "thumbnail, model_version) VALUES ('front', ?, '', 96, 64, 'buffered', ?, 0, 9, zeroblob(192), 'v0001')",
            [(index * SECOND, f"images/none-{index}.jpg") for index in range(20_000)],
        )
        files = [f"images/none-{index}.jpg" for index in range(20_000)]
    assert len(files) == 20_000
    (folder := vehicle.root / "pool" / "images").mkdir(exist_ok=True)
    for file in files:
        (folder / Path(file).name).touch()  # or the pool would reject the frames as lost
    adapter = vehicle.start()
    facts = adapter._work.facts(1.0)
    assert facts.buffered_new == 8, "counted only as far as the cycle asks"
    start = time.process_time()
    for _ in range(20):
        adapter._work.facts(1.0)
    by_count = (time.process_time() - start) / 20
    start = time.process_time()
    adapter.pool.frames(states=["buffered"])
    assert by_count < 0.05 * (time.process_time() - start)
