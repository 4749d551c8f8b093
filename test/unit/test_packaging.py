"""What is built carries what it needs, and what names the package agrees with itself."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHARE = "ssada_ros-0.1.0.data/data/share/ssada_ros"


def repository_files() -> list[str]:
    """What git knows or would take, so that a build sees no leftovers of this working tree."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip("needs the git checkout: a copy of the working tree without build leftovers is taken from it")
    return [name for name in result.stdout.splitlines() if (REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that ``pip wheel`` builds of a copy of the tree, without touching any index."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in repository_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", out]
    result = subprocess.run([*command, source], capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_carries_every_module_and_no_test(wheel: zipfile.ZipFile):
    inside = {name for name in wheel.namelist() if name.endswith(".py") and not name.startswith(SHARE)}
    source = {
        name for name in repository_files() if name.startswith(("ssada_core/", "ssada_ros/")) and name[-3:] == ".py"
    }
    assert inside == source


@pytest.mark.parametrize("name", ["ssada_core/evaluation/report.html", "ssada_core/py.typed", "ssada_ros/py.typed"])
def test_the_wheel_carries_what_is_no_python(wheel: zipfile.ZipFile, name: str):
    assert wheel.read(name) == (REPOSITORY / name).read_bytes()


def test_no_pattern_needs_a_setuptools_that_walks_folders():
    """Ubuntu 22.04's takes ** for one folder: colcon left the annotation page out."""
    assert '"**' not in (REPOSITORY / "setup.py").read_text(encoding="utf-8")


def test_the_wheel_carries_everything_that_the_packages_hold(wheel: zipfile.ZipFile):
    held = {name for name in repository_files() if name.startswith(("ssada_core/", "ssada_ros/"))}
    assert held - set(wheel.namelist()) == set()


def test_the_wheel_carries_the_shared_files(wheel: zipfile.ZipFile):
    inside = {name.removeprefix(f"{SHARE}/") for name in wheel.namelist() if name.startswith(SHARE)}
    expected = {
        name
        for name in repository_files()
        if name.startswith(("config/", "launch/", "models/")) or name == "package.xml"
    }
    assert inside == expected
    assert "ssada_ros-0.1.0.data/data/share/ament_index/resource_index/packages/ssada_ros" in wheel.namelist()


def test_the_wheel_says_what_it_needs(wheel: zipfile.ZipFile):
    metadata = Parser().parsestr(wheel.read("ssada_ros-0.1.0.dist-info/METADATA").decode())
    assert metadata["Name"] == "ssada_ros"
    assert metadata["Requires-Python"] == ">=3.10"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "ros",
        "onnxruntime",
        "openvino",
        "tensorrt",
        "cuda",
        "tensorboard",
        "annotate",
        "signature",
        "sbom",
        "labelstudio",
        "video",
        "foxglove",
        "test",
    }
    core = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert not [text for text in core if text.startswith(("ros-", "openvino"))]
    # It brings its own cv2 and collides with every other build of OpenCV.
    assert [text.partition(">")[0] for text in core if "opencv" in text] == ["opencv-contrib-python-headless"]


def test_every_extra_that_an_error_names_exists(wheel: zipfile.ZipFile):
    metadata = Parser().parsestr(wheel.read("ssada_ros-0.1.0.dist-info/METADATA").decode())
    sources = [REPOSITORY / name for name in repository_files() if name.startswith(("ssada_core/", "ssada_ros/"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.suffix == ".py")
    named = set(re.findall(r'require\([^)]*?extra="(\w+)"', text))
    assert named
    assert named <= set(metadata.get_all("Provides-Extra", []))


def test_every_console_script_leads_to_a_main(wheel: zipfile.ZipFile):
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read("ssada_ros-0.1.0.dist-info/entry_points.txt").decode())
    names = dict(scripts["console_scripts"])
    assert set(names) == {
        "ssada",
        "segmentation_node",
        "adaptation_node",
        "camera_node",
        "oracle_node",
        "foxglove_node",
        "annotator_node",
    }
    for target in names.values():
        module, _, function = target.partition(":")
        assert re.search(
            rf"^def {function}\(", (REPOSITORY / f"{module.replace('.', '/')}.py").read_text(), re.MULTILINE
        )


def test_the_manifests_agree():
    root = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    assert root.get("format") == "3"
    assert root.findtext("name") == "ssada_ros"
    assert f'version="{root.findtext("version")}"' in setup
    assert root.findtext("license") == "Apache-2.0"
    assert root.findtext("export/build_type") == "ament_python"
    assert "requires-python" not in (REPOSITORY / "pyproject.toml").read_text()  # colcon cannot build with it
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    assert config["install"]["install_scripts"] == config["develop"]["script_dir"] == "$base/lib/ssada_ros"


def test_package_xml_is_what_catkin_takes():
    """An invalid one degrades the package in silence under colcon."""
    package = pytest.importorskip(
        "catkin_pkg.package", reason="catkin_pkg comes with colcon-ros: pip install '.[test]'"
    )
    warnings: list[str] = []
    parsed = package.parse_package(str(REPOSITORY), warnings=warnings)
    parsed.validate(warnings=warnings)
    assert warnings == []
    assert {"rclpy", "sensor_msgs", "std_srvs", "diagnostic_msgs", "cv_bridge", "vision_msgs", "launch_ros"} <= {
        dependency.name for dependency in parsed.exec_depends
    }


def test_package_xml_names_every_ros_package_that_is_imported():
    root = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    named = {element.text for element in root.iter("exec_depend")}
    text = "\n".join(
        path.read_text() for folder in ("ssada_ros", "launch") for path in (REPOSITORY / folder).glob("*.py")
    )
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE))
    ros = {
        name
        for name in imported
        if name.endswith(("_msgs", "_srvs", "_interfaces")) or name in {"rclpy", "launch", "launch_ros"}
    }
    assert ros - named == set()


def test_constraints_pin_exactly_and_name_no_machine():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line)] == []
    names = {line.partition("==")[0] for line in pins}
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    required = re.findall(r'^\s+(?:\*TORCH, )?"([A-Za-z][\w-]*)(?:\[\w+\])?(?:>=[\d.]+)?",$', setup, re.MULTILINE)
    wanted = {re.sub(r"[-_.]+", "-", name).lower() for name in required} | {"torch", "torchvision"}
    assert wanted - names - {"ssada-ros"} == set()


@pytest.mark.parametrize("name", ["scripts/setup.sh", ".ci/run"])
def test_scripts_are_executable_and_valid(name: str):
    path = REPOSITORY / name
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)
