from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_child import tiny_data, train
from learning_fixtures import drive, tiny

from ssada_core.data.lists import ListSamples
from ssada_core.data.samples import ArraySamples
from ssada_core.errors import ConfigError, DataError, WorkerError
from ssada_core.labels import CAMVID
from ssada_core.learning.checkpoint import CHECKPOINT_FILE, Checkpoint, load_checkpoint, save_checkpoint
from ssada_core.learning.loaders import TrainingData
from ssada_core.learning.progress import PROGRESS_FILE, Progress, read_progress
from ssada_core.learning.settings import TrainingSettings
from ssada_core.learning.trainer import Trainer
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "progress.schema.json"

SETTINGS = TrainingSettings(
    iterations=24,
    crop_height=32,
    crop_width=32,
    learning_rate=0.02,
    head_multiplier=2.0,
    freeze_batch_norm=False,
    checkpoint_every=5,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def with_(**changes) -> TrainingSettings:
    return SETTINGS.model_copy(update=changes)


def figures(run_dir: Path) -> list[dict[str, float]]:
    """Everything that was computed, exactly as written."""
    return [line.figures for line in read_progress(run_dir / PROGRESS_FILE)]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run_dir / CHECKPOINT_FILE).tensors


def written_lines(run_dir: Path) -> int:
    path = run_dir / PROGRESS_FILE
    return path.read_bytes().count(b"\n") if path.exists() else 0


def assert_same_run(first: Path, second: Path) -> None:
    """The same figures, weights, momentum and teacher, bit for bit."""
    assert figures(first) == figures(second)
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_the_loss_falls_and_every_iteration_is_reported(tmp_path: Path):
    seen: list[Progress] = []
    result = train(tmp_path, with_(iterations=60, checkpoint_every=60), on_progress=seen.append)
    assert result.iterations == 60
    assert not result.stopped
    lines = read_progress(tmp_path / PROGRESS_FILE)
    assert lines == seen
    assert [line.iteration for line in lines] == list(range(1, 61))
    early = np.mean([line.figures["loss_target"] for line in lines[:10]])
    late = np.mean([line.figures["loss_target"] for line in lines[-10:]])
    assert late < 0.7 * early
    assert result.losses["loss"] == pytest.approx(np.mean([line.figures["loss"] for line in lines[-6:]]))
    assert lines[0].learning_rate == pytest.approx(0.02 / 3)
    assert lines[-1].eta_seconds == 0.0
    assert all(a.seconds < b.seconds for a, b in pairwise(lines))


