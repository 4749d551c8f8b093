"""The launch files, built and executed by the real launch library: which processes they describe, and how."""

from __future__ import annotations

import asyncio
import runpy
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("launch.actions", reason="launch comes with a ROS 2 installation, not from PyPI")
pytest.importorskip("launch_ros.actions", reason="launch_ros comes with a ROS 2 installation, not from PyPI")

from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnShutdown
from launch.events.process import ProcessExited

from ssada_core.errors import ConfigError
from ssada_ros.keeper import RestartPolicy
from ssada_ros.launching import RESPAWN_DELAY_S, OnEnd, listed, truth
from ssada_ros.processes import main_nodes, replay_nodes

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.ros


class _Loader(yaml.SafeLoader):
    """The launch library marks lists as Python's tuples; rcl takes no notice of that."""


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _Loader.construct_yaml_seq)


def execute(name, **given):
    """The actions that a launch file comes to with these arguments, and the context they were made in."""
    module = runpy.run_path(str(REPOSITORY / "launch" / f"{name}.launch.py"))
    description = module["generate_launch_description"]()
    context = LaunchContext()
    context._set_asyncio_loop(asyncio.new_event_loop())
    context.launch_configurations.update(given)
    nodes = []
    for entity in description.entities:
        made = entity.visit(context) or []
        if isinstance(entity, OpaqueFunction):
            nodes = made
        else:
            assert isinstance(entity, (DeclareLaunchArgument, SetEnvironmentVariable))
    return nodes, context


def parameters_of(node, context, *given_files):
    """What the action gives its node beside the named files, as the node will read it."""
    node._perform_substitutions(context)
    found = {}
    for path, is_file in node._Node__expanded_parameter_arguments or []:
        assert is_file
        if path not in given_files:
            for values in yaml.load(Path(path).read_text(encoding="utf-8"), _Loader).values():
                found.update(values["ros__parameters"])
    return found


def test_both_nodes_with_everything_that_can_be_asked(tmp_path):
    parameters = tmp_path / "vehicle.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    autostart: true\n")
    nodes, _ = execute(
        "ssada",
        namespace="/robot1",
        params_file=str(parameters),
        cameras="front=/front/on, rear=/rear/image",
        log_level="debug",
        use_sim_time="true",
        foxglove="true",
    )
    wanted = main_nodes(
        parameters_file=parameters,
        namespace="/robot1",
        cameras=["front=/front/on", "rear=/rear/image"],
        log_level="debug",
        use_sim_time=True,
        foxglove=True,
    )
    assert [node.node_executable for node in nodes] == [node.name for node in wanted]
    assert [node.node_package for node in nodes] == ["ssada_ros"] * 3
    assert {node._Node__node_name for node in nodes} == {node.name for node in wanted}
    assert {node._Node__node_namespace for node in nodes} == {"/robot1"}


def test_what_is_started_is_what_ssada_up_starts(tmp_path):
    """The same command lines, compared after the launch library has made them."""
    nodes, context = execute("ssada", namespace="/robot1", cameras="f=on,5=/rear/image", foxglove="true")
    wanted = main_nodes(namespace="/robot1", cameras=["f=on", "5=/rear/image"], foxglove=True)
    for node, description in zip(nodes, wanted, strict=True):
        assert parameters_of(node, context) == dict(description.parameters)
        assert node.node_name == f"/robot1/{description.name}"


@pytest.mark.parametrize("name", ["vehicle.yaml", "leading.yaml"])
def test_cameras_and_simulated_time_are_stronger_than_the_file(ros_domain, tmp_path, name):
    rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
    path = REPOSITORY / "config" / name
    if name == "leading.yaml":
        path = tmp_path / name
        path.write_text('/**: {ros__parameters: {}}\n/**/segmentation_node: {ros__parameters: {cameras: ["late"]}}\n')
    nodes, context = execute("ssada", params_file=str(path), use_sim_time="true", cameras="f=/front/on")
    nodes[0]._perform_substitutions(context)
    files = [str(file) for file, is_file in nodes[0]._Node__expanded_parameter_arguments if is_file]
    given = [part for file in files for part in ("--params-file", file)]
    rclpy.init(args=["--ros-args", "-r", "__node:=segmentation_node", *given])
    try:
        node = rclpy.create_node("any")
        found = {key: value.value for key, value in node._parameter_overrides.items()}
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    assert (found["cameras"], found["camera_names"], found["use_sim_time"]) == (["/front/on"], ["f"], True)


