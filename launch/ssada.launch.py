"""Both nodes: `ros2 launch ssada_ros ssada.launch.py namespace:=/robot1 params_file:=/path/vehicle.yaml`.

What the processes are is described once, in `ssada_ros.processes`; here they are only handed to launch.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription

from ssada_ros.launching import describe_launch, listed, truth
from ssada_ros.processes import main_nodes

ARGUMENTS = {
    "namespace": ("", "Namespace of all nodes"),
    "params_file": ("", "ROS params file for both nodes; empty: the defaults"),
    "cameras": ("", "Image topics in place of the file's, separated by commas: TOPIC or NAME=TOPIC"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "use_sim_time": ("false", "true: take the time from /clock"),
    "restart": ("true", "true: start a node that ends again; false: its end stops everything"),
    "foxglove": ("false", "true: also serve the topics to Foxglove at ws://localhost:8765 (pip: ssada_ros[foxglove])"),
}


def generate_launch_description() -> LaunchDescription:
    return describe_launch(
        ARGUMENTS,
        lambda given: main_nodes(
            parameters_file=Path(given["params_file"]) if given["params_file"] else None,
            namespace=given["namespace"],
            log_level=given["log_level"],
            use_sim_time=truth("use_sim_time", given["use_sim_time"]),
            cameras=listed(given["cameras"]),
            foxglove=truth("foxglove", given["foxglove"]),
        ),
        keep_running=True,
    )