VARIANTS = {
    "student": SETTINGS,
    "teacher": with_(pseudo="teacher", threshold_mode="class_falling", class_weights="iou"),
    "no prefetch": with_(prefetch=False, freeze_batch_norm=True),
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_stopped_round_goes_on_exactly(tmp_path: Path, settings: TrainingSettings):
    iou = np.array([0.5, np.nan, 0.8])
    train(tmp_path / "whole", settings, class_iou=iou)
    calls = iter(range(1000))
    stopped = train(tmp_path / "parts", settings, class_iou=iou, should_stop=lambda: next(calls) >= 8)
    assert stopped.stopped
    assert stopped.iterations == 8
    torch.rand(3)  # the global generator moves on between attempts
    result = train(tmp_path / "parts", settings, class_iou=iou)
    assert not result.stopped
    assert result.iterations == 24
    assert result.seconds > stopped.seconds
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_two_runs_are_alike_and_another_seed_is_not(tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / name, with_(iterations=6, seed=seed))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert figures(tmp_path / "a") != figures(tmp_path / "c")


@pytest.mark.parametrize("lines", [3, 18])
def test_a_killed_process_goes_on_exactly(tmp_path: Path, lines: int):
    settings = with_(iterations=40, checkpoint_every=7, pseudo="teacher")
    train(tmp_path / "whole", settings)
    run_dir = tmp_path / "killed"
    child = Path(__file__).with_name("learning_child.py")
    root = str(child.parents[2])
    process = subprocess.Popen(
        [sys.executable, str(child), str(run_dir), settings.model_dump_json()],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while written_lines(run_dir) < lines:
        assert process.poll() is None, "the child ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    checkpoint = load_checkpoint(run_dir / CHECKPOINT_FILE)
    assert (checkpoint.iteration if checkpoint else 0) < 40
    train(run_dir, settings)
    assert_same_run(tmp_path / "whole", run_dir)


def test_a_finished_round_returns_at_once_with_its_weights(tmp_path: Path):
    first = train(tmp_path, SETTINGS)
    lines = figures(tmp_path)
    network = tiny(seed=9)
    again = Trainer(network, tiny_data(), SETTINGS, run_dir=tmp_path).run()
    assert again.iterations == 24
    assert again.losses == first.losses
    assert figures(tmp_path) == lines
    assert torch.equal(network.head.weight, weights(tmp_path)["network.head.weight"])


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_result_is_a_step_back_to_the_first_weights_and_the_checkpoint_is_not(tmp_path: Path, share: float):
    first, network = tiny(seed=0).state_dict(), tiny(seed=0)
    settings = with_(iterations=6, trained_share=share)
    Trainer(network, tiny_data(), settings, run_dir=tmp_path).run()
    trained = weights(tmp_path)
    for name, value in network.state_dict().items():
        last = trained[f"network.{name}"]
        if value.is_floating_point():
            np.testing.assert_allclose(value, share * last + (1 - share) * first[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(value, last)
    assert not torch.equal(trained["network.head.weight"], first["head.weight"])
    again = tiny(seed=0)  # a process that finds the round finished comes to the same
    Trainer(again, tiny_data(), settings, run_dir=tmp_path).run()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


def test_a_torn_last_line_and_lines_past_the_checkpoint_are_done_again(tmp_path: Path):
    train(tmp_path / "whole", SETTINGS)
    calls = iter(range(1000))
    train(tmp_path / "torn", SETTINGS, should_stop=lambda: next(calls) >= 10)
    path = tmp_path / "torn" / PROGRESS_FILE
    text = path.read_text()
    forged = text.splitlines()[0].replace('"iteration":1,', '"iteration":11,')
    path.write_text(text + forged + "\n" + forged[:30])
    train(tmp_path / "torn", SETTINGS)
    assert_same_run(tmp_path / "whole", tmp_path / "torn")


def test_what_does_not_change_the_result_may_change_between_attempts(tmp_path: Path):
    calls = iter(range(1000))
    train(tmp_path / "a", SETTINGS, should_stop=lambda: next(calls) >= 10)
    train(tmp_path / "a", with_(prefetch=False, cache_megabytes=0, checkpoint_every=3))
    train(tmp_path / "b", SETTINGS)
    assert figures(tmp_path / "a") == figures(tmp_path / "b")


def test_another_rounds_folder_is_refused_with_what_differs(tmp_path: Path):
    train(tmp_path, with_(iterations=2))
    with pytest.raises(WorkerError, match=r"learning_rate 0\.02 is now 0\.5"):
        train(tmp_path, with_(iterations=2, learning_rate=0.5))
    more = TrainingData(drive(7, seed=1), drive(3, seed=2), drive(8, seed=3, labelled=False))
    with pytest.raises(WorkerError, match="source 6 is now 7"):
        Trainer(tiny(), more, with_(iterations=2), run_dir=tmp_path).run()


def test_a_damaged_checkpoint_is_an_error_with_a_remedy(tmp_path: Path):
    train(tmp_path, with_(iterations=2))
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WorkerError, match="not a readable checkpoint"):
        train(tmp_path, with_(iterations=2))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path):
    train(tmp_path, with_(iterations=2))
    path = tmp_path / CHECKPOINT_FILE
    checkpoint = load_checkpoint(path)
    renamed = {name.replace("head", "tail"): tensor for name, tensor in checkpoint.tensors.items()}
    save_checkpoint(path, Checkpoint(1, 0.0, checkpoint.identity, renamed))
    with pytest.raises(WorkerError, match="another network"):
        train(tmp_path, with_(iterations=2))


def test_a_gradient_that_is_not_finite_names_the_iteration_and_spares_the_checkpoint(tmp_path: Path):
    network = tiny()
    trainer = Trainer(network, tiny_data(), with_(checkpoint_every=1), run_dir=tmp_path)

    def poison(line: Progress) -> None:
        if line.iteration == 3:
            with torch.no_grad():
                network.middle[0].weight.fill_(float("nan"))

    trainer._on_progress = poison
    with pytest.raises(WorkerError, match=r"iteration 4 of 24.*lower learning_rate"):
        trainer.run()
    checkpoint = load_checkpoint(tmp_path / CHECKPOINT_FILE)
    assert checkpoint.iteration == 3
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.tensors.values())


def test_a_loss_that_sets_in_at_the_very_end_is_the_mean_of_the_iterations_that_have_it(tmp_path: Path):
    result = train(tmp_path, with_(unlabelled_start=0.95))
    *before, last = figures(tmp_path)
    assert "loss_unlabelled" not in before[-1], "of the last tenth, two iterations, only one has it"
    assert result.losses["loss_unlabelled"] == last["loss_unlabelled"]
    assert result.losses["loss"] == pytest.approx((before[-1]["loss"] + last["loss"]) / 2)


def test_the_checkpoint_holds_weights_momentum_and_teacher_without_pickle(tmp_path: Path):
    train(tmp_path, with_(iterations=3, pseudo="teacher"))
    names = weights(tmp_path).keys()
    assert {
        "network.head.weight",
        "teacher.head.weight",
        "momentum.head.weight",
        "network.backbone.1.running_mean",
    } <= set(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT_FILE, PROGRESS_FILE]
    data = (tmp_path / CHECKPOINT_FILE).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["state"])["iteration"] == 3


