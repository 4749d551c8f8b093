"""Labels revealed during training: who is picked, what is trained on, and that a killed run goes on exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_fixtures import drive, tiny

from ssada_core.data.samples import ArraySamples
from ssada_core.errors import ConfigError, DataError, WorkerError
from ssada_core.learning.batches import normalise
from ssada_core.learning.budget import Part
from ssada_core.learning.checkpoint import CHECKPOINT_FILE, load_checkpoint
from ssada_core.learning.distributed import World
from ssada_core.learning.progress import PROGRESS_FILE, read_progress
from ssada_core.learning.reveals import REVEALS_FILE, LabelReveals, Reveal, Target
from ssada_core.learning.settings import AcquisitionSettings, TrainingSettings
from ssada_core.learning.trainer import Trainer

SETTINGS = TrainingSettings(
    iterations=12,
    crop_height=32,
    crop_width=32,
    learning_rate=0.02,
    head_multiplier=2.0,
    class_weights="iou",
    threshold_mode="class",
    checkpoint_every=5,
)
PARTS = (Part(0, 2), Part(4, 3), Part(8, 3))
CPU = torch.device("cpu")


class Watched:
    """Samples that remember whose label was read."""

    def __init__(self, samples: ArraySamples) -> None:
        self._samples, self.read = samples, set()

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        return self._samples.name(index)

    def image(self, index: int):
        return self._samples.image(index)

    def label(self, index: int):
        self.read.add(index)
        return self._samples.label(index)


def reveals(folder: Path, *, parts=PARTS, pool=None, trained=True, **acquisition) -> LabelReveals:
    settings = AcquisitionSettings(**{"audit_every": 0, **acquisition})
    pool = pool if pool is not None else drive(20, seed=3)
    return LabelReveals(Target(drive(4, seed=1), pool, settings, trained=trained, seed=5, folder=folder), parts)


def train(folder: Path, labels: LabelReveals, **options):
    trainer = Trainer(tiny(), labels.data(), SETTINGS, run_dir=folder, reveals=labels, **options)
    return trainer, trainer.run()


def test_labels_come_in_parts_and_only_those_are_read(tmp_path: Path):
    pool = Watched(drive(20, seed=3))
    labels = reveals(tmp_path, pool=pool)
    read_after = {}
    trainer, _ = train(tmp_path, labels, on_progress=lambda line: read_after.update({line.iteration: set(pool.read)}))
    state = labels.state()
    assert [(each["iteration"], len(each["frames"])) for each in state] == [(0, 2), (4, 3), (8, 3)]
    asked = [index for each in state for index in each["frames"]]
    assert len(set(asked)) == 8
    assert read_after[4] == set(state[0]["frames"])
    assert read_after[8] == set(asked[:5])
    assert read_after[12] == set(asked)
    assert json.loads((tmp_path / REVEALS_FILE).read_text()) == state
    data = labels.data()
    assert [data.labelled.name(i) for i in range(8)] == [f"{index:06d}" for index in sorted(asked)]
    assert len(data.unlabelled) == 20
    known = np.array([np.nan if value is None else value for value in state[-1]["iou"]])
    filled = np.where(np.isnan(known), np.nanmean(known), known)
    np.testing.assert_allclose(trainer.class_weights, 2.0 - filled, rtol=1e-6)
    assert not np.allclose(state[0]["iou"], state[-1]["iou"], atol=1e-3), "the statistics are refreshed"


def test_the_target_loss_begins_with_the_first_labels(tmp_path: Path):
    train(tmp_path, reveals(tmp_path, parts=(Part(4, 3),)))
    lines = read_progress(tmp_path / PROGRESS_FILE)
    assert ["loss_target" in line.figures for line in lines] == [False] * 4 + [True] * 8


@pytest.mark.parametrize("stops", [[2], [4], [6, 9]])
def test_a_run_stopped_between_reveals_goes_on_exactly(tmp_path: Path, stops: list[int]):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, reveals(whole))
    for stop in stops:
        done = [0]
        _, result = train(
            parts,
            reveals(parts),
            on_progress=lambda line, done=done: done.append(line.iteration),
            should_stop=lambda done=done, stop=stop: done[-1] == stop,
        )
        assert result.stopped
        assert result.iterations == stop
    train(parts, reveals(parts))
    assert_same(whole, parts)


def test_a_run_cut_off_after_a_reveal_goes_on_exactly(tmp_path: Path):
    """Killed right after labels were revealed, with the checkpoint that belongs to the reveal."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole, reveals(whole))

    def die(line):
        if line.iteration == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(cut, reveals(cut), on_progress=die)
    checkpoint = load_checkpoint(cut / CHECKPOINT_FILE)
    assert len(checkpoint.reveals) == 2
    train(cut, reveals(cut))
    assert_same(whole, cut)


def assert_same(first: Path, second: Path) -> None:
    lines = [[line.figures for line in read_progress(path / PROGRESS_FILE)] for path in (first, second)]
    assert lines[0] == lines[1]
    ours, theirs = (load_checkpoint(path / CHECKPOINT_FILE) for path in (first, second))
    assert ours.reveals == theirs.reveals
    assert (first / REVEALS_FILE).read_bytes() == (second / REVEALS_FILE).read_bytes()
    for name, tensor in ours.tensors.items():
        assert torch.equal(tensor, theirs.tensors[name]), name


