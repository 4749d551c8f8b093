"""What is shipped for vehicles agrees with the code: parameter files, views, service, containers, interpreters."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement

from ssada_core.settings import parse_settings
from ssada_ros.adaptation_settings import AdaptationNodeSettings
from ssada_ros.segmentation_settings import SegmentationSettings

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG, DOCKER = REPOSITORY / "config", REPOSITORY / "docker"
KINDS = {"/**/segmentation_node": SegmentationSettings, "/**/adaptation_node": AdaptationNodeSettings}
CONSTRAINTS = sorted(DOCKER.glob("constraints-*.txt"))


@pytest.mark.parametrize(("name", "precision", "device"), [("vehicle", "int8", "cpu"), ("vehicle_gpu", "fp16", "gpu")])
def test_the_parameter_files_hold_what_the_nodes_know(name: str, precision: str, device: str):
    content = yaml.safe_load((CONFIG / f"{name}.yaml").read_text(encoding="utf-8"))
    assert content.keys() == KINDS.keys()
    segmentation, adaptation = (
        parse_settings(kind, content[node]["ros__parameters"], source=f"{name}.yaml: {node}")
        for node, kind in KINDS.items()
    )
    assert adaptation.gate.policy == "manual"
    assert (segmentation.engine.precision, segmentation.engine.device) == (precision, device)
    for key in ("backend", "precision", "device"):  # what is judged is what runs
        assert getattr(segmentation.engine, key) == getattr(adaptation.engine, key)
    assert segmentation.model == adaptation.registry_dir
    assert segmentation.cameras == adaptation.cameras


def offered_topics() -> list[str]:
    """Every topic of README's table, which is asked of the nodes themselves, as a pattern."""
    table = (REPOSITORY / "README.md").read_text(encoding="utf-8").partition("generated: topics")[2]
    node, patterns = "", []
    for line in table.partition("<!-- end")[0].splitlines():
        if found := re.match(r"\| \*\*(\w+)\*\*", line):
            node = found.group(1)
        elif found := re.match(r"\| `([^`]+)` \|", line):
            topic = found.group(1).replace("~", node).replace("<camera>", "*")
            patterns.append(topic if topic.startswith("/") else f"/{topic}")
    assert "/segmentation_node/*/mask" in patterns
    return patterns


def test_the_foxglove_layout_shows_topics_that_exist():
    layout = json.loads((CONFIG / "foxglove_layout.json").read_text(encoding="utf-8"))
    panels = layout["configById"]
    assert sorted(leaves(layout["layout"])) == sorted(panels)
    texts = [panel.get("topicToRender") or panel.get("topicPath", "").partition(".")[0] for panel in panels.values()]
    texts += [panel["imageMode"]["imageTopic"] for panel in panels.values() if "imageMode" in panel]
    shown = set(filter(None, texts))
    assert {"/camera/image", "/segmentation_node/camera/overlay/compressed", "/diagnostics"} <= shown
    assert [topic for topic in shown if not exists(topic)] == []


def leaves(layout: object) -> list[str]:
    """The panels of a layout's tree."""
    if isinstance(layout, str):
        return [layout]
    assert isinstance(layout, dict)
    return leaves(layout["first"]) + leaves(layout["second"])


def exists(topic: str) -> bool:
    return any(fnmatchcase(topic, pattern) for pattern in offered_topics())


def test_rviz_shows_topics_that_exist():
    displays = yaml.safe_load((CONFIG / "ssada.rviz").read_text(encoding="utf-8"))["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"] for display in displays}
    assert {"/camera/image", "/segmentation_node/camera/overlay"} <= shown
    assert [topic for topic in shown if not exists(topic)] == []


@pytest.mark.parametrize("name", ["fastdds_profile.xml", "cyclonedds.xml"])
def test_the_middlewares_profiles_are_xml(name: str):
    ElementTree.parse(CONFIG / name)


