"""What the ids in the masks mean: JSON always, ``vision_msgs/LabelInfo`` where that package is installed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from rclpy.node import Node
from std_msgs.msg import Header, String

from ssada_core.labels import IGNORE, LabelSpace
from ssada_ros.qos import latched_profile

UNLABELLED = "unlabelled"
"""Name of the id 255 in ``LabelInfo``."""


class LabelTopics:
    """Latched publishers of ``~/label_space`` and, with ``vision_msgs``, ``~/label_info``."""

    def __init__(self, node: Node, undo: ExitStack) -> None:
        """Create them; ``undo`` destroys them."""
        self._node = node
        self._space = node.create_publisher(String, "~/label_space", latched_profile())
        undo.callback(node.destroy_publisher, self._space)
        self._messages = _vision_messages()
        if self._messages is not None:
            self._info = node.create_publisher(self._messages.LabelInfo, "~/label_info", latched_profile())
            undo.callback(node.destroy_publisher, self._info)

    def publish(self, space: LabelSpace) -> None:
        """Announce the label space of the masks that follow."""
        self._space.publish(String(data=space.to_json()))
        if self._messages is not None:
            self._info.publish(self._label_info(space))

    def _label_info(self, space: LabelSpace) -> Any:  # noqa: ANN401 (of a package that may not be installed)
        message = self._messages.VisionClass
        classes = [message(class_id=number, class_name=name) for number, name in class_map(space)]
        header = Header(stamp=self._node.get_clock().now().to_msg())
        return self._messages.LabelInfo(header=header, class_map=classes, threshold=0.0)


def class_map(space: LabelSpace) -> list[tuple[int, str]]:
    """Every id that a mask may hold, with its name: the classes, and 255 for what is not labelled."""
    return [*enumerate(space.classes), (IGNORE, UNLABELLED)]


def _vision_messages() -> Any:  # noqa: ANN401
    try:
        from vision_msgs import msg
    except ImportError:  # not on PyPI; ROS installations have it
        return None
    return msg
