"""Learn the road you drive on: SS-ADA segmentation, training and adaptation, without ROS."""

__version__ = "0.1.0"
