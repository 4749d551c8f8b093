"""``ssada replay`` with ``--through-ros``; nothing here imports ROS until it is needed."""

from __future__ import annotations

from ssada_core.commands import replay
from ssada_core.errors import require
from ssada_core.replay.driver import OpenRos

command = replay.command


def _ros_driver() -> OpenRos:
    require("rclpy", extra="ros", purpose="this command starts ROS 2 nodes and")
    from ssada_ros.drive import RosDriver

    return RosDriver


replay.open_ros = _ros_driver