def test_the_service_is_one_that_systemd_takes(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = CONFIG / "systemd" / "ssada.service"
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    broken = tmp_path / "broken.service"
    broken.write_text(unit.read_text().replace("KillMode=mixed", "KilMode=mixed"))
    done = subprocess.run(
        ["systemd-analyze", "verify", broken], capture_output=True, text=True, check=False, timeout=60
    )
    assert "KilMode" in done.stderr


def test_the_service_starts_ssada_up_with_the_options_of_its_environment(tmp_path: Path):
    """Its command line, run by the same shell, with a program in ssada's place."""
    unit = (CONFIG / "systemd" / "ssada.service").read_text()
    (script,) = re.findall(r"^ExecStart=/bin/bash -c '(.*)'$", unit, re.MULTILINE)
    variables = {"PATH": os.environ["PATH"], "SSADA": "echo", "SSADA_OPTIONS": "--parameters /etc/x.yaml"}
    said = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "up --log-dir - --parameters /etc/x.yaml\n"
    setup = tmp_path / "setup.bash"
    setup.write_text("export SSADA_OPTIONS=sourced\n")
    variables["ROS_SETUP"] = str(setup)
    said = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "up --log-dir - sourced\n"


@pytest.mark.parametrize("path", sorted(DOCKER.glob("Dockerfile*")), ids=lambda path: path.name)
def test_a_container_takes_files_that_exist(path: Path):
    text = path.read_text(encoding="utf-8")
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (REPOSITORY / source).exists()
    for argument, values in {"ROS_DISTRO": ("humble", "jazzy", "kilted", "lyrical"), "JETPACK": ("6", "7")}.items():
        for pattern in set(re.findall(rf"docker/(constraints-\w*\${{{argument}}}\.txt)", text)):
            for value in values:
                assert (DOCKER / pattern.replace(f"${{{argument}}}", value)).is_file()
    assert "constraints-" in text


def core_requirements() -> list[Requirement]:
    """What ``setup.py`` asks for, without its extras."""
    tree = ast.parse((REPOSITORY / "setup.py").read_text(encoding="utf-8"))
    (given,) = [
        word.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "install_requires"
    ]
    texts = [element.value for element in ast.walk(given) if isinstance(element, ast.Constant)]
    assert len(texts) > 10
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_pins_are_what_the_package_asks_for(path: Path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pins = {requirement.name: requirement for requirement in map(Requirement, lines)}
    asked_for = [wanted for wanted in core_requirements() if wanted.name.lower() in pins]
    assert len(asked_for) > 15
    for wanted in asked_for:
        pinned = next(iter(pins[wanted.name.lower()].specifier))
        assert pinned.operator == "=="
        assert wanted.specifier.contains(pinned.version), wanted
    major = next(iter(pins["numpy"].specifier)).version.partition(".")[0]
    assert major == ("2" if "lyrical" in path.stem else "1")  # what apt's compiled messages were built for
    assert not {"opencv-python", "opencv-python-headless", "cv-bridge"} & pins.keys()


@pytest.mark.parametrize("minor", [10, 11, 12, 13])
def test_every_file_compiles_on_every_interpreter_at_hand(minor: int):
    python = shutil.which(f"python3.{minor}")
    variables = {**os.environ, "PYENV_VERSION": f"3.{minor}"}  # pyenv's shims ask for it
    variables.pop("PYTHONPATH", None)
    if python is None or subprocess.run([python, "-c", ""], env=variables, capture_output=True, check=False).returncode:
        pytest.skip(f"Python 3.{minor} is not on this machine")
    program = (
        "import ast, pathlib, sys\n"
        "assert sys.version_info[:2] == (3, int(sys.argv[1]))\n"
        "for folder in sys.argv[2:]:\n"
        "    for path in pathlib.Path(folder).rglob('*.py'):\n"
        "        compile(path.read_text(encoding='utf-8'), str(path), 'exec', dont_inherit=True)\n"
    )
    folders = [str(REPOSITORY / name) for name in ("ssada_core", "ssada_ros", "launch")]
    command = [python, "-c", program, str(minor), *folders]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
