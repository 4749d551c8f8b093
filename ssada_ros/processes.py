"""One description of the processes, read by the launch files, ``ssada up``, ``ssada demo`` and the tests."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ssada_core.errors import ConfigError, SsadaError
from ssada_core.resources import resource

SEGMENTATION, ADAPTATION, CAMERA, FOXGLOVE = "segmentation_node", "adaptation_node", "camera_node", "foxglove_node"

FASTDDS_PROFILE = "config/fastdds_profile.xml"
FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
CYCLONEDDS_PROFILE = "config/cyclonedds.xml"
CYCLONEDDS_VARIABLE = "CYCLONEDDS_URI"
DDS_VARIABLES = (*FASTDDS_VARIABLES, CYCLONEDDS_VARIABLE)
_OLD_FASTDDS = frozenset({"humble", "iron", "jazzy"})


@dataclass(frozen=True)
class ProcessDescription:
    """A process of the product.

    Attributes:
        name: of the node and of the log file.
        module: run with ``python -m``.
        parameters_file: ROS params file, or None.
        namespace: of the node, such as ``/robot1``; empty for none.
        remappings: topic names, from → to.
        arguments: before the ROS arguments.
        log_level: debug, info, warn, error, fatal; empty for ROS's default.
        use_sim_time: take the time from ``/clock``.
        nice: added to the niceness.
        ros: whether the module is a node; else only ``arguments`` are passed.
        parameters: given beside the file, and stronger than it; values as YAML has them.
        essential: everything stops when it cannot be kept running.
        may_end: its end with status 0 is the end of the work, as that of a recording.
    """

    name: str
    module: str
    parameters_file: Path | None = None
    namespace: str = ""
    remappings: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    log_level: str = ""
    use_sim_time: bool = False
    nice: int = 0
    ros: bool = True
    parameters: Mapping[str, object] = field(default_factory=dict)
    essential: bool = True
    may_end: bool = False

    def ros_arguments(self) -> list[str]:
        """Return what follows ``--ros-args`` on the command line, it included; empty if it is no node."""
        if not self.ros:
            return []
        rules = {"__node": self.name, **({"__ns": self.namespace} if self.namespace else {}), **self.remappings}
        arguments = ["--ros-args", *(part for old, new in rules.items() for part in ("-r", f"{old}:={new}"))]
        if self.parameters_file is not None:
            files = (self.parameters_file, self.overrides_file())
            arguments += [part for path in files if path is not None for part in ("--params-file", str(path))]
        else:
            given = self.overrides().items()
            arguments += [part for name, value in given for part in ("-p", f"{name}:={json.dumps(value)}")]
        return [*arguments, "--log-level", self.log_level] if self.log_level else arguments

    def overrides(self) -> dict[str, object]:
        """Return the parameters that are stronger than the file's; simulated time only where it is asked for here."""
        return {**({"use_sim_time": True} if self.use_sim_time else {}), **self.parameters}

    def overrides_file(self) -> Path | None:
        """Write the overrides as a params file to be given last, and return it; None if there are none.

        rcl keeps one entry for a node's key, where that key came first, and a later entry wins. What ``-p`` gives has
        the key ``/**``: it would join a ``/**`` at the head of the user's file, and lose to all that follows it there.
        So the key has more wildcards than that file, which matches the same node and comes last.

        Raises:
            SsadaError: if it cannot be written.
        """
        if not self.overrides():
            return None
        key = "/**" * (1 + _wildcards(self.parameters_file)) + f"/{self.name}"
        # JSON is YAML in which every string is quoted, so that a topic named "on" stays one.
        content = json.dumps({key: {"ros__parameters": self.overrides()}})
        path = Path(_folder().name) / f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.yaml"
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)  # a cleaner of temporary files may have been here
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            raise SsadaError(f"{path}: parameters cannot be handed over ({error.strerror}): make room there") from error
        return path

    def command(self) -> list[str]:
        """Return the command line with which this process, as the parent, starts it."""
        wrapper = [sys.executable, "-m", "ssada_ros.process_child", "--parent", str(os.getpid())]
        return [*wrapper, "--nice", str(self.nice), self.module, *self.arguments, *self.ros_arguments()]


@cache
def _folder() -> TemporaryDirectory[str]:
    """Of the files that are handed over; goes with the process."""
    return TemporaryDirectory(prefix="ssada-")


def _wildcards(path: Path | None) -> int:
    try:
        return path.read_bytes().count(b"/**") if path is not None else 0
    except OSError:  # the node says what is wrong with its file
        return 0