def test_a_node_that_ends_is_started_again():
    nodes, _ = execute("ssada")
    assert [node._ExecuteLocal__respawn for node in nodes] == [True, True]
    assert nodes[0]._ExecuteLocal__respawn_delay == RESPAWN_DELAY_S
    assert [node._ExecuteLocal__on_exit._essential for node in nodes] == [True, False]


def run_launch(folder, *, essential, status=2, seconds=2.0):
    """A process that always ends with ``status`` and one that stays, under the real launch: starts, and who stopped it.

    Returns:
        How often the first was started, and whether its end stopped everything.
    """
    starts, ended = folder / "starts", []
    program = f"import sys; open({str(starts)!r}, 'a').write('x'); sys.exit({status})"
    misused = ExecuteProcess(
        cmd=[sys.executable, "-c", program],
        respawn=True,
        respawn_delay=0.5,
        on_exit=OnEnd(essential=essential),
    )
    steady = ExecuteProcess(cmd=[sys.executable, "-c", "import time; time.sleep(60)"])
    enough = TimerAction(period=seconds, actions=[Shutdown(reason="enough")])
    reason = RegisterEventHandler(OnShutdown(on_shutdown=lambda event, _: ended.append(event.reason)))
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription([reason, steady, misused, enough]))
    service.run()
    return len(starts.read_text()), ended != ["enough"]


def test_wrong_parameters_of_what_is_essential_stop_everything(tmp_path):
    assert run_launch(tmp_path, essential=True, seconds=30.0) == (1, True)


def test_wrong_parameters_of_any_other_switch_it_off_and_the_rest_goes_on(tmp_path):
    assert run_launch(tmp_path, essential=False) == (1, False)


def test_any_other_end_is_followed_by_another_start(tmp_path):
    starts, stopped = run_launch(tmp_path, essential=True, status=1)
    assert starts > 1
    assert not stopped


def test_after_a_stable_stretch_status_2_is_worth_another_start(monkeypatch):
    nodes, context = execute("ssada")
    on_end = OnEnd(essential=True)
    event = ProcessExited(action=nodes[0], name="n-1", cmd=[], cwd=None, env=None, pid=1, returncode=2)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + RestartPolicy.stable_s + 1.0)
    assert on_end(event, context) == []
    assert on_end(event, context) == []


def test_without_restarts_the_first_end_stops_everything():
    nodes, _ = execute("ssada", restart="false")
    assert [node._ExecuteLocal__respawn for node in nodes] == [False, False]


def test_an_including_launch_file_may_set_simulated_time_itself():
    nodes, context = execute("ssada")
    assert all("use_sim_time" not in parameters_of(node, context) for node in nodes)
    nodes, context = execute("ssada", use_sim_time="true")
    assert all(parameters_of(node, context)["use_sim_time"] is True for node in nodes)


def test_a_recording_and_its_end(tmp_path):
    drive = tmp_path / "drive"
    drive.mkdir()
    nodes, context = execute("replay", bag=str(drive), rate="2", adaptation="true")
    wanted = replay_nodes(str(drive), rate=2.0, adaptation=True)
    assert [node.node_executable for node in nodes] == [node.name for node in wanted]
    assert [node._ExecuteLocal__respawn for node in nodes] == [False] * 3
    assert parameters_of(nodes[-1], context) == dict(wanted[-1].parameters)
    with pytest.raises(ConfigError, match="no such recording"):
        execute("replay", bag=str(tmp_path / "none"))


def test_the_fast_dds_profile_is_set():
    _, context = execute("ssada")
    assert context.environment["FASTDDS_DEFAULT_PROFILES_FILE"].endswith("fastdds_profile.xml")


@pytest.mark.parametrize(("text", "expected"), [("", ()), ("a", ("a",)), ("a, b", ("a", "b"))])
def test_lists(text, expected):
    assert listed(text) == expected


def test_what_is_neither_true_nor_false_is_named():
    assert [truth("x", text) for text in ("true", "False", "1", "0", "")] == [True, False, True, False, False]
    with pytest.raises(ConfigError, match="use_sim_time:=maybe: true or false"):
        truth("use_sim_time", "maybe")
