"""The supervisor, with real processes and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from ssada_core.errors import ConfigError
from ssada_ros.processes import (
    CYCLONEDDS_VARIABLE,
    FASTDDS_VARIABLES,
    ProcessDescription,
    camera_parameters,
    environment,
    main_nodes,
    replay_nodes,
)
from ssada_ros.supervisor import Supervisor

REPOSITORY = Path(__file__).resolve().parents[2]
# Modules for `python -m`, written into a folder that PYTHONPATH names.
MODULES = {
    "polite": """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
print("up", sys.argv[1:], flush=True)
time.sleep(60)
""",
    "stubborn": """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("up", child.pid, flush=True)
time.sleep(60)
""",
    "leaving": """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL)
print("left", child.pid, flush=True)
""",
    "failing": "import sys; print('it broke', flush=True); sys.exit(3)",
    "niceness": "import os; print('nice', os.nice(0), flush=True)",
}
QUICK = ((signal.SIGINT, 0.3), (signal.SIGTERM, 0.3), (signal.SIGKILL, 5.0))


@pytest.fixture
def variables(tmp_path):
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)]), "PYTHONUNBUFFERED": "1"}


def wait_for(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def plain(name, *arguments, **options):
    return ProcessDescription(name, name, arguments=arguments, ros=False, **options)


def test_it_starts_logs_and_stops_politely(variables, tmp_path):
    with Supervisor([plain("polite", "a", "b c")], tmp_path / "log", variables=variables) as supervisor:
        assert wait_for(lambda: "up ['a', 'b c']" in supervisor.log_tail("polite"))
        assert supervisor.poll() == {"polite": None}
        pid = supervisor.pid("polite")
    assert supervisor.poll() == {"polite": 0}
    assert is_gone(pid)


def test_what_ignores_signals_is_killed_with_all_it_started(variables, tmp_path):
    with Supervisor([plain("stubborn")], tmp_path, variables=variables, stop_steps=QUICK) as supervisor:
        assert wait_for(lambda: "up" in supervisor.log_tail("stubborn"))
        grandchild = int(supervisor.log_tail("stubborn").split()[-1])
    assert supervisor.poll() == {"stubborn": -signal.SIGKILL}
    assert wait_for(lambda: is_gone(grandchild))


def test_what_an_ended_process_left_behind_is_ended_once(variables, tmp_path, monkeypatch):
    with Supervisor([plain("leaving")], tmp_path, variables=variables) as supervisor:
        assert wait_for(lambda: supervisor.poll()["leaving"] == 0)
        left = int(supervisor.log_tail("leaving").split()[-1])
        assert wait_for(lambda: is_gone(left))

        def foreign(group, number):
            raise AssertionError(f"group {group} may be somebody else's by now")

        with monkeypatch.context() as patch:
            patch.setattr(os, "killpg", foreign)
            supervisor.stop_one("leaving")
            supervisor.start_one("leaving")
        first = left
        assert wait_for(lambda: supervisor.poll()["leaving"] == 0)
        left = int(supervisor.log_tail("leaving").split()[-1])
        assert left != first
        assert wait_for(lambda: is_gone(left))


def test_a_group_of_another_user_is_left_alone(variables, tmp_path, monkeypatch):
    def forbidden(group, number):
        raise PermissionError(1, "Operation not permitted")

    supervisor = Supervisor([plain("failing")], tmp_path, variables=variables)
    supervisor.start()
    assert wait_for(lambda: supervisor._processes["failing"].poll() is not None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", forbidden)
        assert supervisor.poll() == supervisor.stop() == {"failing": 3}


def test_a_failure_is_seen_with_its_status_and_last_words(variables, tmp_path):
    supervisor = Supervisor([plain("failing"), plain("polite")], tmp_path, variables=variables)
    with supervisor:
        assert wait_for(lambda: supervisor.poll()["failing"] is not None)
        assert supervisor.poll() == {"failing": 3, "polite": None}
        assert supervisor.log_tail("failing", lines=1) == "it broke"
        polite = supervisor.pid("polite")
        supervisor.start()
        assert supervisor.pid("polite") == polite  # only what had ended is started again


def test_niceness_is_added(variables, tmp_path):
    with Supervisor([plain("niceness", nice=7)], tmp_path, variables=variables) as supervisor:
        assert wait_for(lambda: f"nice {os.nice(0) + 7}" in supervisor.log_tail("niceness"))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_children_end_when_the_parent_is_killed(variables, tmp_path):
    program = (
        "import os, sys, time; from pathlib import Path; from ssada_ros.processes import *\n"
        "from ssada_ros.supervisor import *\n"
        "s = Supervisor([ProcessDescription('polite', 'polite', ros=False)], Path(sys.argv[1]), variables=os.environ)\n"
        "s.start(); print(s.pid('polite'), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    parent = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert wait_for(lambda: "up" in (tmp_path / "polite.log").read_text())
    parent.kill()
    parent.communicate()
    assert wait_for(lambda: is_gone(child), seconds=5)


def test_names_must_differ(tmp_path):
    with pytest.raises(ConfigError, match="polite, polite"):
        Supervisor([plain("polite"), plain("polite")], tmp_path)


def test_the_command_line_of_a_node():
    nodes = main_nodes(parameters_file=Path("/x/p.yaml"), namespace="/robot1", log_level="debug", use_sim_time=True)
    assert [node.module for node in nodes] == ["ssada_ros.segmentation_node", "ssada_ros.adaptation_node"]
    rules = ["-r", "__node:=segmentation_node", "-r", "__ns:=/robot1"]
    rest = ["--params-file", "/x/p.yaml", "--params-file", str(nodes[0].overrides_file()), "--log-level", "debug"]
    assert nodes[0].ros_arguments() == ["--ros-args", *rules, *rest]
    assert main_nodes(use_sim_time=True)[0].ros_arguments()[-2:] == ["-p", "use_sim_time:=true"]
    renamed = ProcessDescription("front", "ssada_ros.camera_node", remappings={"camera/image": "/front"})
    assert renamed.ros_arguments()[-2:] == ["-r", "camera/image:=/front"]
    assert [node.essential for node in nodes] == [True, False]  # masks go on whatever becomes of the adaptation


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), {}),
        (["camera/image"], {"cameras": ["camera/image"]}),
        (["f=/front/on", " r=/rear"], {"cameras": ["/front/on", "/rear"], "camera_names": ["f", "r"]}),
    ],
)
def test_cameras_become_parameters(given, expected):
    assert camera_parameters(given) == expected
    node = main_nodes(cameras=given)[1]
    parsed = [yaml.safe_load(text.partition(":=")[2]) for text in node.ros_arguments() if ":=[" in text]
    assert parsed == list(expected.values())


@pytest.mark.parametrize("given", [[""], ["front="], ["front=/a", "/b"]])
def test_cameras_that_cannot_be_are_named(given):
    with pytest.raises(ConfigError, match=r"TOPIC"):
        camera_parameters(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (True, None)),
        ({"ROS_DISTRO": "kilted"}, (True, None)),
        ({"ROS_DISTRO": "humble"}, (True, True)),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"}, ("/mine.xml", None)),
        ({"ROS_DISTRO": "humble", "FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"}, ("/mine.xml", "/mine.xml")),
    ],
)
def test_the_profile_is_set_unless_there_is_one(given, expected):
    ours = str(REPOSITORY / "config" / "fastdds_profile.xml")
    found = environment(given)
    assert found["PYTHONUNBUFFERED"] == "1"
    assert tuple(found.get(name) for name in FASTDDS_VARIABLES) == tuple(
        ours if value is True else value for value in expected
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}, None),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, (REPOSITORY / "config" / "cyclonedds.xml").as_uri()),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp", "CYCLONEDDS_URI": "file:///mine.xml"}, "file:///mine.xml"),
    ],
)
def test_cyclone_gets_its_profile_where_it_is_chosen(given, expected):
    assert environment(given).get(CYCLONEDDS_VARIABLE) == expected


def test_a_recording_is_played_to_its_end_by_the_last_process(tmp_path):
    (tmp_path / "drive").mkdir()
    nodes = replay_nodes(str(tmp_path / "drive"), rate=2, adaptation=True, namespace="/r", log_level="warn")
    assert [node.name for node in nodes] == ["segmentation_node", "adaptation_node", "camera_node"]
    assert [node.may_end for node in nodes] == [False, False, True]
    assert {(node.namespace, node.log_level) for node in nodes} == {("/r", "warn")}
    assert nodes[-1].parameters == {
        "source": f"bag:{tmp_path / 'drive'}",
        "topic": "",
        "rate": 2.0,
        "loop": False,
        "wait_for_subscribers": 2,
    }
    for missing in ("", str(tmp_path / "none")):
        with pytest.raises(ConfigError, match="no such recording"):
            replay_nodes(missing)


FILES = {
    "of all nodes, then of one": """