def main_nodes(
    *,
    parameters_file: Path | None = None,
    namespace: str = "",
    log_level: str = "",
    use_sim_time: bool = False,
    cameras: Sequence[str] = (),
    foxglove: bool = False,
) -> list[ProcessDescription]:
    """Describe the processes of the product: masks, the adaptation beside them and, if asked for, the viewer's server.

    Args:
        parameters_file: of all nodes.
        namespace: of all nodes.
        log_level: debug, info, warn, error, fatal; empty for ROS's default.
        use_sim_time: take the time from ``/clock``.
        cameras: image topics, each as ``TOPIC`` or ``NAME=TOPIC``, in place of the file's.
        foxglove: also serve the topics to Foxglove.

    Raises:
        ConfigError: if a camera is empty, or only some have names.
    """
    parameters = camera_parameters(cameras)
    common = ProcessDescription("", "", parameters_file, namespace, log_level=log_level, use_sim_time=use_sim_time)
    nodes = [
        _node(common, SEGMENTATION, parameters=parameters),
        _node(common, ADAPTATION, parameters=parameters, essential=False),  # masks go on whatever becomes of it
    ]
    return [*nodes, _node(common, FOXGLOVE, essential=False)] if foxglove else nodes


def replay_nodes(
    bag: str,
    *,
    topic: str = "",
    rate: float = 5.0,
    adaptation: bool = False,
    parameters_file: Path | None = None,
    namespace: str = "",
    log_level: str = "",
    foxglove: bool = False,
) -> list[ProcessDescription]:
    """Describe a recording's way through the nodes; the camera node comes last, and its end is the end of the work.

    Args:
        bag: the recording.
        topic: image topic in it; empty for the only one.
        rate: frames per second.
        adaptation: whether the adaptation node runs, too.
        parameters_file: of all nodes.
        namespace: of all nodes.
        log_level: debug, info, warn, error, fatal; empty for ROS's default.
        foxglove: also serve the topics to Foxglove.

    Raises:
        ConfigError: if there is no recording.
    """
    if not Path(bag).exists() or not bag:
        raise ConfigError(f"bag '{bag}': no such recording")
    common = ProcessDescription("", "", parameters_file, namespace, log_level=log_level)
    topics: dict[str, object] = {"cameras": ["camera/image"], "camera_names": ["camera"]}
    nodes = [_node(common, SEGMENTATION, parameters=topics)]
    if adaptation:
        nodes.append(_node(common, ADAPTATION, parameters=topics))
    listeners = len(nodes)  # the first frame counts, too
    if foxglove:
        nodes.append(_node(common, FOXGLOVE, essential=False))
    play = {"source": f"bag:{Path(bag).resolve()}", "topic": topic, "rate": float(rate), "loop": False}
    return [*nodes, _node(common, CAMERA, may_end=True, parameters={**play, "wait_for_subscribers": listeners})]


def _node(common: ProcessDescription, name: str, **changes: Any) -> ProcessDescription:  # noqa: ANN401 (its fields)
    return replace(common, name=name, module=f"ssada_ros.{name}", **changes)


def camera_parameters(cameras: Sequence[str]) -> dict[str, object]:
    """Return the parameters ``cameras`` and, where they have names, ``camera_names``; none for no camera.

    Args:
        cameras: each as ``TOPIC`` or ``NAME=TOPIC``.

    Raises:
        ConfigError: if a camera is empty, or only some have names.
    """
    parts = [camera.strip().rpartition("=") for camera in cameras]
    if not all(topic for _, _, topic in parts):
        raise ConfigError(f"cameras: empty topic in '{','.join(cameras)}': TOPIC or NAME=TOPIC")
    names = [name for name, _, _ in parts if name]
    if names and len(names) != len(parts):
        raise ConfigError(f"cameras: '{','.join(cameras)}' names only some of them: name all (NAME=TOPIC) or none")
    topics = {"cameras": [topic for _, _, topic in parts]} if parts else {}
    return {**topics, **({"camera_names": names} if names else {})}


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for nodes: ``base`` (``os.environ``) and the middleware's profile unless one is set.

    Fast DDS's own shared-memory segment is smaller than one camera image, so with best effort most frames are lost;
    so are Cyclone DDS's receive buffers, which it is given a profile for where ``RMW_IMPLEMENTATION`` chooses it.

    Raises:
        ConfigError: if the profile is not installed.
    """
    variables = dict(os.environ if base is None else base)
    profile = next((variables[name] for name in FASTDDS_VARIABLES if variables.get(name)), None)
    for name in _profile_variables(variables):
        variables.setdefault(name, profile or str(resource(FASTDDS_PROFILE)))
    if "cyclonedds" in variables.get("RMW_IMPLEMENTATION", ""):
        variables.setdefault(CYCLONEDDS_VARIABLE, resource(CYCLONEDDS_PROFILE).as_uri())
    variables.setdefault("PYTHONUNBUFFERED", "1")
    return variables


def _profile_variables(variables: Mapping[str, str]) -> tuple[str, ...]:
    # Newer releases read the first name and warn, once per node, about the second, which older ones need.
    return FASTDDS_VARIABLES if variables.get("ROS_DISTRO") in _OLD_FASTDDS else FASTDDS_VARIABLES[:1]
