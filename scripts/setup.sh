#!/usr/bin/env bash
# Make the virtual environment that the Makefile uses. Run it as often as you like: what is there is kept.
#   PYTHON  which Python to take (default: python3, else the first suitable one)
#   VENV    where the environment goes (default: .venv)
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}

say() { printf '[setup] %s\n' "$*"; }

suits() { # 3.10 to 3.13, and rclpy can be had: from a sourced ROS 2, or as wheels (3.11 and 3.12)
    "$1" -c '
import importlib.util, sys
minor = sys.version_info[:2]
ros = importlib.util.find_spec("rclpy") is not None
sys.exit(not ((3, 10) <= minor <= (3, 13) and (ros or minor in {(3, 11), (3, 12)})))' 2>/dev/null
}

choose_python() {
    for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.10 python3.13; do
        if command -v "$candidate" >/dev/null 2>&1 && suits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    say "no suitable Python: install Python 3.11 or 3.12, or source a ROS 2 whose Python has rclpy" >&2
    return 1
}

make_venv() {
    local python options=()
    python=$(choose_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        say "$python cannot make virtual environments: on Debian and Ubuntu, apt-get install python3-venv" >&2
        return 1
    fi
    # A sourced ROS 2 brings packages that live beside the system's Python.
    if "$python" -c 'import rclpy' 2>/dev/null; then options+=(--system-site-packages); fi
    say "creating $VENV with $("$python" --version) ($python)"
    "$python" -m venv --clear ${options[@]+"${options[@]}"} "$VENV"
}

ros_comes_from_outside() { # rclpy of a sourced ROS 2, not of an earlier run of this script
    "$VENV/bin/python" -c '
import importlib.util, sys
spec = importlib.util.find_spec("rclpy")
sys.exit(spec is None or str(spec.origin).startswith(sys.prefix))' 2>/dev/null
}

# An environment that was left half made, or whose Python is gone, is made again.
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || make_venv

if ros_comes_from_outside; then
    extras="openvino,test"
    constraints="$VENV/constraints.txt"
    # Its compiled messages work with the NumPy they were built against and with later ones of the same major version,
    # which the pins of constraints.txt do not know. (Humble's own is older than this package asks for.)
    "$VENV/bin/python" -c '
import numpy
version = numpy.__version__
print(f"numpy>={version},<{int(version.partition(chr(46))[0]) + 1}")' >"$constraints" 2>/dev/null || true
    say "using rclpy of the sourced ROS 2 (${ROS_DISTRO:-unnamed}), with $(cat "$constraints")"
else
    extras="ros,openvino,test"
    constraints=constraints.txt
    say "no sourced ROS 2: rclpy comes from the [ros] extra"
fi
say "installing the package with [$extras]; the first time this downloads PyTorch and takes some minutes"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$constraints" --editable ".[$extras]"

# The tests of the pages drive a real browser; without one they are skipped.
if ! command -v chromium >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    say "installing chromium for the tests of the pages"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
        >"$VENV/chromium.log" 2>&1 || say "chromium could not be installed (see $VENV/chromium.log): its tests are skipped"
fi
touch "$VENV/.ready"
say "ready after $SECONDS s: $VENV/bin/ssada --help"
