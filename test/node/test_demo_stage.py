"""The demo's stage: what is set up before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from ros_fixtures import make_registry

from ssada_core.data.source_pack import PackSamples
from ssada_core.errors import ConfigError, ModelError
from ssada_core.resources import resource
from ssada_core.store.registry import ModelRegistry
from ssada_ros.demo_options import DemoOptions
from ssada_ros.demo_settings import DemoSettings, find_evaluation, load_demo_settings
from ssada_ros.demo_stage import Stage, prepare, processes

pytestmark = pytest.mark.ros

SMALL = (
    "drive.width=96",
    "drive.height=64",
    "drive.source_frames=4",
    "drive.eval_frames=2",
    "drive.source_eval_frames=2",
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models") / "registry"
    make_registry(root)
    return root


def staged(registry: Path, out: Path, **values: object) -> Stage:
    options = DemoOptions(model=str(registry), out=out, overrides=SMALL, seed=2, **values)  # type: ignore[arg-type]
    settings: DemoSettings = load_demo_settings(options)
    return prepare(options, settings, find_evaluation(options, settings), lambda _: None)


def test_everything_is_there_before_the_first_process(registry: Path, tmp_path: Path) -> None:
    stage = staged(registry, tmp_path / "demo")
    models = ModelRegistry(stage.registry)
    assert models.current() == models.first() == "v0001"
    models.verify("v0001")
    assert (models.path("v0001") / "deploy" / "onnx-fp32" / "model.onnx").is_file()
    assert len(PackSamples(stage.source_pack)) == 4
    # Source, judging and driven streets are different streets.
    assert stage.source_data == "sim:day:502:0-40:10"
    assert stage.source_evaluation == "sim:day:602:0-20:10"
    assert stage.evaluation == "sim:night:1002:0-20:10"

    descriptions = processes(stage)
    names = [description.name for description in descriptions]
    assert names == ["segmentation_node", "oracle_node", "adaptation_node", "camera_node"] or names == [
        "oracle_node",
        "segmentation_node",
        "adaptation_node",
        "camera_node",
    ]
    written = yaml.safe_load((stage.out / "parameters.yaml").read_text())
    by_node = {name.rsplit("/", 1)[-1]: entry["ros__parameters"] for name, entry in written.items()}
    assert by_node["camera_node"]["domain"] == "day"
    assert by_node["camera_node"]["wait_for_subscribers"] == 2
    assert by_node["segmentation_node"]["model"] == str(stage.registry)
    assert by_node["adaptation_node"]["start_paused"] is True
    assert by_node["adaptation_node"]["source_pack"] == str(stage.source_pack)


def test_a_human_annotator_gets_folders_and_no_oracle(registry: Path, tmp_path: Path) -> None:
    stage = staged(registry, tmp_path / "demo", annotator="folder")
    assert [description.name for description in processes(stage)] == [
        "segmentation_node",
        "adaptation_node",
        "camera_node",
    ]
    text = (stage.out / "parameters.yaml").read_text()
    assert str(stage.out / "queries") in text
    assert str(stage.out / "labels") in text


def test_mistakes_show_before_anything_starts(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model 'nowhere'"):
        staged(Path("nowhere"), tmp_path / "a")
    images = tmp_path / "images"
    images.mkdir()
    import cv2
    import numpy as np

    cv2.imwrite(str(images / "0.png"), np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(ConfigError, match="no ground truth for the oracle"):
        staged(registry, tmp_path / "b", camera=f"images:{images}", evaluation="sim:night:1:0-10:5")


def test_a_configuration_is_not_emptied_with_the_folder_that_it_lies_in(registry: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    out.mkdir()
    (out / ".ssada-demo").touch()
    config = out / "my.yaml"
    config.write_text(resource("config/demo.yaml").read_text())
    with pytest.raises(ConfigError, match=r"would be emptied, and holds .*my\.yaml"):
        staged(registry, out, config=config)
    assert config.exists()
