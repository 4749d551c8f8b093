from __future__ import annotations

from dataclasses import replace

import pytest
from adaptation_fixtures import measurements, round_spec

from ssada_core.adaptation.case_bars import CASES_FILE, CaseBars
from ssada_core.adaptation.gate import GateSettings
from ssada_core.adaptation.round import (
    CHECKPOINT_FILE,
    DECISION_FILE,
    MEASUREMENTS_FILE,
    RESULT_FILE,
    ROUND_FILE,
    RoundResult,
    read_round,
    write_round,
)
from ssada_core.adaptation.rounds import Rounds
from ssada_core.adaptation.worker_process import last_json_line
from ssada_core.errors import StoreError, WorkerError
from ssada_core.labels import CAMVID
from ssada_core.learning import checkpoint
from ssada_core.store.files import write_json


@pytest.fixture
def rounds(tmp_path):
    return Rounds(tmp_path / "rounds", restarts=0, log=lambda _: None)


def test_before_the_first_round_there_is_nothing(rounds):
    assert (rounds.run_dir, rounds.unfinished(), rounds.spec(), rounds.decision()) == (None, None, None, {})
    assert (rounds.poll(), rounds.progress()) == (None, None)
    rounds.stop()
    with pytest.raises(WorkerError, match="there is no round"):
        rounds.judge(GateSettings(), CAMVID)


def test_rounds_are_ordered_by_number_and_unfinished_until_decided(tmp_path, rounds):
    root = tmp_path / "rounds"
    for name in ("round-9999", "round-10000", "round-0007", "other"):
        write_round(root / name, round_spec(tmp_path, reason=name))
    (root / "round-10001").mkdir()  # killed before its round.yaml was there
    assert rounds.run_dir == rounds.unfinished() == root / "round-10000"
    assert rounds.spec().reason == "round-10000"
    rounds.close({"verdict": "refuse"})
    assert rounds.unfinished() is None
    assert rounds.decision() == {"verdict": "refuse"}
    assert not (root / "round-9999" / DECISION_FILE).exists()


def test_a_decision_that_is_none_is_said_so_with_what_to_do(tmp_path, rounds):
    write_round(tmp_path / "rounds" / "round-0001", round_spec(tmp_path))
    write_json(tmp_path / "rounds" / "round-0001" / DECISION_FILE, [3])
    with pytest.raises(StoreError, match=r"decision\.json is no decision: delete it"):
        rounds.decision()


def test_a_decided_round_leaves_no_checkpoint_and_one_under_way_keeps_it(tmp_path, rounds):
    assert CHECKPOINT_FILE == checkpoint.CHECKPOINT_FILE
    old, new = (tmp_path / "rounds" / name for name in ("round-0001", "round-0002"))
    for run_dir in (old, new):
        write_round(run_dir, round_spec(tmp_path))
        (run_dir / CHECKPOINT_FILE).write_bytes(b"weights")
    write_json(old / DECISION_FILE, {"verdict": "refuse"})  # by an earlier release, or killed before its end
    rounds = Rounds(tmp_path / "rounds", restarts=0, log=lambda _: None)
    assert not (old / CHECKPOINT_FILE).exists()
    assert (new / CHECKPOINT_FILE).exists()
    rounds.close({"verdict": "promote"})
    assert sorted(path.name for path in new.iterdir()) == [DECISION_FILE, ROUND_FILE]


def test_a_round_that_could_not_be_decided_and_a_killed_worker_leave_nothing_large(tmp_path, rounds):
    """A storm of full disks: each round whose decision could not be written kept its checkpoint, for ever."""
    old, new = (tmp_path / "rounds" / name for name in ("round-0001", "round-0002"))
    for run_dir in (old, new):
        write_round(run_dir, round_spec(tmp_path))
        for name in (CHECKPOINT_FILE, f".{CHECKPOINT_FILE}.0a1b2c3d.tmp"):
            (run_dir / name).write_bytes(b"weights")
    Rounds(tmp_path / "rounds", restarts=0, log=lambda _: None)
    assert [path.name for path in old.iterdir()] == [ROUND_FILE]
    assert sorted(path.name for path in new.iterdir()) == [CHECKPOINT_FILE, ROUND_FILE]


