#!/usr/bin/env bash
# ROS 2's environment, then `ssada` with the container's arguments, as process 1: it stops the nodes on SIGTERM.
set -e
# shellcheck disable=SC1090
. "/opt/ros/${ROS_DISTRO}/setup.bash"
exec "${SSADA:-ssada}" "$@"
