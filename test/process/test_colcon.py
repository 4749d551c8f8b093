"""``colcon build`` of a copy of the tree succeeds, and the built executables start and end as processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
COLCON = Path(sys.executable).with_name("colcon")
TIMEOUT_S = 180.0

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install space of a build outside the source tree."""
    if not COLCON.exists():
        pytest.skip("colcon is not installed in this environment: pip install '.[test]'")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("needs the git checkout: a copy without build leftovers is taken from it")
    workspace = tmp_path_factory.mktemp("workspace")
    for name in filter(lambda name: (REPOSITORY / name).is_file(), listed.stdout.splitlines()):
        target = workspace / "src" / "ssada_ros" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, target)
    built = subprocess.run(
        [COLCON, "build"],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "Finished <<< ssada_ros" in built.stdout
    return workspace / "install"


def in_install_space(install: Path, command: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a command as a user would: the install space sourced, nothing of the source tree on the path."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = f". {install}/local_setup.bash && exec {command}"
    return subprocess.Popen(["bash", "-c", script], cwd=cwd, env=variables, text=True, **options)


def output_of(install: Path, command: str, cwd: Path) -> str:
    process = in_install_space(install, command, cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, out + err
    return out


def test_the_install_space_holds_the_package_and_its_files(install: Path):
    prefix = install / "ssada_ros"
    executables = {path.name for path in (prefix / "lib" / "ssada_ros").iterdir()}
    assert executables == {
        "ssada",
        "segmentation_node",
        "adaptation_node",
        "camera_node",
        "oracle_node",
        "foxglove_node",
        "annotator_node",
    }
    share = prefix / "share" / "ssada_ros"
    for name in (
        "package.xml",
        "launch/ssada.launch.py",
        "launch/replay.launch.py",
        "config/ssada.yaml",
        "config/vehicle.yaml",
        "config/fastdds_profile.xml",
    ):
        assert (share / name).read_bytes() == (REPOSITORY / name).read_bytes()
    assert (prefix / "share" / "ament_index" / "resource_index" / "packages" / "ssada_ros").is_file()
    models = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "models").rglob("*") if path.is_file()}
    assert [str(path) for path in models if not (share / path).is_file()] == []


def test_modules_and_shipped_files_come_from_the_install_space(install: Path, tmp_path: Path):
    program = (
        "from importlib.resources import files; import ssada_core.evaluation.report as r; "
        "from ssada_core.resources import resource; print(r.__file__); print(resource('config/demo.yaml')); "
        "print(files('ssada_core.evaluation').joinpath('report.html'))"
    )
    places = output_of(install, f"{sys.executable} -c {program!r}", tmp_path).split()
    assert len(places) == 3
    assert [place for place in places if not place.startswith(str(install)) or not Path(place).is_file()] == []


def test_the_built_command_line_works(install: Path, tmp_path: Path):
    assert "segmentation" in output_of(install, f"{install}/ssada_ros/lib/ssada_ros/ssada --help", tmp_path)


def test_the_built_camera_publishes_and_ends(install: Path, tmp_path: Path, ros_domain: int):
    node = f"{install}/ssada_ros/lib/ssada_ros/camera_node"
    output_of(install, f"{node} --ros-args -p limit:=3 -p rate:=20.0 -p width:=64 -p height:=48", tmp_path)


def test_the_built_nodes_start_with_the_shipped_parameters_and_end_on_ctrl_c(
    install: Path, tmp_path: Path, ros_domain: int
):
    """Both run in a folder whose registry has a model, as a vehicle's would."""
    add_model(tmp_path / "ssada" / "registry")
    parameters = install / "ssada_ros" / "share" / "ssada_ros" / "config" / "ssada.yaml"
    heard: dict[str, str] = {}
    with listening(heard) as spin, (tmp_path / "nodes.log").open("w") as log:
        nodes = [
            in_install_space(
                install,
                f"{install}/ssada_ros/lib/ssada_ros/{name} --ros-args --params-file {parameters}",
                tmp_path,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            for name in ("segmentation_node", "adaptation_node")
        ]
        try:
            wait_until(lambda: spin() or len(heard) == 2 or any(node.poll() is not None for node in nodes))
            assert set(heard) == {"label_space", "status"}, (tmp_path / "nodes.log").read_text()
        finally:
            for node in nodes:
                node.send_signal(signal.SIGINT)
            codes = [end(node) for node in nodes]
    assert codes == [0, 0], (tmp_path / "nodes.log").read_text()
    assert '"camvid"' in heard["label_space"]
    assert '"v0001"' in heard["status"]


LAUNCHER = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
service = LaunchService()
given = [tuple(argument.split(":=")) for argument in arguments]
service.include_launch_description(
    IncludeLaunchDescription(PythonLaunchDescriptionSource(file), launch_arguments=given)
)
sys.exit(service.run())
"""


def launched(install: Path, file: str, *arguments: str, cwd: Path, log: Any) -> subprocess.Popen[str]:
    """What ``ros2 launch`` does, in the install space; the launch library comes from wherever it is here."""
    reason = "launch and launch_ros come with a ROS 2 installation, not from PyPI"
    modules = [pytest.importorskip(name, reason=reason) for name in ("launch.actions", "launch_ros.actions")]
    places = os.pathsep.join(str(Path(str(module.__file__)).parents[2]) for module in modules)
    (cwd / "launcher.py").write_text(LAUNCHER)
    path = install / "ssada_ros" / "share" / "ssada_ros" / "launch" / file
    command = " ".join([f'PYTHONPATH="$PYTHONPATH:{places}"', sys.executable, "launcher.py", str(path), *arguments])
    return in_install_space(
        install, f"env {command}", cwd, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def test_the_launch_file_starts_both_nodes_and_a_killed_one_again(install: Path, tmp_path: Path, ros_domain: int):
    import psutil

    add_model(tmp_path / "ssada" / "registry")
    parameters = install / "ssada_ros" / "share" / "ssada_ros" / "config" / "ssada.yaml"
    heard: dict[str, str] = {}
    with listening(heard, "/robot1") as spin, (tmp_path / "launch.log").open("w") as log:
        arguments = ("namespace:=/robot1", f"params_file:={parameters}", "cameras:=f=on,r=/rear/image")
        process = launched(install, "ssada.launch.py", *arguments, cwd=tmp_path, log=log)
        try:
            wait_until(lambda: spin() or len(heard) == 2 or process.poll() is not None)
            assert set(heard) == {"label_space", "status"}, (tmp_path / "launch.log").read_text()
            heard.clear()
            children = psutil.Process(process.pid).children(recursive=True)
            (node,) = [child for child in children if any("lib/ssada_ros/segmentation" in c for c in child.cmdline())]
            node.kill()
            wait_until(lambda: spin() or "label_space" in heard or process.poll() is not None)
            assert "label_space" in heard, (tmp_path / "launch.log").read_text()
        finally:
            os.killpg(process.pid, signal.SIGINT)  # as the terminal does
            code = end(process)
    said = (tmp_path / "launch.log").read_text()
    assert code == 0, said
    assert "cameras: on, /rear/image" in said


def test_the_replay_launch_file_plays_a_recording_to_its_end(install: Path, tmp_path: Path, ros_domain: int):
    from ssada_core.data.bags import BagFrame, write_bag
    from ssada_core.data.simulated_drive import SimulatedDrive

    drive = SimulatedDrive(seed=1, size=(48, 64), rate=5.0)
    frames = (BagFrame(10**9 * (i + 1), "front", drive.frame(i, "day")[0], None, None) for i in range(4))
    write_bag(tmp_path / "drive", frames, compressed=False)
    add_model(tmp_path / "registry")
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(f'/**/segmentation_node:\n  ros__parameters:\n    model: "{tmp_path / "registry"}"\n')
    with (tmp_path / "launch.log").open("w") as log:
        arguments = (f"bag:={tmp_path / 'drive'}", f"params_file:={parameters}", "rate:=10")
        process = launched(install, "replay.launch.py", *arguments, cwd=tmp_path, log=log)
        try:
            wait_until(lambda: process.poll() is not None)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            code = end(process)
    said = (tmp_path / "launch.log").read_text()
    assert code == 0, said
    assert "ended after 4 frames" in said
    assert "masks by v0001" in said


def add_model(registry: Path) -> None:
    from ssada_core.labels import CAMVID
    from ssada_core.networks.build import build_network
    from ssada_core.networks.settings import NetworkSettings
    from ssada_core.store.manifest import ModelManifest
    from ssada_core.store.registry import ModelRegistry

    network = NetworkSettings(input_height=64, input_width=64)
    state = build_network(network, CAMVID.num_classes, pretrained=False).state_dict()
    manifest = ModelManifest(version="", created="", network=network, label_space=CAMVID.to_dict())
    models = ModelRegistry(registry)
    models.promote(models.add(state, manifest))


@contextmanager
def listening(heard: dict[str, str], namespace: str = "") -> Iterator[Callable[[], bool]]:
    """Subscribe to what both nodes latch; yields a function that spins once and returns False."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from std_msgs.msg import String

    from ssada_ros.qos import latched_profile

    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("listener", context=context, namespace=namespace)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    for topic in ("segmentation_node/label_space", "adaptation_node/status"):
        name = topic.rpartition("/")[2]
        node.create_subscription(
            String, topic, lambda message, name=name: heard.__setitem__(name, message.data), latched_profile()
        )
    try:
        yield lambda: bool(executor.spin_once(timeout_sec=0.1))
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def end(node: subprocess.Popen[str]) -> int:
    try:
        return node.wait(timeout=30)
    except subprocess.TimeoutExpired:
        node.kill()
        return node.wait()
