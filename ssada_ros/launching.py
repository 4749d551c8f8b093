"""Process descriptions as actions of ``launch``: all that the launch files need besides their arguments.

Imported by the launch files only: ``launch`` and ``launch_ros`` come with a ROS 2 installation, not from PyPI.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from ssada_core.errors import ConfigError
from ssada_ros.keeper import EXIT_WRONG_USE, RestartPolicy, describe_end
from ssada_ros.processes import DDS_VARIABLES, ProcessDescription, environment

RESPAWN_DELAY_S = 1.0
STOP_S = "10"
"""Seconds that a node is given after SIGINT, and again after SIGTERM: the adaptation stops its worker in them."""
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


def describe_launch(
    arguments: Mapping[str, tuple[str, str]],
    processes: Callable[[Mapping[str, str]], Sequence[ProcessDescription]],
    *,
    keep_running: bool,
) -> LaunchDescription:
    """Build a launch description.

    Args:
        arguments: name to default and description.
        processes: makes descriptions of the arguments' values; called when the description is executed.
        keep_running: whether a process that ends is started again; else its end stops everything.
    """

    def start(context: LaunchContext) -> list[Node]:
        given = {name: LaunchConfiguration(name).perform(context) for name in arguments}
        again = keep_running and truth("restart", given.get("restart", "true"))
        return [node_action(description, respawn=again) for description in processes(given)]

    variables = environment()
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=v, description=d) for name, (v, d) in arguments.items()),
            *(SetEnvironmentVariable(name, variables[name]) for name in DDS_VARIABLES if name in variables),
            OpaqueFunction(function=start),
        ]
    )


def node_action(description: ProcessDescription, *, respawn: bool) -> Node:
    """Return the action that starts a described process."""
    again = respawn and not description.may_end
    files = (description.parameters_file, description.overrides_file())
    return Node(
        package="ssada_ros",
        executable=description.module.rpartition(".")[2],
        name=description.name,
        namespace=description.namespace or None,
        parameters=[str(path) for path in files if path is not None],
        remappings=list(description.remappings.items()),
        arguments=list(description.arguments),
        ros_arguments=["--log-level", description.log_level] if description.log_level else [],
        prefix=f"nice -n {description.nice}" if description.nice else None,
        output="screen",
        respawn=again,
        respawn_delay=RESPAWN_DELAY_S,
        sigterm_timeout=STOP_S,
        sigkill_timeout=STOP_S,
        on_exit=OnEnd(essential=description.essential) if again else Shutdown(reason=f"{description.name} ended"),
    )


class OnEnd:
    """What follows the end of one process that is started again: nothing, unless its parameters are wrong.

    Those are wrong again after a restart: what is essential stops everything, any other process is switched off. After
    a stretch of running the same status can come of a disk that has gone, and the process is started again.
    """

    def __init__(self, *, essential: bool) -> None:
        self._essential = essential
        self._started = time.monotonic()
        self._was_stable = False

    def __call__(self, event: ProcessExited, _context: LaunchContext) -> list[Action]:
        """Return what launch is to do."""
        now = time.monotonic()
        self._was_stable = self._was_stable or now - self._started >= RestartPolicy.stable_s
        self._started = now + RESPAWN_DELAY_S
        if event.returncode != EXIT_WRONG_USE or self._was_stable:
            return []
        words = f"{event.process_name} {describe_end(event.returncode)}: see its last line"
        if self._essential:
            return [Shutdown(reason=words)]
        # Shut down while it waits for its restart, it is not started again.
        switch_off = ShutdownProcess(process_matcher=matches_action(event.action))
        return [LogInfo(msg=f"{words}; switched off, the others go on"), EmitEvent(event=switch_off)]


def truth(name: str, text: str) -> bool:
    """Read a launch argument that is true or false.

    Raises:
        ConfigError: if it is neither.
    """
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ConfigError(f"{name}:={text}: true or false") from None


def listed(text: str) -> tuple[str, ...]:
    """Read a launch argument that lists things, separated by commas."""
    return tuple(part.strip() for part in text.split(",")) if text.strip() else ()
