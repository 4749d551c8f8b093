"""Offline training at its smallest: what each mode needs, stopping, and the model it leaves."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from adaptation_fixtures import DRIVE, ENGINE, TRAINING

from ssada_core.errors import ConfigError, ModelError
from ssada_core.inference.load import load_engine, read_model
from ssada_core.learning.offline import DataSettings, OfflineSettings, train
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.manifest import WEIGHTS_FILE
from ssada_core.store.model_files import verify

DAY, NIGHT = "sim:day:3:0-4", "sim:night:3:0-4"


def settings(folder, **changes):
    steps = TRAINING.model_copy(update={"iterations": 3, "checkpoint_every": 1, "source_batch": 1})
    values = {
        "name": "tiny",
        "mode": "supervised",
        "out": str(folder / "run"),
        "network": NetworkSettings(input_height=64, input_width=96),
        "data": DataSettings(source=DAY, labelled=NIGHT, unlabelled=NIGHT, validation="sim:night:3:9-10"),
        "training": steps,
    }
    return OfflineSettings(**{**values, **changes})


@pytest.mark.parametrize(
    ("mode", "missing"),
    [
        ("source", "source"),
        ("supervised", "labelled"),
        ("joint", "source"),
        ("joint", "labelled"),
        ("ssada", "labelled"),
        ("ssada", "unlabelled"),
    ],
)
def test_a_mode_names_the_data_it_lacks(tmp_path, mode, missing):
    data = DataSettings(**{"source": DAY, "labelled": NIGHT, "unlabelled": NIGHT, missing: ""})
    with pytest.raises(ConfigError, match=rf"mode '{mode}' trains on {missing} frames: set data\.{missing}"):
        train(settings(tmp_path, mode=mode, data=data), command="test")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mode", "batches"),
    [("source", (1, 0, 0)), ("supervised", (0, 2, 0)), ("joint", (1, 2, 0)), ("ssada", (1, 2, 1)), ("tufl", (1, 0, 1))],
)
def test_a_mode_trains_on_its_own_parts_only(tmp_path, mode, batches):
    # Also where labels are sparse: a supervised training that learns from unlabelled pixels is none.
    steps = TRAINING.model_copy(update={"source_batch": 1, "labelled_batch": 2, "unlabelled_batch": 1})
    training = settings(tmp_path, mode=mode, training=steps).effective_training()
    assert (training.source_batch, training.labelled_batch, training.unlabelled_batch) == batches


def test_source_free_training_is_a_mode(tmp_path):
    data = DataSettings(labelled=NIGHT, unlabelled=NIGHT)
    result, manifest = train(settings(tmp_path, mode="ssada", data=data), command="test")
    assert not result.stopped
    assert "loss_source" not in result.losses
    assert {"loss_target", "loss_unlabelled"} <= set(result.losses)
    assert manifest.metrics == {}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *train(settings(folder), command="ssada train")


def test_the_model_is_complete_and_runs(done):
    folder, result, manifest = done
    assert result.iterations == 3
    model = folder / "run" / "model"
    assert verify(model) == manifest
    assert (manifest.version, manifest.training["command"]) == ("tiny", "ssada train")
    assert datetime.fromisoformat(manifest.created).utcoffset() is not None
    engine = load_engine(model, ENGINE)
    label = engine.infer([DRIVE.frame(0, "night")[0]])[0].label
    engine.close()
    assert label.shape == (64, 96)
    assert not [path for path in (folder / "run").iterdir() if path.name.startswith(".")]


def test_convolutions_are_stored_in_half_and_measured_so(done, tmp_path):
    folder, _, manifest = done
    network, _ = read_model(folder / "run" / "model")
    state = network.state_dict()
    stored = sum(t.numel() * (2 if t.is_floating_point() and t.ndim >= 2 else t.element_size()) for t in state.values())
    size = (folder / "run" / "model" / WEIGHTS_FILE).stat().st_size
    assert stored < size < stored + 200_000

    _, full = train(settings(tmp_path, half=False), command="test")
    whole, _ = read_model(tmp_path / "run" / "model")
    assert (tmp_path / "run" / "model" / WEIGHTS_FILE).stat().st_size > 1.8 * size
    for name, tensor in whole.state_dict().items():
        np.testing.assert_allclose(state[name], tensor, rtol=1e-3, atol=1e-4)
    assert full.metrics["frames"] == manifest.metrics["frames"] == 1


def test_a_stopped_run_goes_on_to_the_same_weights(done, tmp_path):
    folder, _, _ = done
    lines = []
    result, manifest = train(
        settings(tmp_path), command="test", on_progress=lines.append, should_stop=lambda: len(lines) == 2
    )
    assert (result.stopped, result.iterations, manifest) == (True, 2, None)
    assert not (tmp_path / "run" / "model").exists()
    result, manifest = train(settings(tmp_path), command="test", on_progress=lines.append)
    assert [line.iteration for line in lines] == [1, 2, 3]
    unbroken = (folder / "run" / "model" / WEIGHTS_FILE).read_bytes()
    assert (tmp_path / "run" / "model" / WEIGHTS_FILE).read_bytes() == unbroken

    train(settings(tmp_path), command="again", on_progress=lines.append)
    assert len(lines) == 3, "a finished run trains nothing"


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path):
    notes = tmp_path / "run" / "model" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    with pytest.raises(ConfigError, match=r"run/model is no model and would be replaced: move it away"):
        train(settings(tmp_path), command="test")
    assert notes.read_text() == "mine"


def test_training_starts_from_a_model_that_fits(done, tmp_path):
    folder, _, _ = done
    model = folder / "run" / "model"
    gentle = TRAINING.model_copy(update={"iterations": 1, "learning_rate": 1e-9})
    train(settings(tmp_path, initial=str(model), training=gentle, half=False), command="test")
    before, after = (read_model(path)[0].state_dict() for path in (model, tmp_path / "run" / "model"))
    for name, tensor in before.items():
        np.testing.assert_allclose(after[name], tensor, atol=1e-6)
    other = NetworkSettings(input_height=64, input_width=96, backbone="resnet18")
    with pytest.raises(ModelError, match="another network"):
        train(settings(tmp_path / "b", initial=str(model), network=other), command="test")