def test_a_round_starts_after_the_newest_and_only_once(tmp_path, rounds):
    write_round(tmp_path / "rounds" / "round-0041", round_spec(tmp_path))
    try:
        assert rounds.start(round_spec(tmp_path)).name == "round-0042"
        with pytest.raises(WorkerError, match=r"a round is running in .*round-0042"):
            rounds.start(round_spec(tmp_path))
        assert rounds.poll() == "running"
    finally:
        rounds.stop()
    assert rounds.poll() is None
    assert rounds.unfinished().name == "round-0042"


def test_a_finished_round_is_judged_from_its_files(tmp_path, rounds):
    run_dir = tmp_path / "rounds" / "round-0001"
    write_round(run_dir, round_spec(tmp_path))
    result = RoundResult(
        challenger="v0002", champion="v0001", iterations=6, seconds=1.0, labelled=4, audit=2, unlabelled=6,
        source=0, losses={"loss": 1.0}, class_weights=[1.0] * 11,
    )  # fmt: skip
    with pytest.raises(StoreError, match=r"result\.json"):
        rounds.judge(GateSettings(), CAMVID)
    write_json(run_dir / RESULT_FILE, result.model_dump(mode="json"))
    for shares, verdict in (((0.6, 0.9, 0.6), "promote"), ((0.9, 0.6, 0.9), "refuse")):
        measurements(shares).save(run_dir / MEASUREMENTS_FILE)
        found, decision = rounds.judge(GateSettings(), CAMVID)
        assert (found, decision.verdict) == (result, verdict)
    write_json(run_dir / RESULT_FILE, {"challenger": 3})
    with pytest.raises(WorkerError, match=r"result\.json: not a round's result"):
        rounds.judge(GateSettings(), CAMVID)


def test_a_bar_that_was_set_by_another_label_judges_nobody(tmp_path, rounds):
    run_dir = tmp_path / "rounds" / "round-0001"
    write_round(run_dir, round_spec(tmp_path))
    result = RoundResult(
        challenger="v0002", champion="v0001", iterations=6, seconds=1.0, labelled=4, audit=2, unlabelled=6,
        source=0, losses={}, class_weights=[], case_labels={"flag": "corrected"},
    )  # fmt: skip
    write_json(run_dir / RESULT_FILE, result.model_dump(mode="json"))
    plain = measurements((0.6, 0.9, 0.6))
    models = {name: getattr(plain, name) for name in ("champion", "challenger", "first")}
    flagged = {name: replace(model, cases=model.audit[:1]) for name, model in models.items()}
    replace(plain, case_ids=("flag",), **flagged).save(run_dir / MEASUREMENTS_FILE)
    for label, verdict in (("corrected", "refuse"), ("wrong", "promote")):
        write_json(tmp_path / CASES_FILE, {"flag": {"miou": 100.0, "label": label}})
        assert rounds.judge(GateSettings(), CAMVID, CaseBars(tmp_path))[1].verdict == verdict


def test_a_spec_survives_its_file_and_wrong_keys_are_named(tmp_path):
    spec = round_spec(tmp_path, reason="6 new labels: ünïcode", labels=6, gpu_memory_share=0.25)
    write_round(tmp_path / "run", spec)
    assert read_round(tmp_path / "run") == spec
    path = tmp_path / "run" / ROUND_FILE
    path.write_text(path.read_text().replace("champion:", "champoin:"))
    with pytest.raises(WorkerError, match="champion"):
        read_round(tmp_path / "run")
    path.write_text("- a list")
    with pytest.raises(WorkerError, match=r"round\.yaml"):
        read_round(tmp_path / "run")
    with pytest.raises(WorkerError, match=r"give a folder with a round\.yaml"):
        read_round(tmp_path)


def test_the_last_whole_line_is_the_progress(tmp_path):
    path = tmp_path / "progress.jsonl"
    assert last_json_line(path) == {}
    path.write_bytes(b'{"iteration": 1}\n{"iteration": 2}\n{"itera')
    assert last_json_line(path) == {"iteration": 2}
    path.write_bytes(b'{"x": 1}\n' * 5000 + b'{"iteration": 7}\n7\n')
    assert last_json_line(path) == {"iteration": 7}
