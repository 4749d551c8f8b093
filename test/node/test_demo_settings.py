"""The demo's configuration: shipped files, command line over them, where the judging frames are."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from ssada_core.errors import ConfigError
from ssada_ros.demo_options import DemoOptions
from ssada_ros.demo_settings import DemoSettings, find_evaluation, load_demo_settings, simulated

pytestmark = pytest.mark.ros


def test_the_shipped_configurations_are_valid() -> None:
    assert load_demo_settings(DemoOptions()).model == "sim-day"
    assert isinstance(load_demo_settings(DemoOptions(camera="bag:drive")), DemoSettings)


def test_the_command_line_goes_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "demo.yaml"
    config.write_text("drive: {rate: 2.0, width: 320}\nadaptation: {cycle: {budget: 8}}\n")
    settings = load_demo_settings(
        DemoOptions(
            config=config,
            budget=5,
            rate=3.0,
            seed=7,
            model="other",
            source_data="day.txt",
            overrides=("drive.width=200", "adaptation.training.iterations=9"),
        )
    )
    assert (settings.drive.rate, settings.drive.width, settings.drive.height) == (3.0, 200, 384)
    assert (settings.model, settings.source_data) == ("other", "day.txt")
    # A round begins when the whole budget is labelled.
    assert settings.adaptation.cycle.budget == settings.adaptation.cycle.new_labels == 5
    assert settings.adaptation.seed == settings.adaptation.training.seed == 7
    assert settings.adaptation.training.iterations == 9


def test_wrong_keys_and_values_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'drive.heigth' \(did you mean 'height'\?\)"):
        load_demo_settings(DemoOptions(overrides=("drive.heigth=3",)))
    with pytest.raises(ConfigError, match=r"'drive.rate' is 0"):
        load_demo_settings(DemoOptions(overrides=("drive.rate=0",)))
    with pytest.raises(ConfigError, match="give the path of a YAML file"):
        load_demo_settings(DemoOptions(config=tmp_path / "none.yaml"))


def test_a_simulated_drive_is_judged_on_other_streets() -> None:
    settings = load_demo_settings(DemoOptions())
    assert find_evaluation(DemoOptions(seed=3), settings) == "sim:night:1003:0-240:10"
    assert simulated("rain", 5, 2) == "sim:rain:5:0-20:10"


def test_evaluation_is_found_by_path_by_list_name_or_refused(tmp_path: Path) -> None:
    (tmp_path / "dusk_val.txt").touch()
    settings = DemoSettings(source_data=str(tmp_path / "source_day.txt"))
    recorded = DemoOptions(camera="bag:drive")
    for reference in ("dusk_val", "dusk_val.txt", str(tmp_path / "dusk_val.txt")):
        options = DemoOptions(camera="bag:drive", evaluation=reference)
        assert find_evaluation(options, settings) == str(tmp_path / "dusk_val.txt")
    assert find_evaluation(DemoOptions(camera="bag:drive", evaluation="sim:rain"), settings) == "sim:rain"
    with pytest.raises(ConfigError, match="--eval is needed"):
        find_evaluation(recorded, settings)
    with pytest.raises(ConfigError, match=r"'dusk_test' is neither a path nor a list in"):
        find_evaluation(DemoOptions(camera="bag:drive", evaluation="dusk_test"), settings)
