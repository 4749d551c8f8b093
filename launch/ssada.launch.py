"""Both nodes: `ros2 launch ssada_ros ssada.launch.py namespace:=/robot1 params_file:=/path/vehicle.yaml`.

What the processes are is described once, in `ssada_ros.processes`; here they are only handed to launch.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from ssada_ros.processes import FASTDDS_VARIABLES, environment, main_nodes

ARGUMENTS = {
    "namespace": ("", "Namespace of both nodes"),
    "params_file": ("", "ROS params file for both nodes; empty: the defaults"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "use_sim_time": ("false", "true: take the time from /clock"),
}


def start_nodes(context: LaunchContext) -> list[Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    descriptions = main_nodes(
        parameters_file=Path(given["params_file"]) if given["params_file"] else None,
        namespace=given["namespace"],
        log_level=given["log_level"],
        use_sim_time=given["use_sim_time"].lower() in ("true", "1"),
    )
    return [
        Node(
            package="ssada_ros",
            executable=description.module.rpartition(".")[2],
            name=description.name,
            namespace=description.namespace,
            parameters=[
                {"use_sim_time": description.use_sim_time},
                *([str(description.parameters_file)] if description.parameters_file else []),
            ],
            ros_arguments=["--log-level", description.log_level],
            output="screen",
            sigterm_timeout="10",
        )
        for description in descriptions
    ]


def generate_launch_description() -> LaunchDescription:
    variables = environment()
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=v, description=d) for name, (v, d) in ARGUMENTS.items()),
            *(SetEnvironmentVariable(name, variables[name]) for name in FASTDDS_VARIABLES if name in variables),
            OpaqueFunction(function=start_nodes),
        ]
    )
