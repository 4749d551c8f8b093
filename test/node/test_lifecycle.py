"""The lifecycle shell: transitions in process, and the ends of a real process by real signals."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn

from ssada_core.errors import ModelError
from ssada_ros.lifecycle import ManagedNode, _ended_by_signal

pytestmark = pytest.mark.ros

PROGRAM = Path(__file__).parent / "lifecycle_program.py"


class Recorder(ManagedNode):
    """Notes what runs; fails where told to."""

    def __init__(self):
        super().__init__("recorder")
        self.ran = []
        self.fails = {}

    def _step(self, name):
        self.ran.append(name)
        if name in self.fails:
            raise self.fails[name]

    def configure(self, _state):
        self._step("configure")

    def activate(self, _state):
        self._step("activate")

    def deactivate(self, _state):
        self._step("deactivate")

    def cleanup(self, _state):
        self._step("cleanup")

    @property
    def where(self):
        return self._state_machine.current_state[1]


@pytest.fixture
def node(ros_domain):
    rclpy.init()
    made = Recorder()
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


def test_the_four_steps_run_in_their_order(node):
    for trigger in (node.trigger_configure, node.trigger_activate, node.trigger_deactivate, node.trigger_cleanup):
        assert trigger() == TransitionCallbackReturn.SUCCESS
    assert node.ran == ["configure", "activate", "deactivate", "cleanup"]
    assert node.where == "unconfigured"


def test_an_expected_error_is_one_line_and_leaves_the_node_where_it_was(node, capfd):
    node.fails["configure"] = ModelError("models/x: no manifest.json: run ssada models import")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert node.where == "unconfigured"
    said = capfd.readouterr().err
    assert "configure failed: models/x: no manifest.json" in said
    assert "Traceback" not in said
    node.fails.clear()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.failure is None


def test_an_unexpected_error_has_its_traceback_and_cleans_up(node, capfd):
    node.trigger_configure()
    node.fails["activate"] = ZeroDivisionError("by what")
    assert node.trigger_activate() == TransitionCallbackReturn.ERROR
    assert isinstance(node.failure, ZeroDivisionError)
    said = capfd.readouterr().err
    assert "Traceback" in said
    assert "ZeroDivisionError: by what" in said
    assert node.ran[-1] == "cleanup"
    assert node.where == "unconfigured"


@pytest.mark.parametrize(
    ("triggers", "taken_down"),
    [
        (["trigger_configure", "trigger_activate"], ["deactivate", "cleanup"]),
        (["trigger_configure"], ["cleanup"]),
        ([], []),
    ],
)
def test_shutdown_and_close_take_down_what_is_up(node, triggers, taken_down):
    for name in triggers:
        getattr(node, name)()
    node.close()
    assert node.ran[len(triggers) :] == taken_down
    assert node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
    assert node.ran[len(triggers) :] == 2 * taken_down
    assert node.where == "finalized"


def test_cleanup_runs_even_if_deactivate_fails(node):
    node.trigger_configure()
    node.trigger_activate()
    node.fails["deactivate"] = ModelError("stuck")
    node.close()
    assert node.ran[-2:] == ["deactivate", "cleanup"]


def test_lifecycle_publishers_speak_only_while_active(node):
    publisher = node.create_lifecycle_publisher(rclpy.lifecycle.node.lifecycle_msgs.msg.State, "x", 1)
    node.trigger_configure()
    node.fails["activate"] = ModelError("no")
    node.trigger_activate()
    assert not publisher.is_activated
    node.fails.clear()
    node.trigger_activate()
    assert publisher.is_activated


NODE_FILES = sorted((Path(__file__).resolve().parents[2] / "ssada_ros").glob("*_node.py"))


def assigned(path):
    """Names of attributes that a file's classes set on themselves."""
    targets = [
        target
        for part in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(part, ast.Assign | ast.AnnAssign)
        for target in (part.targets if isinstance(part, ast.Assign) else [part.target])
    ]
    flat = [inner for target in targets for inner in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return {t.attr for t in flat if isinstance(t, ast.Attribute) and getattr(t.value, "id", "") == "self"}


@pytest.mark.parametrize("path", NODE_FILES, ids=lambda path: path.stem)
def test_no_node_overwrites_an_attribute_of_rclpy(ros_domain, path):
    rclpy.init()
    bare = ManagedNode("bare")
    try:
        # A camera node that called its timer's clock ``_clock`` stamped its frames with it.
        assert assigned(path) & {*vars(bare), *dir(bare)} <= {"autostart", "failure"}
    finally:
        bare.destroy_node()
        rclpy.try_shutdown()


def run_program(*arguments, ros=()):
    command = [sys.executable, str(PROGRAM), *arguments, "--ros-args", *ros]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    said, _ = process.communicate(timeout=30)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["spin", "configure", "callback"])
def test_a_signal_ends_the_process_cleanly_at_any_moment(ros_domain, number, moment):
    process = run_program(moment)
    for line in process.stdout:
        if line.strip() == f"in {moment}":
            break
    time.sleep(0.2)
    asked = time.monotonic()
    os.kill(process.pid, number)
    os.kill(process.pid, number)  # the terminal's and the supervisor's
    status, said = finish(process)
    assert time.monotonic() - asked < 10
    assert "Traceback" not in said
    assert status == 0, said
    assert moment == "configure" or said.count("cleaned up") == 1


def test_an_interrupt_that_pybind_lost_is_an_interrupt(node):
    """Seen once at the end of a built node: exit 1 with a traceback from take_message."""
    lost = RuntimeError("Unable to convert call argument '0' to Python object (#define PYBIND11_DETAILED_ERROR…)")
    with pytest.raises(RuntimeError), _ended_by_signal(node):
        raise lost
    rclpy.try_shutdown()
    with _ended_by_signal(node):
        raise lost
    with pytest.raises(RuntimeError, match="a bug"), _ended_by_signal(node):
        raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("arguments", "ros", "status", "words"),
    [
        (["data_error"], [], 1, "no such pack"),
        (["config_error"], [], 2, "cameras: give one"),
        (["callback_error"], [], 1, "the disk is full"),
        (["spin"], ["-p", "sped:=1"], 2, "unknown parameter 'sped' (did you mean 'speed'?)"),
        (["spin"], ["-p", "speed:=[1, a]"], 2, "speed:=[1, a]"),
        (["spin", "--speed", "3"], [], 2, "unknown argument '--speed'"),
        (["done"], [], 0, "cleaned up"),
    ],
)
def test_exit_statuses_and_one_line_errors(ros_domain, arguments, ros, status, words):
    found, said = finish(run_program(*arguments, ros=ros))
    assert (found, words in said, "Traceback" in said) == (status, True, False), said


def test_a_bug_keeps_its_traceback(ros_domain):
    status, said = finish(run_program("bug"))
    assert status == 1
    assert "ZeroDivisionError" in said
    assert "cleaned up" in said


def test_without_autostart_the_node_waits(ros_domain):
    process = run_program("waiting")
    assert any("made" in line for line in process.stdout)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    status, said = finish(process)
    assert status == 0
    assert "configured" not in said
