from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptation_fixtures import children, is_at_work, wait_until
from engine_fixtures import write_model

from ssada_core.bench.adaptation import run_benchmark
from ssada_core.bench.adaptation_choice import choose
from ssada_core.bench.adaptation_report import claims, markdown, summarise
from ssada_core.bench.adaptation_run import RESULT_FILE, passes, training_data
from ssada_core.bench.adaptation_settings import SETTINGS, BenchAcquisition, BenchSettings, recipe
from ssada_core.config import load_settings
from ssada_core.data.lists import open_samples
from ssada_core.errors import ConfigError, WorkerError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine
from ssada_core.labels import CAMVID
from ssada_core.learning.settings import TrainingSettings
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.files import read_json

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = {
    "source": "sim:day:1:0-6",
    "held_out": "sim:day:2:0-2",
    "pool": "sim:night:3:0-8",
    "validation": "sim:night:4:0-2",
}
SHORT = {"iterations": 2, "crop_height": 32, "crop_width": 32}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = NetworkSettings(architecture="bisenet_v1", backbone="resnet18", input_height=64, input_width=96)
    return write_model(tmp_path_factory.mktemp("model"), settings)


def bench(model: Path, out: Path, **changes: Any) -> BenchSettings:
    values = {"name": "b", "out": str(out), "source_model": str(model), "data": DATA, "training": SHORT, "seeds": (0,)}
    return BenchSettings.model_validate(values | changes)


@pytest.mark.parametrize(
    ("name", "mode", "share", "strategy", "diverse", "variant"),
    [
        ("source", None, 0.0, "random", False, ""),
        ("supervised_12", "supervised", 0.125, "random", False, ""),
        ("joint_100", "joint", 1.0, "random", False, ""),
        ("ssada_25", "ssada", 0.25, "eis", True, ""),
        ("ssada_25_random", "ssada", 0.25, "random", False, ""),
        ("ssada_50_entropy", "ssada", 0.5, "entropy", True, ""),
        ("ssada_25_eis_plain@teacher", "ssada", 0.25, "eis", False, "teacher"),
        ("tufl_0", "tufl", 0.0, "random", False, ""),
    ],
)
def test_a_name_says_what_a_setting_does(
    name: str, mode: Any, share: Any, strategy: Any, diverse: Any, variant: Any
) -> None:
    found = recipe(name)
    assert (found.mode, found.share, found.strategy) == (mode, share, strategy)
    assert (found.diverse, found.variant) == (diverse, variant)


def test_a_misspelt_setting_gets_the_nearest_right_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'supervised_25'"):
        recipe("supervized_25")
    config = tmp_path / "b.yaml"
    config.write_text(f"data: {DATA}\nsettings: [source, sada_25]\n")
    with pytest.raises(ConfigError, match="did you mean 'ssada_25'"):
        load_settings(BenchSettings, config)


def test_the_shipped_configurations_are_valid_and_name_every_setting() -> None:
    for name in ("camvid_dusk", "camvid_tune"):
        loaded = load_settings(BenchSettings, REPOSITORY / f"config/bench/{name}.yaml")
        assert loaded.settings == SETTINGS
        for setting in [*SETTINGS, *(f"ssada_25@{variant}" for variant in loaded.variants)]:
            loaded.training_of(recipe(setting), seed=3)


def test_modes_and_variants_change_what_a_run_trains_by(tmp_path: Path) -> None:
    settings = bench(
        tmp_path,
        tmp_path,
        modes={"supervised": {"labelled_batch": 4}, "tufl": {"tufl": {"learning_rate": 0.001}}},
        variants={"hot": {"learning_rate": 0.1, "mixing": {"mode": "single"}}, "odd": {"learning_rat": 1}},
    )
    plain, tufl = settings.training_of(recipe("ssada_25"), seed=5)
    assert (plain.labelled_batch, plain.seed, plain.threads, tufl.iterations) == (2, 5, 1, 2)
    joint, _ = settings.training_of(recipe("joint_25"), seed=5)
    assert plain.unlabelled_batch > 0
    assert joint.unlabelled_batch == 0, "a baseline must not learn from the unlabelled pixels of its labelled frames"
    hot, _ = settings.training_of(recipe("supervised_25@hot"), seed=0)
    assert (hot.labelled_batch, hot.learning_rate, hot.mixing.mode) == (4, 0.1, "single")
    assert settings.training_of(recipe("tufl_0"), seed=0)[1].learning_rate == 0.001
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        settings.training_of(recipe("ssada_25@odd"), seed=0)
    with pytest.raises(ConfigError, match="did you mean 'hot'"):
        settings.training_of(recipe("ssada_25@hott"), seed=0)


