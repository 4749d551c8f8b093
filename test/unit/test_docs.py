"""Documents say what is so: what is derived from the code is current, links lead somewhere, settings are all shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssada_core.settings import Settings, merge, parse_settings
from ssada_ros.adaptation_settings import AdaptationNodeSettings
from ssada_ros.segmentation_settings import SegmentationSettings

REPOSITORY = Path(__file__).resolve().parents[2]
NODES: dict[str, type[Settings]] = {
    "segmentation_node": SegmentationSettings,
    "adaptation_node": AdaptationNodeSettings,
}
VEHICLE = {
    ("segmentation_node", "model"): "ssada/registry",
    ("adaptation_node", "gate.policy"): "manual",
}
"""All that a vehicle's parameters file may differ in from the defaults."""
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])


def test_what_follows_from_the_code_is_current():
    """Includes README's topics and services where rclpy is installed; ``make docs`` writes them again."""
    result = subprocess.run(
        [sys.executable, "scripts/generate.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == 0, f"run `make docs`: {result.stdout}{result.stderr}"


def shown_parameters() -> dict[str, dict[str, Any]]:
    """config/ssada.yaml with the commented-out empty lists put back."""
    text = (REPOSITORY / "config" / "ssada.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(re.sub(r"^( +)# (\w+: \[\])$", r"\1\2", text, flags=re.MULTILINE))
    return {key.removeprefix("/**/"): content["ros__parameters"] for key, content in values.items()}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return result


@pytest.mark.parametrize("node", NODES)
def test_the_parameters_file_shows_every_setting_with_its_default(node: str):
    shown, defaults = flat(shown_parameters()[node]), flat(NODES[node]().model_dump(mode="json"))
    assert list(shown.keys() ^ defaults.keys()) == []
    different = {(node, name): shown[name] for name in defaults if shown[name] != defaults[name]}
    assert different == {key: value for key, value in VEHICLE.items() if key[0] == node}
    # ROS takes the type from the value: 5 would be refused where 5.0 is meant.
    assert {name: type(value) for name, value in shown.items()} == {
        name: type(value) for name, value in defaults.items()
    }


@pytest.mark.parametrize("node", NODES)
def test_the_parameters_file_is_accepted(node: str):
    parse_settings(NODES[node], shown_parameters()[node], source="config/ssada.yaml")


@pytest.mark.parametrize("name", ["demo", "demo_bag"])
def test_the_demos_configurations_are_accepted(name: str):
    from ssada_ros.demo_settings import DemoSettings

    values = yaml.safe_load((REPOSITORY / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    settings = parse_settings(DemoSettings, values, source=name)
    assert merge(settings.model_dump(mode="json"), values) == settings.model_dump(mode="json")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_and_pictures_lead_to_files(document: Path):
    text = document.read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_files_named_in_code_words_exist(document: Path):
    """`test/unit/test_imports.py` and the like: paths into the repository, in documents."""
    named = re.findall(
        r"`((?:ssada_core|ssada_ros|test|scripts|config|docs|launch|models)/[\w./-]+\.\w+)`", document.read_text()
    )
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_the_readme_names_commands_that_exist():
    from typer.main import get_command

    import ssada_ros.cli

    group = get_command(ssada_ros.cli.app)
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^ *|`)ssada ([a-z]+)", text, flags=re.MULTILINE))
    assert named, "the README shows no command"
    assert named <= set(group.commands)


@pytest.mark.parametrize(
    "words",
    ["2407.12788", "10.1109/TITS.2022.3210759", "2208.09910", "1808.00897", "2004.02147", "Brostow"],
)
@pytest.mark.parametrize("name", ["README.md", "CITATION.cff"])
def test_the_papers_are_acknowledged(name: str, words: str):
    assert words in (REPOSITORY / name).read_text(encoding="utf-8")


def test_the_citation_is_yaml_of_its_format():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])


def test_the_licence_is_apache():
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert len(text.splitlines()) > 190