def test_audit_frames_judge_and_are_not_trained_on(tmp_path: Path):
    labels = reveals(tmp_path, parts=(Part(0, 4), Part(2, 4)), audit_every=2)
    network = tiny()
    for _ in range(2):
        labels.reveal(network, CPU, World())
    first, second = labels.state()
    assert [len(each["audit"]) for each in (first, second)] == [2, 2]
    assert len(labels.data().labelled) == 4
    trained = {labels.data().labelled.name(index) for index in range(4)}
    assert not trained & {f"{index:06d}" for each in (first, second) for index in each["audit"]}


def test_the_strategies_pick_what_a_plain_reference_scores_highest(tmp_path: Path):
    labels = reveals(tmp_path)
    network, pool = tiny(), drive(8, seed=3)
    Trainer(network, labels.data(), SETTINGS, run_dir=tmp_path / "a").run()
    network.eval()
    scores = {"entropy": [], "confidence": [], "eis": []}
    predictions = []
    for index in range(8):
        with torch.no_grad():
            image = torch.from_numpy(pool.image(index)[None])
            p = torch.softmax(network(normalise(image)), dim=1)[0]
        predictions.append(p.argmax(0).numpy())
        scores["entropy"].append(float(-(p * p.log()).sum(0).mean()) / np.log(3))
        scores["confidence"].append(1 - float(p.max(0).values.mean()))
    known = [0, 1]  # labelled first: their IoU is what eis adds
    truth, said = (np.stack(each) for each in ([pool.label(i) for i in known], [predictions[i] for i in known]))
    union = [((truth == c) | (said == c)).sum() for c in range(3)]
    iou = np.array([((truth == c) & (said == c)).sum() / union[c] for c in range(3)])
    scores["eis"] = [scores["entropy"][i] + float((1 - iou)[predictions[i]].mean()) for i in range(8)]
    for strategy, values in scores.items():
        each = reveals(tmp_path, parts=(Part(0, 2), Part(2, 3)), pool=pool, strategy=strategy, diverse=False)
        names = [pool.name(i) for i in known]
        each.restore([Reveal(iteration=0, frames=known, audit=[], names=names, iou=[None] * 3).model_dump()])
        each.reveal(network, CPU, World())
        best = sorted(range(2, 8), key=lambda i, values=values: -values[i])[:3]
        assert each.state()[1]["frames"] == best, strategy


def test_an_untrained_network_picks_nothing_the_first_frames_are_spread(tmp_path: Path):
    labels = reveals(tmp_path, parts=(Part(0, 4),), trained=False)
    labels.reveal(tiny(), CPU, World())
    frames = labels.state()[0]["frames"]
    assert np.diff(frames).tolist() == [5, 5, 5]


def test_a_picked_frame_without_a_label_is_an_error_that_names_it(tmp_path: Path):
    labels = reveals(tmp_path, pool=drive(20, seed=3, labelled=False))
    with pytest.raises(DataError, match="was picked to be labelled and has no label on disk"):
        labels.reveal(tiny(), CPU, World())


def test_the_checkpoint_of_other_frames_or_another_budget_is_refused(tmp_path: Path):
    train(tmp_path, reveals(tmp_path))
    bands = drive(20, seed=3)
    renamed = ArraySamples(*([getattr(bands, p)(i) for i in range(20)] for p in ("image", "label")), list("a" * 20))
    with pytest.raises(WorkerError, match=r"is not '0000.*' any more"):
        train(tmp_path, reveals(tmp_path, pool=renamed))
    with pytest.raises(WorkerError, match="labels revealed"):
        train(tmp_path, reveals(tmp_path, parts=PARTS[:2]))


def test_the_budget_of_a_configuration(tmp_path: Path):
    from ssada_core.learning.offline import DataSettings, OfflineSettings, train
    from ssada_core.networks.settings import NetworkSettings

    night = "sim:night:3:0-8"
    settings = OfflineSettings(
        mode="ssada",
        out=str(tmp_path),
        network=NetworkSettings(input_height=64, input_width=96),
        data=DataSettings(source="sim:day:3:0-4", unlabelled=night, budget=0.5, schedule=(0.5,)),
        training=SETTINGS.model_copy(update={"iterations": 2, "class_weights": "none", "threshold_mode": "fixed"}),
    )
    _, manifest = train(settings, command="test")
    assert manifest.data["budget"] == 0.5
    state = json.loads((tmp_path / REVEALS_FILE).read_text())
    assert [(each["iteration"], len(each["frames"])) for each in state] == [(0, 1), (1, 3)]
    both = settings.model_copy(update={"data": settings.data.model_copy(update={"labelled": night})})
    with pytest.raises(ConfigError, match=r"leave data\.labelled empty"):
        train(both, command="test")
    with pytest.raises(ConfigError, match="in mode 'ssada', not in 'joint'"):
        train(settings.model_copy(update={"mode": "joint"}), command="test")
