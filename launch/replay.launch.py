"""A recording through the nodes: `ros2 launch ssada_ros replay.launch.py bag:=/path/drive`. Its end stops everything.

The recording is read and published frame by frame by `camera_node`; `ssada replay` evaluates without any timing.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription

from ssada_ros.launching import describe_launch, truth
from ssada_ros.processes import replay_nodes

ARGUMENTS = {
    "bag": ("", "Recording (rosbag2: MCAP or sqlite3) to play; required"),
    "topic": ("", "Image topic in the recording; empty: the only one"),
    "rate": ("5.0", "Frames per second"),
    "adaptation": ("false", "true: also run the adaptation node, on the registry and pool of the params file"),
    "namespace": ("", "Namespace of all nodes"),
    "params_file": ("", "ROS params file for all nodes; empty: the defaults"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "foxglove": ("false", "true: also serve the topics to Foxglove at ws://localhost:8765 (pip: ssada_ros[foxglove])"),
}


def generate_launch_description() -> LaunchDescription:
    return describe_launch(
        ARGUMENTS,
        lambda given: replay_nodes(
            given["bag"],
            topic=given["topic"],
            rate=float(given["rate"]),
            adaptation=truth("adaptation", given["adaptation"]),
            parameters_file=Path(given["params_file"]) if given["params_file"] else None,
            namespace=given["namespace"],
            log_level=given["log_level"],
            foxglove=truth("foxglove", given["foxglove"]),
        ),
        keep_running=False,
    )