def test_passes_of_a_step_are_counted() -> None:
    batch = TrainingSettings(source_batch=2, labelled_batch=3, unlabelled_batch=5)
    assert passes(recipe("source"), batch) == 0
    assert passes(recipe("supervised_25"), batch) == 3
    assert passes(recipe("joint_25"), batch) == 2 + 3
    assert passes(recipe("ssada_25"), batch) == 2 + 3 + 5 * 4
    assert passes(recipe("tufl_0"), batch) == 2 + 5 * 2
    late = batch.model_copy(update={"iterations": 10, "unlabelled_start": 0.5})
    assert [passes(recipe("ssada_25"), late, at) for at in (4, 5)] == [2 + 3, 2 + 3 + 5 * 4]
    assert [passes(recipe("tufl_0"), late, at) for at in (4, 5)] == [2 + 5 * 2] * 2
    mixed = batch.model_copy(update={"mixing": batch.mixing.model_copy(update={"mode": "dual_soft"})})
    assert passes(recipe("ssada_25"), mixed) == 2 + 3 + 5 * 4 + 2 * 5


def test_a_labelled_frame_is_no_unlabelled_one(model: Path, tmp_path: Path) -> None:
    pool = open_samples("sim:night:3:0-8", CAMVID)
    settings = bench(model, tmp_path)
    data = training_data(settings, recipe("ssada_25"), pool, [1, 6], (64, 96), CAMVID)
    assert [data.labelled.name(index) for index in range(2)] == [pool.name(1), pool.name(6)]
    names = [data.unlabelled.name(index) for index in range(len(data.unlabelled))]
    assert names == [pool.name(index) for index in (0, 2, 3, 4, 5, 7)]
    assert training_data(settings, recipe("ssada_100"), pool, list(range(8)), (64, 96), CAMVID).unlabelled is None


def test_labels_are_bought_at_random_first_then_by_score(model: Path) -> None:
    engine = load_engine(model, EngineSettings(backend="torch"), log=lambda _: None)
    pool = open_samples("sim:night:3:0-16", CAMVID)
    settings = BenchAcquisition()

    def bought(name: str, seed: int) -> tuple[list[int], bool]:
        found, known = choose(pool, recipe(name), engine, CAMVID.num_classes, settings, seed=seed)
        return found, known is not None

    by_score, knows = bought("ssada_50", 0)
    assert knows
    assert len(by_score) == len(set(by_score)) == 8
    assert bought("ssada_50", 0) == (by_score, True)
    first = set(np.random.default_rng([0, 17]).permutation(16)[:2].tolist())  # a quarter of 8
    assert first <= set(by_score)
    at_random, knows = bought("supervised_50", 0)
    assert not knows
    assert len(at_random) == 8
    assert at_random != by_score
    assert bought("joint_50", 0)[0] == at_random, "baselines have the same labels with the same seed"
    assert bought("supervised_100", 0)[0] == list(range(16))
    assert bought("tufl_0", 0)[0] == []
    assert bought("ssada_50_random", 0) == (at_random, True)
    assert bought("ssada_100", 0) == (list(range(16)), True)
    engine.close()


def test_the_choice_is_all_that_differs_between_strategies(model: Path) -> None:
    """All of SS-ADA's settings weigh the classes by the IoU on the same first labels."""
    pool = open_samples("sim:night:3:0-16", CAMVID)
    with closing(load_engine(model, EngineSettings(backend="torch"), log=lambda _: None)) as engine:
        names = ("ssada_50", "ssada_50_entropy", "ssada_50_random")
        choices = [
            choose(pool, recipe(name), engine, CAMVID.num_classes, BenchAcquisition(), seed=0)[1] for name in names
        ]
    assert all(known is not None for known in choices)
    for known in choices[1:]:
        np.testing.assert_array_equal(known, choices[0])


def test_means_spreads_and_claims_are_those_computed_by_hand() -> None:
    def run(setting: str, seed: int, miou: float, day: float | None = None) -> dict[str, Any]:
        common = {"labels": 4, "iterations": 2, "passes": 20, "seconds": 3.0 + seed, "cpu_seconds": 2.0}
        iou = {"road": miou, "car": None}
        return {"setting": setting, "seed": seed, "miou": miou, "day_miou": day, "iou": iou, **common}

    results = [
        run("source", 0, 20.0, 60.0),
        run("ssada_25", 0, 40.0, 59.0),
        run("ssada_25", 1, 44.0, 57.0),
        run("supervised_100", 0, 41.0),
        run("supervised_100", 1, 42.0),
        run("joint_25", 0, 39.0),
        run("joint_25", 1, 42.0),
        run("tufl_0", 0, 19.0) | {"changed_share": 0.25},
    ]
    figures = summarise(results)
    assert figures["ssada_25"]["miou_mean"] == 42.0
    assert figures["ssada_25"]["miou_std"] == pytest.approx(8**0.5)
    assert figures["ssada_25"]["miou_by_seed"] == {"0": 40.0, "1": 44.0}
    assert figures["ssada_25"]["day_miou_mean"] == 58.0
    assert figures["ssada_25"]["seconds"] == 3.5
    assert figures["source"]["miou_std"] == 0.0
    assert figures["ssada_25"]["iou"] == {"road": 42.0, "car": None}
    found = {(claim["better"], claim["than"]): claim for claim in claims(figures)}
    assert set(found) == {("ssada_25", "supervised_100"), ("ssada_25", "joint_25"), ("tufl_0", "source")}
    assert found["ssada_25", "supervised_100"]["difference"] == pytest.approx(0.5)
    assert found["ssada_25", "supervised_100"]["by_seed"] == {"0": -1.0, "1": 2.0}
    assert found["ssada_25", "supervised_100"]["holds"]
    assert not found["ssada_25", "joint_25"]["holds"], "1.5 is less than 2"
    assert not found["tufl_0", "source"]["holds"]
    report = {
        "command": "ssada bench adaptation",
        "quick": False,
        "seeds": [0, 1],
        "source_model": "camvid-day",
        "source_model_sha256": "0" * 64,
        "settings": figures,
        "claims": claims(figures),
    }
    page = markdown(report, BenchSettings.model_validate({"data": DATA}))
    assert "| ssada_25 | 4 | 42.0 ± 2.8 | 58.0 ± 1.4 | -2.0 | 20 | 4 | 2 |" in page
    assert "tufl_0 changes the class of 25.0 %" in page
    assert "| ssada_25 above joint_25 by 2 | +1.5 | +1.0, +2.0 | **no** |" in page


