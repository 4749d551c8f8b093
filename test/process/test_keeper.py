"""The restart policy, with real processes; the clock is the test's."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from ssada_core.errors import ConfigError, SsadaError
from ssada_ros.keeper import Keeper, RestartPolicy, describe_end
from ssada_ros.processes import ProcessDescription
from ssada_ros.supervisor import Supervisor

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = {
    "steady": "import time; print('up', flush=True); time.sleep(60)",
    "broken": "import sys; print('it broke', flush=True); sys.exit(3)",
    "misused": "import sys; print(\"model 'x': no such model\", flush=True); sys.exit(2)",
    "done": "print('the end', flush=True)",
}


@pytest.fixture
def stage(tmp_path):
    """Starts a supervisor and its keeper; both end with the test."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)])}
    started = []

    def start(*descriptions, policy=RestartPolicy(), log_dir=tmp_path / "log"):  # noqa: B008 (frozen)
        said: list[str] = []
        supervisor = Supervisor(descriptions, log_dir, variables=variables)
        started.append(supervisor)
        supervisor.start()
        return supervisor, Keeper(supervisor, descriptions, policy, said.append), said

    yield start
    for supervisor in started:
        supervisor.stop()


def plain(name, **options):
    return ProcessDescription(name, name, ros=False, **options)


def wait_for_end(supervisor, name, seconds=30.0):
    deadline = time.monotonic() + seconds
    while supervisor.poll()[name] is None:
        assert time.monotonic() < deadline, supervisor.log_tail(name)
        time.sleep(0.01)


def wait_for_log(supervisor, name, words):
    deadline = time.monotonic() + 30.0
    while words not in supervisor.log_tail(name):
        assert time.monotonic() < deadline, supervisor.log_tail(name)
        time.sleep(0.01)


def test_what_was_killed_is_started_again_at_once(stage):
    supervisor, keeper, said = stage(plain("steady"))
    first = supervisor.pid("steady")
    wait_for_log(supervisor, "steady", "up")
    os.kill(first, signal.SIGKILL)
    wait_for_end(supervisor, "steady")
    assert keeper.step(time.monotonic()) is None
    assert supervisor.poll() == {"steady": None}
    assert supervisor.pid("steady") != first
    assert said == ["steady was ended by SIGKILL: up; starting it again now"]


def test_pauses_grow_and_an_essential_process_is_given_up(stage):
    supervisor, keeper, said = stage(plain("broken"), policy=RestartPolicy(restarts=3, longest_pause_s=1.5))
    now = time.monotonic()
    for pause in (0.0, 1.0, 1.5):
        wait_for_end(supervisor, "broken")
        pid = supervisor.pid("broken")
        keeper.step(now)
        if pause:
            keeper.step(now + pause - 0.01)
            assert supervisor.pid("broken") == pid  # not before its time
        now += pause
        keeper.step(now)
        assert supervisor.pid("broken") != pid
    wait_for_end(supervisor, "broken")
    with pytest.raises(SsadaError, match=r"^broken ended with status 3: it broke; given up after 3 restarts in a row$"):
        keeper.step(now)
    assert said == [
        f"broken ended with status 3: it broke; starting it again {when}" for when in ("now", "in 1 s", "in 1.5 s")
    ]


def test_what_is_not_essential_is_tried_for_ever_and_the_rest_goes_on(stage):
    policy = RestartPolicy(restarts=1, first_pause_s=0.5, longest_pause_s=0.5)
    supervisor, keeper, said = stage(plain("steady"), plain("broken", essential=False), policy=policy)
    steady, now = supervisor.pid("steady"), time.monotonic()
    for _ in range(4):
        wait_for_end(supervisor, "broken")
        assert keeper.step(now) is None
        now += 0.5
        assert keeper.step(now) is None
    assert len(said) == 4
    assert supervisor.pid("steady") == steady
    assert supervisor.poll()["steady"] is None


def test_a_stable_stretch_forgives_earlier_ends(stage):
    supervisor, keeper, said = stage(plain("steady"), policy=RestartPolicy(restarts=1, stable_s=10.0))
    now = time.monotonic()
    for _ in range(3):
        now += 11.0
        keeper.step(now)  # seen alive after ten seconds
        os.kill(supervisor.pid("steady"), signal.SIGKILL)
        wait_for_end(supervisor, "steady")
        keeper.step(now)
    assert [words.rpartition("; ")[2] for words in said] == ["starting it again now"] * 3


