"""Two real processes, started by torchrun and joined by Gloo, train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_child import SETTINGS, gradients
from learning_child import tiny_data
from safetensors.torch import load_file

from ssada_core.errors import ConfigError
from ssada_core.learning.checkpoint import CHECKPOINT_FILE, load_checkpoint
from ssada_core.learning.distributed import World, joined_world, rank
from ssada_core.learning.loaders import BatchMaker
from ssada_core.learning.progress import PROGRESS_FILE, read_progress

REPOSITORY = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("distributed_child.py")


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments]
    return subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("distributed")
    done = torchrun(CHILD, path)
    assert done.returncode == 0, done.stderr[-4000:]
    return path


def test_two_processes_give_the_gradients_of_one_with_the_double_batch(folder: Path, tmp_path: Path):
    both, alone = load_file(folder / "gradients.safetensors"), gradients(tmp_path, World())
    assert both.keys() == alone.keys()
    assert max(float(value.abs().max()) for value in alone.values()) > 1e-2
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_processes_stop_together_and_go_on_exactly(folder: Path):
    told = [json.loads((folder / f"rank{number}.json").read_text()) for number in range(2)]
    assert told[0]["stopped"] == told[1]["stopped"]
    assert 0 < told[0]["stopped"] < SETTINGS.iterations
    assert [each["resumed"] for each in told] == [SETTINGS.iterations] * 2
    whole, parts = (load_checkpoint(folder / name / CHECKPOINT_FILE) for name in ("whole", "parts"))
    assert [line.figures for line in read_progress(folder / "whole" / PROGRESS_FILE)] == [
        line.figures for line in read_progress(folder / "parts" / PROGRESS_FILE)
    ]
    assert whole.reveals == parts.reveals
    assert [len(each["frames"]) for each in whole.reveals] == [3, 2]
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name


def test_each_process_has_crops_of_its_own_and_the_first_those_of_a_single_one(folder: Path):
    told = [json.loads((folder / f"rank{number}.json").read_text()) for number in range(2)]
    assert told[0]["source"] != told[1]["source"]
    assert told[0]["unlabelled"] != told[1]["unlabelled"]
    alone = BatchMaker(tiny_data(), SETTINGS).batch(0)
    assert told[0]["source"] == int(alone.source.images.float().sum())


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined_world() as world:
        assert (world.rank, world.size, world.leads, rank()) == (0, 1, True, 0)
        assert world.agree("words") == "words"
        values = torch.tensor([1.0, 2.0])
        assert world.mean(values) is values
        world.wait()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="WORLD_SIZE=two"), joined_world():
        pass


CONFIG = """
name: tiny
mode: joint
out: {out}
network: {{input_height: 64, input_width: 96}}
data: {{source: "sim:day:1:0-20:5", labelled: "sim:night:2:0-20:5", validation: "sim:night:3:0-10:5"}}
training: {{iterations: 3, source_batch: 1, labelled_batch: 1, crop_height: 64, crop_width: 96}}
"""


@pytest.mark.slow
def test_the_command_line_under_torchrun(tmp_path: Path):
    (tmp_path / "train.yaml").write_text(CONFIG.format(out=tmp_path / "run"))
    command = ("-m", "ssada_core.cli", "train", "--config", tmp_path / "train.yaml", "--resume")
    done = torchrun(*command, "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr[-4000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert json.loads(done.stdout) == figures, "the first process alone prints"
    assert len(read_progress(tmp_path / "run" / PROGRESS_FILE)) == 3
    assert (tmp_path / "run" / "model" / "weights.safetensors").is_file()
    assert "has no checkpoint yet" in done.stderr
    assert "going on after iteration 3" in torchrun(*command).stderr