def test_a_benchmark_runs_from_one_model_and_keeps_what_is_done(model: Path, tmp_path: Path) -> None:
    settings = bench(model, tmp_path, settings=("source", "ssada_25", "tufl_0"), variants={"x": {"threshold": 0.5}})
    results = run_benchmark(settings)
    assert [result["setting"] for result in results] == ["source", "ssada_25", "tufl_0"]
    by_name = {result["setting"]: result for result in results}
    assert by_name["source"]["labels"] == 0
    assert by_name["ssada_25"]["labels"] == 2
    assert len(by_name["ssada_25"]["labelled"]) == 2
    assert by_name["ssada_25"]["passes"] == 2 * (2 + 2 + 2 * 4)
    assert 0.0 <= by_name["tufl_0"]["changed_share"] <= 1.0
    assert all(0.0 <= result["day_miou"] <= 100.0 for result in results)
    written = (tmp_path / "b" / "ssada_25-seed0" / RESULT_FILE).stat().st_mtime_ns
    more = settings.model_copy(update={"settings": ("ssada_25",), "modes": {"joint": {"labelled_batch": 1}}})
    assert run_benchmark(more) == [by_name["ssada_25"]], "other modes' settings leave a finished run valid"
    assert (tmp_path / "b" / "ssada_25-seed0" / RESULT_FILE).stat().st_mtime_ns == written
    changed = settings.model_copy(update={"modes": {"ssada": {"threshold": 0.9}}})
    with pytest.raises(ConfigError, match="ssada_25-seed0 holds a run with other settings"):
        run_benchmark(changed)


def test_a_run_that_fails_is_named_with_its_reason(model: Path, tmp_path: Path) -> None:
    missing = DATA | {"pool": str(tmp_path / "nowhere.txt")}
    with pytest.raises(WorkerError, match=r"ssada_25-seed0 failed \(status 1\): error: .*nowhere.txt"):
        run_benchmark(bench(model, tmp_path, settings=("ssada_25",), data=missing))


def started(settings: BenchSettings, folder: Path) -> subprocess.Popen[bytes]:
    """A benchmark in a process and session of its own."""
    config = folder / "bench.json"
    config.write_text(settings.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from ssada_core.bench.adaptation import run_benchmark; "
        "from ssada_core.bench.adaptation_settings import BenchSettings; "
        "run_benchmark(BenchSettings.model_validate_json(Path(sys.argv[1]).read_text()))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(config)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
    )


def wait_for_iterations(process: subprocess.Popen[bytes], run_dir: Path) -> None:
    progress = run_dir / "progress.jsonl"

    def two() -> bool:
        assert process.poll() is None
        return progress.exists() and progress.read_text().count("\n") >= 2

    wait_until(two, "two iterations")


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(model: Path, tmp_path: Path) -> None:
    longer = SHORT | {"iterations": 6, "checkpoint_every": 1}
    whole = run_benchmark(bench(model, tmp_path / "whole", settings=("joint_25",), training=longer))[0]
    settings = bench(model, tmp_path / "broken", settings=("joint_25",), training=longer, jobs=1)
    process = started(settings, tmp_path)
    wait_for_iterations(process, tmp_path / "broken" / "b" / "joint_25-seed0")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = run_benchmark(settings)[0]
    assert (again["miou"], again["labelled"], again["losses"]) == (whole["miou"], whole["labelled"], whole["losses"])
    assert read_json(tmp_path / "broken" / "b" / "joint_25-seed0" / RESULT_FILE) == again


def test_no_run_outlives_its_benchmark_and_none_has_company(model: Path, tmp_path: Path) -> None:
    settings = bench(model, tmp_path, settings=("joint_25",), training=SHORT | {"iterations": 100_000})
    process = started(settings, tmp_path)
    run_dir = tmp_path / "b" / "joint_25-seed0"
    try:
        wait_for_iterations(process, run_dir)
        with pytest.raises(WorkerError, match=r"joint_25-seed0 failed \(status 1\): error: .* at work on this"):
            run_benchmark(settings)
        (child,) = children(process.pid)
        process.terminate()
        process.wait()
        wait_until(lambda: not is_at_work(child), "the run's end", seconds=20.0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
