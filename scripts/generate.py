"""Write what follows from the code: ``config/ssada.yaml``, ``docs/schemas/``, ``docs/parameters.md``, README's tables.

    python scripts/generate.py            write
    python scripts/generate.py --check    say what is out of date; exit status 1 if anything is

README's tables of topics and services need ``rclpy``; all else does not. ``test/unit/test_docs.py`` runs the check.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, RootModel
from pydantic.fields import FieldInfo

from ssada_core.adaptation.dossier import Dossier
from ssada_core.adaptation.expectations import Expectations
from ssada_core.adaptation.gate import Decision
from ssada_core.adaptation.round import RoundResult, RoundSpec
from ssada_core.learning.progress import Progress
from ssada_core.replay.figures import ReplayReport
from ssada_core.settings import Settings
from ssada_core.store.manifest import ModelManifest
from ssada_ros.adaptation_settings import AdaptationNodeSettings
from ssada_ros.camera_settings import CameraSettings
from ssada_ros.foxglove_settings import FoxgloveSettings
from ssada_ros.segmentation_settings import SegmentationSettings

REPOSITORY = Path(__file__).resolve().parent.parent
NODES: dict[str, type[Settings]] = {
    "segmentation_node": SegmentationSettings,
    "adaptation_node": AdaptationNodeSettings,
}
VEHICLE: dict[str, dict[str, Any]] = {
    "segmentation_node": {"model": "ssada/registry"},
    "adaptation_node": {"gate.policy": "manual"},
}
"""Where a vehicle's parameters file differs from the defaults: one registry for both, and a human promotes."""

HEADER = """\
# ROS parameters of both nodes, every one of them, for a vehicle. Copy the file, change what differs, delete the rest:
#   ssada up --parameters vehicle.yaml        or, with ROS 2 installed,
#   ros2 launch ssada_ros ssada.launch.py params_file:=/path/vehicle.yaml
# A misspelt key or a value out of range stops the node, with the right one named.
# The values are the defaults, but for those marked "vehicle". Written by scripts/generate.py from the settings classes.
"""


class JudgedRound(Decision):
    """``decision.json`` of a round that was judged."""

    version: str
    champion: str
    round: RoundResult


class FailedRound(BaseModel):
    """``decision.json`` of a round that failed."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["failed"]
    words: str


class DecisionFile(RootModel[JudgedRound | FailedRound]):
    """``decision.json`` of a round: the gate's decision with the round's result, or why the round failed."""


def leaves(settings: Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """Dotted name, field and value of every setting."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


def parameters_file() -> str:
    """The content of ``config/ssada.yaml``."""
    parts = [HEADER]
    for node, kind in NODES.items():
        parts.append(f"\n/**/{node}:\n  ros__parameters:\n")
        parts.extend(_yaml_lines(kind(), VEHICLE[node], indent=4, prefix=""))
    return "".join(parts)


def _yaml_lines(settings: Settings, vehicle: Mapping[str, Any], *, indent: int, prefix: str) -> Iterator[str]:
    space = " " * indent
    # Scalars before groups, so that a reader sees what belongs to the node itself first.
    for name, field in sorted(type(settings).model_fields.items(), key=lambda item: _is_group(settings, item[0])):
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield f"\n{space}{name}:\n"
            yield from _yaml_lines(value, vehicle, indent=indent + 2, prefix=f"{prefix}{name}.")
            continue
        yield from (f"{space}# {line}\n" for line in _wrap(_describe(field), 116 - indent))
        key = f"{prefix}{name}"
        if key in vehicle:
            yield f"{space}{name}: {_scalar(vehicle[key])}  # vehicle; default {_scalar(value)}\n"
        elif value == []:  # rcl knows no type for an empty list
            yield f"{space}# {name}: []\n"
        else:
            yield f"{space}{name}: {_scalar(value)}\n"


def _is_group(settings: Settings, name: str) -> bool:
    return isinstance(getattr(settings, name), Settings)


def _scalar(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _describe(field: FieldInfo) -> str:
    return " ".join(filter(None, [field.description, _range(field)]))


def _range(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return f"[{' | '.join(map(str, get_args(field.annotation)))}]"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [(sign, item, name) for item in field.metadata for name, sign in signs.items() if hasattr(item, name)]
    bounds = [f"{sign} {getattr(item, name):g}" for sign, item, name in found]
    return f"[{', '.join(bounds)}]" if bounds else ""


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def parameter_table(settings: Settings, *, groups: bool = True) -> str:
    """A Markdown table of a node's parameters; without groups, nested ones are left out."""
    rows = [
        f"| `{name}` | `{_scalar(value)}` | {_describe(field).replace('|', 'or')} |"
        for name, field, value in leaves(settings)
        if groups or "." not in name
    ]
    return "\n".join(["| parameter | default | meaning |", "| --- | --- | --- |", *rows])


def parameters_page() -> str:
    """The content of ``docs/parameters.md``."""
    parts = ["# Parameters\n\nWritten by `scripts/generate.py` from the settings classes; ranges in brackets.\n"]
    kinds: dict[str, type[Settings]] = {**NODES, "camera_node": CameraSettings, "foxglove_node": FoxgloveSettings}
    for name, kind in kinds.items():
        parts.append(f"\n## {name}\n\n{parameter_table(kind())}\n")
    return "".join(parts)


def schemas() -> dict[str, dict[str, Any]]:
    """Schema by name, of every JSON file that others read and a model describes."""
    models: dict[str, type[BaseModel]] = {
        "manifest": ModelManifest,
        "round": RoundSpec,
        "progress": Progress,
        "result": RoundResult,
        "decision": DecisionFile,
        "expectations": Expectations,
        "dossier": Dossier,
        "report": ReplayReport,
    }
    return {name: model.model_json_schema() for name, model in models.items()}


def readme(current: str) -> str:
    """``README.md`` with its generated parts replaced; those that need ROS stay as they are where it is missing."""
    parts = {
        "segmentation parameters": parameter_table(SegmentationSettings()),
        "adaptation parameters": parameter_table(AdaptationNodeSettings(), groups=False),
    }
    if importlib.util.find_spec("rclpy") is not None:
        from ros_interface import tables

        parts |= tables()
    for name, content in parts.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, found_begin, rest = current.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise ValueError(f"README.md: the markers of '{name}' are missing")
        current = f"{before}{begin}{content}\n{end}{after}"
    return current


def generated() -> dict[Path, str]:
    """Every derived file and what it should hold."""
    readme_path = REPOSITORY / "README.md"
    return {
        REPOSITORY / "config" / "ssada.yaml": parameters_file(),
        REPOSITORY / "docs" / "parameters.md": parameters_page(),
        readme_path: readme(readme_path.read_text(encoding="utf-8")),
        **{
            REPOSITORY / "docs" / "schemas" / f"{name}.schema.json": json.dumps(schema, indent=2) + "\n"
            for name, schema in schemas().items()
        },
    }


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if something is out of date")
    check = parser.parse_args().check
    files = generated()
    stale = [path for path, content in files.items() if not path.exists() or path.read_text("utf-8") != content]
    for path in stale:
        sys.stdout.write(f"{'out of date' if check else 'written'}: {path.relative_to(REPOSITORY)}\n")
        if not check:
            path.write_text(files[path], encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