/**:
  ros__parameters: {use_sim_time: false, cameras: ["early"]}
/**/segmentation_node:
  ros__parameters: {cameras: ["late"], camera_names: ["l"], use_sim_time: false, rate: 2.0}
""",
    "nested": """
/**:
  ros__parameters: {cameras: ["early"]}
  segmentation_node:
    ros__parameters: {cameras: ["late"], use_sim_time: false, rate: 2.0}
""",
    "by its full name": """
/**:
  ros__parameters: {rate: 2.0}
/robot1/segmentation_node:
  ros__parameters: {cameras: ["late"], use_sim_time: false}
""",
    "in a namespace of any depth": """
/**/**/segmentation_node:
  ros__parameters: {cameras: ["late"], use_sim_time: false, rate: 2.0}
/robot1/*:
  ros__parameters: {cameras: ["late"], use_sim_time: false}
""",
}


@pytest.mark.ros
@pytest.mark.parametrize("content", FILES.values(), ids=list(FILES))
def test_what_is_asked_for_is_stronger_than_every_section_of_the_file(ros_domain, tmp_path, content):
    rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")
    path = tmp_path / "vehicle.yaml"
    path.write_text(content)
    asked = main_nodes(parameters_file=path, namespace="/robot1", use_sim_time=True, cameras=["f=/front/on"])
    rclpy.init(args=asked[0].ros_arguments())
    try:
        node = rclpy.create_node("any")
        found = {name: given.value for name, given in node._parameter_overrides.items()}
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    assert found == {"cameras": ["/front/on"], "camera_names": ["f"], "use_sim_time": True, "rate": 2.0}


@pytest.mark.ros
def test_a_supervised_node_has_its_name_namespace_and_remapping(ros_domain, tmp_path):
    rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")
    front = ProcessDescription(
        "front", "ssada_ros.camera_node", namespace="/robot1", remappings={"camera/image": "eye"}
    )
    rclpy.init()
    node = rclpy.create_node("watcher")
    try:
        with Supervisor([front], tmp_path) as supervisor:
            assert wait_for(lambda: ("front", "/robot1") in node.get_node_names_and_namespaces())
            assert wait_for(lambda: node.get_publishers_info_by_topic("/robot1/eye")), supervisor.log_tail("front")
        assert supervisor.poll() == {"front": 0}, supervisor.log_tail("front")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
