"""The house stands: rooms import only from rooms below, the core knows no ROS, optional packages stay optional."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = (
    "errors",
    "settings",
    "label_tables",
    "labels",
    "resources",
    "data",
    "networks",
    "store",
    "inference",
    "annotation",
    "evaluation",
    "learning",
    "adaptation",
    "replay",
    "bench",
    "config",
    "commands",
    "cli",
)
"""From the ground up; docs/architecture.md draws the same."""
ROS = {
    "rclpy",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "rcl_interfaces",
    "builtin_interfaces",
    "vision_msgs",
    "cv_bridge",
    "launch",
    "launch_ros",
    "ament_index_python",
    "ssada_ros",
}
OPTIONAL = (
    "openvino",
    "tensorrt",
    "tensorboard",
    "rclpy",
    "ssada_ros",
    "sensor_msgs",
    "vision_msgs",
    "cv_bridge",
    "nncf",
    "launch",
    "foxglove",
    "fastapi",
    "uvicorn",
    "label_studio_sdk",
)


def core_files() -> list[Path]:
    return sorted((REPOSITORY / "ssada_core").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_every_file_of_the_core_lies_in_a_known_room():
    rooms = {path.relative_to(REPOSITORY / "ssada_core").parts[0].removesuffix(".py") for path in core_files()}
    assert rooms - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("path", core_files(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_room_imports_only_from_itself_and_from_rooms_below(path: Path):
    room = path.relative_to(REPOSITORY / "ssada_core").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    floor = ROOMS.index(room)
    above = [name for name in imported(path) if name.startswith("ssada_core.") and ROOMS.index(room_of(name)) > floor]
    assert above == []


def test_the_core_never_imports_ros():
    wrong = [(str(path), name) for path in core_files() for name in imported(path) if name.partition(".")[0] in ROS]
    assert wrong == []


def test_no_module_imports_itself_in_a_circle():
    """Inside a room any order is fine, but a circle between files would depend on who is imported first."""
    modules = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in core_files()}
    edges = {
        name: {found for text in imported(path) for found in (text, text.rpartition(".")[0]) if found in modules}
        for name, path in modules.items()
    }
    remaining = dict(edges)
    while free := [name for name, targets in remaining.items() if not (targets - {name}) & remaining.keys()]:
        for name in free:
            del remaining[name]
    assert sorted(remaining) == []


EVERY_COMMAND = ", ".join(
    f"ssada_core.commands.{path.stem}" for path in sorted((REPOSITORY / "ssada_core" / "commands").glob("[!_]*.py"))
)
"""The command line imports them when they are asked for."""


@pytest.mark.parametrize(
    "modules",
    [EVERY_COMMAND, "ssada_core.adaptation.worker", "ssada_core.adaptation.adapter"],
    ids=lambda text: text[:32],
)
def test_importing_the_core_needs_no_optional_package(modules: str):
    program = f"import json, sys; import {modules}; print(json.dumps([m for m in {OPTIONAL!r} if m in sys.modules]))"
    assert json.loads(run(program)) == []


def test_the_command_line_starts_without_ros():
    """``ssada_ros.cli`` is what ``ssada`` runs: training and evaluation must work where rclpy is missing."""
    program = (
        "import sys; import ssada_ros.cli, ssada_ros.bench_commands, ssada_ros.replay_command; "
        "print([m for m in ('rclpy', 'openvino') if m in sys.modules])"
    )
    assert run(program).strip() == "[]"


HEAVY = ("torch", "torchvision", "matplotlib", "cv2", "scipy", "rosbags", "fastapi", "pydantic")


def test_help_waits_for_nothing_heavy():
    """Where PyTorch is imported, the list of commands takes three seconds."""
    program = (
        "import contextlib, io, sys; import ssada_ros.cli as cli; sys.argv = ['ssada', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()) as shown: status = cli.main()\n"
        "assert status == 0 and 'replay' in shown.getvalue(), shown.getvalue()\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run(program).strip() == "[]"


@pytest.mark.parametrize("command", ["demo", "up"])
def test_commands_that_need_ros_say_how_to_get_it(command: str):
    program = (
        f"import sys; sys.modules['rclpy'] = None; sys.argv = ['ssada', {command!r}]; "
        "import ssada_ros.cli as cli; raise SystemExit(cli.main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=120, check=False
    )
    assert result.returncode == 1
    words = " ".join((result.stdout + result.stderr).split())
    assert "needs the package 'rclpy', which is not installed: pip install 'ssada_ros[ros]'" in words
    assert "Traceback" not in words


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def run(program: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
