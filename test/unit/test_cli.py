"""The command line as users meet it: real processes, real small data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from cli_fixtures import Done, ssada_here

from ssada_core.commands.common import say
from ssada_core.data.encodings import encode_jpeg
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.inference.load import read_model
from ssada_core.labels import CAMVID
from ssada_core.store.pool import FramePool, PoolSettings
from ssada_core.store.registry import ModelRegistry

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from ssada_core.cli import main; sys.exit(main())"
GROUPS = {
    "train": [],
    "evaluate": [],
    "export": [],
    "models": ["list", "info", "verify", "promote", "rollback"],
    "data": ["check"],
    "bag": ["create", "info"],
    "source": ["pack"],
    "pool": ["stats", "verify", "export", "import"],
    "bench": ["training", "annotate"],
}
CONFIG = """
name: tiny
mode: source
out: {out}
network: {{input_height: 64, input_width: 96}}
data: {{source: "sim:day:1:0-20:5", validation: "sim:day:2:0-10:5"}}
training:
  iterations: {iterations}
  source_batch: 2
  labelled_batch: 0
  unlabelled_batch: 0
  crop_height: 64
  crop_width: 96
  checkpoint_every: 1000
"""


def start(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])),
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=cwd or REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ssada(*arguments: object, status: int = 0) -> Done:
    """In this process; :func:`process` where that would not be the real thing."""
    done = ssada_here(*arguments)
    assert done.status == status, f"{arguments}: status {done.status}\n{done.out}\n{done.err}"
    return done


def process(*arguments: object, status: int = 0) -> Done:
    started = start(*arguments)
    out, err = started.communicate(timeout=280)
    assert started.returncode == status, f"{arguments}: status {started.returncode}\n{out}\n{err}"
    return Done(status, out, err)


def strict_json(text: str) -> dict[str, object]:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"not JSON: {constant}")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of three iterations; not to be changed by a test."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "train.yaml").write_text(CONFIG.format(out=folder / "run", iterations=3))
    done = process("train", "--config", folder / "train.yaml", "--json", folder / "train.json")
    printed = strict_json(done.out)
    assert printed == strict_json((folder / "train.json").read_text())
    assert printed["model"] == str(folder / "run" / "model")
    return folder


@pytest.fixture
def model(run_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_dir / "run" / "model", tmp_path / "model"))


@pytest.fixture
def registry(run_dir: Path, tmp_path: Path) -> Path:
    models = ModelRegistry(tmp_path / "registry")
    network, manifest = read_model(run_dir / "run" / "model")
    for _ in range(2):
        models.promote(models.add(network.state_dict(), manifest), None)
    return tmp_path / "registry"


def test_every_command_has_a_help_with_an_example() -> None:
    # In one process: starting Python 14 times would take a minute on a small machine.
    import typer
    from typer.testing import CliRunner

    from ssada_core.cli import app

    click = typer.main.get_command(app)
    assert set(click.commands) >= set(GROUPS)  # type: ignore[attr-defined]
    for group, commands in GROUPS.items():
        for words in [[group, command] for command in commands] or [[group]]:
            shown = CliRunner().invoke(app, [*words, "--help"])
            assert shown.exit_code == 0
            assert f"Example: ssada {' '.join(words)} " in " ".join(shown.output.replace("│", " ").split()), words


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    from ssada_core.cli import COMMANDS
    from ssada_core.commands.lazy import load

    for name, (target, words) in COMMANDS.items():
        own = load(f"ssada_core.commands.{target}", name).help
        assert " ".join(own.split("\n\n")[0].split()) == words, name


def test_evaluate_prints_pure_json_and_writes_the_same(run_dir: Path, tmp_path: Path) -> None:
    done = process(
        *("evaluate", "--model", run_dir / "run" / "model", "--data", "sim:night:3:0-10:5"),
        *("--backend", "torch", "--json", tmp_path / "figures.json"),
    )
    figures = strict_json(done.out)
    assert figures == strict_json((tmp_path / "figures.json").read_text())
    assert 0 <= float(str(figures["miou"])) <= 100
    assert figures["data"] == "sim:night:3:0-10:5"
    assert "IoU %" in done.err


def test_what_cannot_be_evaluated_is_named(run_dir: Path, tmp_path: Path) -> None:
    frame, _ = SimulatedDrive(3, (64, 96)).frame(0)
    (tmp_path / "f.jpg").write_bytes(encode_jpeg(frame))
    done = ssada_here("evaluate", "--model", str(run_dir / "run" / "model"), "--data", str(tmp_path))
    assert done.status == 1
    assert done.err.endswith(f"error: none of the 1 frames of '{tmp_path}' has a label: name a list with labels\n")


def test_export_and_the_registry_commands(registry: Path) -> None:
    assert "v0002 (current)" in ssada("models", "list", registry).err
    done = ssada("export", f"{registry}@v0001", "--target", "onnx-fp32")
    assert "onnx-fp32: 100.000 % of labels as torch" in done.err
    assert (registry / "v0001" / "deploy" / "onnx-fp32" / "model.onnx").is_file()
    assert "v0001: all files as in the manifest" in ssada("models", "verify", registry).err
    assert "current: v0001" in ssada("models", "promote", registry, "v0001").err
    assert ModelRegistry(registry).current() == "v0001"
    assert "current: v0002" in ssada("models", "rollback", registry).err
    info = strict_json(ssada("models", "info", registry).out)
    assert info["version"] == "v0002"
    assert int(str(info["parameters"])) > 1_000_000
    weights = registry / "v0001" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0xFF
    weights.write_bytes(data)
    assert "weights.safetensors" in one_line(ssada("models", "verify", registry, status=1).err)


def test_export_of_int8_needs_frames(model: Path) -> None:
    pytest.importorskip("nncf")
    done = ssada("export", model, "--target", "openvino-int8", status=1)
    assert "openvino-int8: not deployed: int8 is calibrated on real frames" in done.err


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_bags_are_made_and_inspected(tmp_path: Path, storage: str) -> None:
    drive = SimulatedDrive(seed=0, size=(64, 96))
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for index in range(3):
        image, label = drive.frame(index, "day")
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image)
        cv2.imwrite(str(tmp_path / "labels" / f"{index}.png"), label)
    folders = ("--images", tmp_path / "images", "--labels", tmp_path / "labels")
    ssada("bag", "create", *folders, "--rate", "2", "--storage", storage, "--label-space", "camvid", tmp_path / "bag")
    info = strict_json(ssada("bag", "info", tmp_path / "bag").out)
    assert info["storage"] == storage
    assert info["messages"] == 6
    assert info["duration_s"] == pytest.approx(1.0, abs=0.01)


def test_source_packs(tmp_path: Path) -> None:
    done = ssada("source", "pack", "--data", "sim:day:1:0-30:5", "--frames", "4", tmp_path / "pack.zip")
    assert strict_json(done.out)["frames"] == 4
    assert (tmp_path / "pack.zip").is_file()


def test_pools_are_counted_and_verified(tmp_path: Path) -> None:
    image, _ = SimulatedDrive(seed=0, size=(64, 96)).frame(0, "day")
    with FramePool(tmp_path / "pool", PoolSettings(keep_free_share=0.0), label_space=CAMVID) as pool:
        assert pool.add(image, jpeg=encode_jpeg(image), camera="front", stamp_ns=1_000_000_000).reason == "stored"
    stats = strict_json(ssada("pool", "stats", tmp_path / "pool").out)
    assert stats["frames"]["buffered"] == 1  # type: ignore[index]
    assert "0 problems" in ssada("pool", "verify", tmp_path / "pool").err
    next((tmp_path / "pool").rglob("*.jpg")).unlink()
    missing = ssada("pool", "verify", tmp_path / "pool", status=1).err
    assert "images/000/000001.jpg: missing, frame 1 needs it" in missing
    assert "1 problems" in missing


def test_errors_are_one_line_with_a_remedy(run_dir: Path, tmp_path: Path) -> None:
    model = run_dir / "run" / "model"
    missing = one_line(ssada("evaluate", "--model", tmp_path / "none", "--data", "sim:day", status=1).err)
    assert "give a model directory" in missing
    no_list = ssada("evaluate", "--model", model, "--data", tmp_path / "no.txt", status=1).err
    assert "no.txt" in one_line(no_list)
    backend = ssada("evaluate", "--model", model, "--data", "sim:day", "--backend", "tensorflow", status=2).err
    assert "'backend' is 'tensorflow'" in one_line(backend)
    sheet = ssada("evaluate", "--model", model, "--data", "sim:day", "--sheet", tmp_path / "no" / "x.png", status=2).err
    assert "there is no folder" in one_line(sheet)
    config = run_dir / "train.yaml"
    misspelt = ssada("train", "--config", config, "training.iteratons=1", status=2).err
    assert "'training.iteratons' (did you mean 'iterations'?)" in one_line(misspelt)
    assert "no pool.sqlite" in one_line(ssada("pool", "stats", tmp_path, status=1).err)


@pytest.mark.parametrize("out", [".", "/"])
def test_a_folder_is_no_file_to_write(out: str, tmp_path: Path) -> None:
    pack = ("source", "pack", "--data", "sim:day:1:0-5", "--frames", "1")
    assert "it is a folder: name a file" in one_line(ssada(*pack, out, status=1).err)
    FramePool(tmp_path, PoolSettings(keep_free_share=0.0), label_space=CAMVID).close()
    assert "it is a folder: name a file" in one_line(ssada("pool", "stats", tmp_path, "--json", out, status=1).err)


@pytest.mark.parametrize("command", ["list", "verify", "why", "promote", "rollback"])
@pytest.mark.parametrize("there", ["nothing", "empty", "a file"])
def test_a_mistyped_registry_is_refused_and_not_made(command: str, there: str, tmp_path: Path) -> None:
    path = tmp_path / "typo"
    if there == "empty":
        path.mkdir()
    elif there == "a file":
        path.write_text("no folder")
    version = ["v0001"] if command == "promote" else []
    done = ssada("models", command, path, *version, status=1)
    assert f"{path} is no registry: it has no model version" in one_line(done.err)
    assert done.out == ""
    assert path.exists() == (there != "nothing")
    assert not list(path.glob("*"))


def test_what_is_said_is_one_line_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    words = f"[ERROR] [adaptation_node]: see [/a]: pip install 'ssada_ros[annotate]' {'now ' * 40}end"
    say(words)
    say(words, alarm="error")
    assert capsys.readouterr().err == f"{words}\nerror: {words}\n"


def test_wrong_use_is_status_2(tmp_path: Path) -> None:
    assert "--seed" in ssada("source", "pack", "--data", "sim:day", "--seed", "-1", "x.zip", status=2).err
    assert "No such option" in ssada("evaluate", "--modle", "x", status=2).err
    assert "mcap or sqlite3" in ssada("bag", "create", "--images", tmp_path, "--storage", "ros1", "b", status=2).err
    assert "No such file" in one_line(ssada("train", "--config", tmp_path / "none.yaml", status=2).err)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = process("evaluate", "--model", tmp_path / "none", "--data", "sim:day", "--debug", status=1)
    assert "Traceback" in done.err
    assert "ModelError" in done.err


def test_ctrl_c_writes_a_checkpoint_and_the_same_command_resumes(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(CONFIG.format(out=tmp_path / "run", iterations=6))
    long = ("train", "--config", tmp_path / "train.yaml")
    progress = tmp_path / "run" / "progress.jsonl"
    process = start(*long, "training.iterations=100000")
    deadline = time.monotonic() + 200
    while not (progress.exists() and progress.read_text().count("\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the same command goes on" in err
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    first = json.loads(progress.read_text().splitlines()[-1])["iteration"]

    again = start(*long, "training.iterations=100000")
    deadline = time.monotonic() + 200
    while json.loads(progress.read_text().strip().splitlines()[-1])["iteration"] <= first:
        assert again.poll() is None, again.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=120)
    assert again.returncode == 1
    iterations = [json.loads(line)["iteration"] for line in progress.read_text().splitlines()]
    assert iterations == list(range(1, len(iterations) + 1))
