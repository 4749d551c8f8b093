"""One description of the processes, read by the launch files, ``ssada up``, ``ssada demo`` and the tests."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssada_core.errors import ConfigError
from ssada_core.resources import resource

FASTDDS_PROFILE = "config/fastdds_profile.xml"
FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
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
            arguments += ["--params-file", str(self.parameters_file)]
        if self.use_sim_time:
            arguments += ["-p", "use_sim_time:=true"]
        # JSON is YAML in which every string is quoted, so that a topic named "on" stays one.
        arguments += [
            part for name, value in self.parameters.items() for part in ("-p", f"{name}:={json.dumps(value)}")
        ]
        return [*arguments, "--log-level", self.log_level] if self.log_level else arguments

    def command(self) -> list[str]:
        """Return the command line with which this process, as the parent, starts it."""
        wrapper = [sys.executable, "-m", "ssada_ros.process_child", "--parent", str(os.getpid())]
        return [*wrapper, "--nice", str(self.nice), self.module, *self.arguments, *self.ros_arguments()]


def main_nodes(
    *,
    parameters_file: Path | None = None,
    namespace: str = "",
    log_level: str = "",
    use_sim_time: bool = False,
    cameras: Sequence[str] = (),
) -> tuple[ProcessDescription, ProcessDescription]:
    """Describe the two processes of the product: masks, and the adaptation beside them.

    Args:
        parameters_file: of both nodes.
        namespace: of both nodes.
        log_level: debug, info, warn, error, fatal; empty for ROS's default.
        use_sim_time: take the time from ``/clock``.
        cameras: image topics, each as ``TOPIC`` or ``NAME=TOPIC``, in place of the file's.

    Raises:
        ConfigError: if a camera is empty, or only some have names.
    """
    segmentation, adaptation = (
        ProcessDescription(
            name,
            f"ssada_ros.{name}",
            parameters_file=parameters_file,
            namespace=namespace,
            log_level=log_level,
            use_sim_time=use_sim_time,
            parameters=camera_parameters(cameras),
            essential=name == "segmentation_node",
        )
        for name in ("segmentation_node", "adaptation_node")
    )
    return segmentation, adaptation


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
    """Return the environment for nodes: ``base`` (``os.environ``) and the Fast DDS profile unless one is set.

    Fast DDS's own shared-memory segment is smaller than one camera image, so with best effort most frames are lost.

    Raises:
        ConfigError: if the profile is not installed.
    """
    variables = dict(os.environ if base is None else base)
    profile = next((variables[name] for name in FASTDDS_VARIABLES if variables.get(name)), None)
    for name in _profile_variables(variables):
        variables.setdefault(name, profile or str(resource(FASTDDS_PROFILE)))
    variables.setdefault("PYTHONUNBUFFERED", "1")
    return variables


def _profile_variables(variables: Mapping[str, str]) -> tuple[str, ...]:
    # Newer releases read the first name and warn, once per node, about the second, which older ones need.
    return FASTDDS_VARIABLES if variables.get("ROS_DISTRO") in _OLD_FASTDDS else FASTDDS_VARIABLES[:1]
