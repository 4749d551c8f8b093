"""``ssada up`` with the real nodes: started, kept running, stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from ssada_ros.cli import main; sys.exit(main())"
NODES = ("segmentation_node", "adaptation_node")
TIMEOUT_S = 120.0

pytestmark = pytest.mark.ros


class Up:
    """A running ``ssada up`` whose nodes wait to be configured, unless the parameters say otherwise."""

    def __init__(self, folder, *options, parameters="/**:\n  ros__parameters:\n    autostart: false\n"):
        self.logs = folder / "logs"
        path = folder / "parameters.yaml"
        path.write_text(parameters)
        command = [sys.executable, "-c", PROGRAM, "up", "--parameters", path, "--log-dir", self.logs, *options]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def nodes(self):
        """Name to process of the running nodes."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            if child.status() != psutil.STATUS_ZOMBIE:
                found.update({name: child for name in NODES if f"ssada_ros.{name}" in child.cmdline()})
        return found

    def until(self, condition):
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, [path.read_text() for path in self.logs.glob("*.log")]
            time.sleep(0.05)

    def end(self, number=None):
        """Exit status and what was said, after a signal if one is given."""
        if number is not None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, " ".join(said.split())


def is_gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_runs_both_nodes_until_told_to_stop(ros_domain, tmp_path, end):
    with Up(tmp_path) as up:
        up.until(lambda: len(up.nodes()) == 2)
        children = up.nodes().values()
        status, said = up.end(end)
    assert status == 0, said
    assert said.startswith("running: segmentation_node, adaptation_node; logs in")
    assert said.endswith("stopping")
    assert all(map(is_gone, children))


def test_the_first_end_stops_everything_without_restarts(ros_domain, tmp_path):
    with Up(tmp_path, "--restarts", "0") as up:
        up.until(lambda: len(up.nodes()) == 2)
        children = up.nodes()
        children["adaptation_node"].kill()
        status, said = up.end()
    assert status == 1
    assert "error: adaptation_node was ended by SIGKILL" in said
    assert all(map(is_gone, children.values()))


def test_a_killed_segmentation_node_is_back_with_its_model(ros_domain, tmp_path):
    """The seconds it took are printed (``pytest -s``): at most 5 are asked for."""
    import rclpy
    from ros_fixtures import make_registry
    from std_msgs.msg import String

    from ssada_core.inference.export import deploy
    from ssada_ros.qos import latched_profile

    make_registry(tmp_path / "registry", deploy=lambda model_dir: deploy(model_dir) and None)
    parameters = (  # --camera wins over every section
        '/**:\n  ros__parameters:\n    cameras: ["early"]\n'
        f'/**/segmentation_node:\n  ros__parameters:\n    cameras: ["late"]\n    model: "{tmp_path / "registry"}"\n'
        "/**/adaptation_node:\n  ros__parameters:\n    autostart: false\n"
    )
    rclpy.init()
    node = rclpy.create_node("watcher", namespace="/robot1")
    heard: list[str] = []
    node.create_subscription(
        String, "segmentation_node/label_space", lambda message: heard.append(message.data), latched_profile()
    )
    try:
        with Up(tmp_path, "--namespace", "/robot1", "--camera", "front=/front/on", parameters=parameters) as up:
            up.until(lambda: rclpy.spin_once(node, timeout_sec=0.05) or heard)
            first, others = up.nodes()["segmentation_node"], up.nodes()["adaptation_node"]
            heard.clear()
            killed = time.monotonic()
            first.kill()
            up.until(lambda: rclpy.spin_once(node, timeout_sec=0.05) or heard)
            print(f"restart after SIGKILL: {time.monotonic() - killed:.1f} s")  # noqa: T201
            up.until(lambda: up.nodes().keys() == set(NODES))
            assert up.nodes()["segmentation_node"].pid != first.pid
            assert up.nodes()["adaptation_node"].pid == others.pid
            assert "/robot1/segmentation_node/front/mask" in dict(node.get_topic_names_and_types())
            status, said = up.end(signal.SIGINT)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    assert status == 0, said
    assert "segmentation_node was ended by SIGKILL" in said


def test_foxglove_is_served_beside_the_nodes_and_stops_with_them(ros_domain, tmp_path):
    pytest.importorskip("foxglove", reason="the Foxglove SDK is not installed: pip install '.[foxglove]'")
    from websockets.sync.client import connect

    parameters = (
        "/**:\n  ros__parameters:\n    autostart: false\n"
        "/**/foxglove_node:\n  ros__parameters:\n    autostart: true\n    port: 0\n"
    )
    with Up(tmp_path, "--foxglove", parameters=parameters) as up:
        address = re.compile(r"open (ws://127\.0\.0\.1:\d+)")
        log = up.logs / "foxglove_node.log"
        up.until(lambda: log.exists() and address.search(log.read_text()) and len(up.nodes()) == 2)
        url = address.search(log.read_text())[1]
        with connect(url, subprotocols=["foxglove.sdk.v1"], open_timeout=30) as viewer:
            assert json.loads(viewer.recv(30))["op"] == "serverInfo"
            channels = set()
            while "/segmentation_node/transition_event" not in channels:  # the other nodes' topics are offered
                told = viewer.recv(30)
                if isinstance(told, str) and json.loads(told)["op"] == "advertise":
                    channels |= {channel["topic"] for channel in json.loads(told)["channels"]}
        status, said = up.end(signal.SIGINT)
    assert status == 0, said
    assert said.startswith("running: segmentation_node, adaptation_node, foxglove_node; logs in")
    with pytest.raises(OSError, match="refused"):
        connect(url, open_timeout=5)


def test_wrong_parameters_of_the_adaptation_switch_it_off_and_the_masks_go_on(ros_domain, tmp_path):
    wrong = (
        "/**/segmentation_node:\n  ros__parameters:\n    autostart: false\n"
        "/**/adaptation_node:\n  ros__parameters:\n    registry_dri: x\n"
    )
    with Up(tmp_path, parameters=wrong) as up:
        up.until(lambda: len(up.nodes()) == 2)
        adaptation = up.nodes()["adaptation_node"]
        up.until(lambda: not adaptation.is_running())  # its status has been taken
        time.sleep(1.0)
        assert list(up.nodes()) == ["segmentation_node"]
        status, said = up.end(signal.SIGINT)
    assert status == 0, said
    assert "did you mean 'registry_dir'?); switched off, the others go on stopping" in said


def test_wrong_parameters_of_a_node_end_it_with_status_2(ros_domain, tmp_path):
    wrong = "/**/segmentation_node:\n  ros__parameters:\n    modle: sim-day\n"
    with Up(tmp_path, parameters=wrong) as up:
        status, said = up.end()
    assert status == 2
    assert "segmentation_node ended with status 2" in said
    assert "did you mean 'model'?" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--parameters", "none.yaml"], "--parameters none.yaml: no such file"),
        (["--log-level", "warning"], "--log-level 'warning' (did you mean 'warn'?)"),
        (["--camera", "front=/front", "--camera", "/rear"], "names only some of them"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, words):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "up", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