def test_the_teacher_follows_the_student(tmp_path: Path):
    trainer = Trainer(tiny(), tiny_data(), with_(pseudo="teacher", teacher_decay=0.0), run_dir=tmp_path)
    trainer.run()
    for name, value in trainer.teacher.state_dict().items():
        torch.testing.assert_close(value, trainer.network.state_dict()[name], msg=name)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("source",), {"loss", "loss_source"}),
        (("labelled",), {"loss", "loss_target"}),
        (("source", "labelled"), {"loss", "loss_source", "loss_target"}),
        (("unlabelled",), {"loss", "loss_unlabelled", "loss_strong1", "loss_strong2", "loss_perturbed"}),
    ],
)
def test_the_supervised_modes_are_the_same_step_with_parts_missing(tmp_path: Path, parts, expected):
    data = TrainingData(**{part: getattr(tiny_data(), part) for part in parts})
    result = Trainer(tiny(), data, with_(iterations=3), run_dir=tmp_path).run()
    assert set(result.losses) == expected


def test_before_its_start_the_unlabelled_loss_is_not_computed(tmp_path: Path):
    settings = with_(iterations=6, unlabelled_start=0.5)
    Trainer(tiny(), tiny_data(), settings, run_dir=tmp_path / "late").run()
    assert ["loss_unlabelled" in one for one in figures(tmp_path / "late")] == [False] * 3 + [True] * 3
    supervised = TrainingData(tiny_data().source, tiny_data().labelled)
    Trainer(tiny(), supervised, settings, run_dir=tmp_path / "without").run()
    assert figures(tmp_path / "late")[:3] == figures(tmp_path / "without")[:3]
    Trainer(tiny(), TrainingData(unlabelled=tiny_data().unlabelled), settings, run_dir=tmp_path / "alone").run()
    assert all("loss_unlabelled" in one for one in figures(tmp_path / "alone"))


def test_one_labelled_image_is_never_alone_in_batch_norm(tmp_path: Path):
    settings = with_(iterations=4, labelled_batch=1, unlabelled_start=0.5)
    data = TrainingData(labelled=tiny_data().labelled, unlabelled=tiny_data().unlabelled)
    Trainer(tiny(), data, settings, run_dir=tmp_path).run()
    assert all("loss_unlabelled" in one for one in figures(tmp_path))


def test_frozen_statistics_stay_and_the_others_move(tmp_path: Path):
    for frozen in (True, False):
        network = tiny()
        before = network.backbone[1].running_var.clone()
        Trainer(
            network, tiny_data(), with_(iterations=2, freeze_batch_norm=frozen), run_dir=tmp_path / str(frozen)
        ).run()
        assert torch.equal(before, network.backbone[1].running_var) is frozen


def test_class_weights_reach_the_loss(tmp_path: Path):
    trainer = Trainer(
        tiny(), tiny_data(), with_(class_weights="iou"), run_dir=tmp_path, class_iou=np.array([0.0, 1.0, np.nan])
    )
    assert trainer.class_weights == pytest.approx([2.0, 1.0, 1.5])
    trainer.run()
    train(tmp_path / "plain", SETTINGS)
    assert figures(tmp_path)[0]["loss_source"] != figures(tmp_path / "plain")[0]["loss_source"]


def test_wrong_inputs_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="class_iou has 2 values"):
        train(tmp_path, SETTINGS, class_iou=np.zeros(2))
    with pytest.raises(DataError, match="nothing to train on"):
        Trainer(tiny(), TrainingData(), SETTINGS, run_dir=tmp_path)


def test_the_schema_of_progress_is_the_one_that_is_published():
    assert json.loads(SCHEMA.read_text()) == Progress.model_json_schema()


@pytest.mark.shared_data
def test_the_real_network_learns_on_real_frames(tmp_path: Path, camvid: Path):
    torch.manual_seed(0)
    network = build_network(NetworkSettings(), CAMVID.num_classes, pretrained=True)
    day, dusk = (_first(ListSamples(camvid / name, CAMVID), 2) for name in ("source_day.txt", "dusk_pool.txt"))
    # Plain cross-entropy on four frames: hard pixels chosen anew at each step would hide the trend.
    settings = TrainingSettings(
        iterations=15,
        crop_height=96,
        crop_width=96,
        scale_min=0.5,
        scale_max=0.6,
        learning_rate=0.01,
        freeze_batch_norm=False,
        ohem_threshold=1.0,
    )
    Trainer(network, TrainingData(day, dusk, dusk), settings, run_dir=tmp_path).run()
    for name in ("loss", "loss_source", "loss_target"):
        values = [line[name] for line in figures(tmp_path)]
        assert np.mean(values[-4:]) < 0.7 * np.mean(values[:4]), name


def _first(samples: ListSamples, count: int) -> ArraySamples:
    indices = range(count)
    return ArraySamples([samples.image(i) for i in indices], [samples.label(i) for i in indices])
