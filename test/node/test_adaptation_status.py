"""A running round in the diagnostics: how far it is, what is left, and its losses."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from ros_fixtures import values_of

from ssada_core.learning.progress import Progress
from ssada_ros.adaptation_status import _training

pytestmark = pytest.mark.ros


def test_a_running_round_shows_how_far_it_is_and_its_losses():
    line = Progress(
        iteration=30,
        iterations=150,
        learning_rate=0.01,
        figures={"loss": 0.75, "loss_target": 0.5},
        seconds=31.0,
        eta_seconds=124.0,
    )
    status = {"phase": "training", "training": line.model_dump(), "failure": ""}
    shown = values_of(_training("adaptation_node", status))
    assert (shown["iteration"], shown["iterations"], shown["eta_seconds"]) == ("30", "150", "124.00")
    assert (shown["loss"], shown["loss_target"]) == ("0.75", "0.50")


def test_without_a_round_there_is_only_the_phase():
    assert values_of(_training("n", {"phase": "collecting", "training": {}, "failure": ""})) == {"phase": "collecting"}
