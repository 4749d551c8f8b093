"""``ssada demo``: the whole loop on one machine, real nodes, a world that changes, a model that learns."""

from __future__ import annotations

import os
import secrets
from typing import Any

from rich.console import Console

from ssada_core.commands.common import say
from ssada_ros.demo_drive import Drive, monitored
from ssada_ros.demo_options import DemoOptions
from ssada_ros.demo_report import write_results
from ssada_ros.demo_settings import find_evaluation, load_demo_settings
from ssada_ros.demo_stage import prepare, processes
from ssada_ros.demo_view import LineView, LiveView
from ssada_ros.supervisor import Supervisor

DEMO_DOMAIN_RANGE = (20, 99)
"""ROS domains the demo may take where none is set: it should not meet a robot that is on."""


def run_demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """Run the demo; returns what was written to ``summary.json``.

    Raises:
        SsadaError: one line that says what is wrong and what to do.
    """
    settings = load_demo_settings(options)
    evaluation = find_evaluation(options, settings)
    stage = prepare(options, settings, evaluation, say)
    isolate()
    with (
        Supervisor(processes(stage), stage.out / "logs") as supervisor,
        monitored(stage.label_space.num_classes) as monitor,
    ):
        view = LiveView(monitor, console) if options.view and console.is_terminal else LineView(monitor, console)
        with view as draw:
            drive = Drive(stage, supervisor, monitor, draw)
            drive.run()
        record = monitor.record()
    say("judging both models on unseen frames")
    return write_results(stage, record, drive.log)


def isolate() -> None:
    """A domain of its own, on this machine only, unless the environment says otherwise."""
    first, last = DEMO_DOMAIN_RANGE
    os.environ.setdefault("ROS_DOMAIN_ID", str(first + secrets.randbelow(last - first + 1)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_LOCALHOST_ONLY", "1" if os.environ.get("ROS_DISTRO") == "humble" else "0")
