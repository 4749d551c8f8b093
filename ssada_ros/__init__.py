"""The ROS 2 shell round :mod:`ssada_core`: nodes, topics, processes and the demo."""