def test_wrong_parameters_are_never_tried_again_at_the_start(stage):
    supervisor, keeper, said = stage(plain("misused"))
    wait_for_end(supervisor, "misused")
    with pytest.raises(ConfigError, match="misused ended with status 2: model 'x': no such model"):
        keeper.step(time.monotonic())
    assert said == []


def test_wrong_parameters_of_what_is_not_essential_switch_it_off_and_the_rest_goes_on(stage):
    supervisor, keeper, said = stage(plain("steady"), plain("misused", essential=False))
    steady, misused = supervisor.pid("steady"), supervisor.pid("misused")
    wait_for_end(supervisor, "misused")
    now = time.monotonic()
    for later in (0.0, 1.0, 100.0):
        assert keeper.step(now + later) is None
    assert said == ["misused ended with status 2: model 'x': no such model; switched off, the others go on"]
    assert (supervisor.pid("steady"), supervisor.pid("misused")) == (steady, misused)
    assert supervisor.poll() == {"steady": None, "misused": 2}


def test_no_restarts_stop_at_the_first_end(stage):
    supervisor, keeper, _ = stage(plain("broken", essential=False), policy=RestartPolicy(restarts=0))
    wait_for_end(supervisor, "broken")
    with pytest.raises(SsadaError, match=r"broken ended with status 3: it broke; given up$"):
        keeper.step(time.monotonic())


def test_an_end_with_status_0_ends_the_work_only_where_it_may(stage):
    supervisor, keeper, _ = stage(plain("steady"), plain("done", may_end=True))
    assert keeper.run() == "done"
    assert supervisor.poll()["steady"] is None
    again, keeper, said = stage(plain("done"))
    wait_for_end(again, "done")
    assert keeper.step(time.monotonic()) is None
    assert said == ["done ended with status 0: the end; starting it again now"]


def test_without_log_files_the_words_go_to_the_terminal(stage, capfd):
    supervisor, keeper, said = stage(plain("done"), log_dir=None)
    wait_for_end(supervisor, "done")
    keeper.step(time.monotonic())
    assert said == ["done ended with status 0; starting it again now"]
    assert "the end" in capfd.readouterr().out


def test_a_removed_log_folder_is_made_again_and_its_last_words_are_missed_by_nobody(stage, tmp_path):
    supervisor, keeper, said = stage(plain("steady"))
    wait_for_log(supervisor, "steady", "up")
    shutil.rmtree(tmp_path / "log")
    os.kill(supervisor.pid("steady"), signal.SIGKILL)
    wait_for_end(supervisor, "steady")
    assert keeper.step(time.monotonic()) is None
    assert said == ["steady was ended by SIGKILL; starting it again now"]
    wait_for_log(supervisor, "steady", "up")


def test_a_start_that_fails_is_tried_again_and_the_rest_goes_on(stage, tmp_path):
    supervisor, keeper, said = stage(plain("steady"), plain("broken"), policy=RestartPolicy(restarts=1))
    steady = supervisor.pid("steady")
    wait_for_end(supervisor, "broken")
    log = tmp_path / "log" / "broken.log"
    log.unlink()
    log.mkdir()  # nothing can be written there
    now = time.monotonic()
    for later in (0.0, 1.0, 3.0):
        assert keeper.step(now + later) is None
    assert "broken could not be started: " in said[1]
    assert [words.rpartition("; ")[2] for words in said] == [
        f"starting it again {when}" for when in ("now", "in 1 s", "in 2 s", "in 4 s")
    ]
    log.rmdir()
    first = supervisor.pid("broken")
    assert keeper.step(now + 7.0) is None
    assert supervisor.pid("broken") != first
    assert supervisor.pid("steady") == steady
    assert supervisor.poll()["steady"] is None


def test_only_what_is_essential_stops_everything_when_its_first_start_fails(stage, tmp_path):
    log = tmp_path / "log" / "done.log"
    log.mkdir(parents=True)
    supervisor, keeper, said = stage(plain("done", essential=False), plain("steady"))
    assert supervisor.poll() == {"steady": None}
    now = time.monotonic()
    keeper.step(now)
    assert said[0] == "done could not be started; starting it again now"
    log.rmdir()
    keeper.step(now + 1.0)
    assert set(supervisor.poll()) == {"steady", "done"}
    (tmp_path / "log" / "misused.log").mkdir()
    with pytest.raises(SsadaError, match="misused could not be started"):
        stage(plain("steady"), plain("misused"))


@pytest.mark.parametrize(
    ("status", "words"), [(1, "ended with status 1"), (-9, "was ended by SIGKILL"), (-70, "was ended by signal 70")]
)
def test_ends_are_said_in_words(status, words):
    assert describe_end(status) == words
