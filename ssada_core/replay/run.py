"""``ssada replay``: a recording through models or through the whole adaptation, to one page and its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssada_core.data.bag_recovery import RecoveredBag
from ssada_core.data.damage import Damage
from ssada_core.data.samples import ArraySamples, Samples
from ssada_core.errors import ConfigError
from ssada_core.evaluation.report_system import system, versions
from ssada_core.inference.deployment import INT8_FRAMES
from ssada_core.labels import LabelSpace
from ssada_core.replay import over_ros, results
from ssada_core.replay.adapting import AdaptingDriver, prepare, until_stamp
from ssada_core.replay.adapting_results import AdaptationResults, gather
from ssada_core.replay.driver import DirectDriver, Driver, OpenRos, RosDriver
from ssada_core.replay.figures import ModelFigures, ReplayReport
from ssada_core.replay.judging import JudgingDriver
from ssada_core.replay.models import ReplayModel, deployed, describe, find_models, load, series_names
from ssada_core.replay.outputs import FramesTable, MaskBag, Output, OverlayVideo
from ssada_core.replay.page import write_page
from ssada_core.replay.recording import Recording
from ssada_core.replay.session import Pass, Progress, play
from ssada_core.replay.settings import ReplaySettings, TruthSettings
from ssada_core.store.files import write_json
from ssada_core.store.run_folder import run_folder

Log = Callable[[str], None]


@dataclass(frozen=True)
class ReplayOptions:
    """What a replay is asked to do; how is in :class:`ReplaySettings`.

    Attributes:
        bag: the recording.
        out: folder of the results.
        models: references, in the order of comparison.
        command: the command line, for the report.
        adapt: play the whole adaptation through; of one model.
        evaluation: labelled frames that the drive does not show, for first and last model.
        source_data: what the model was first trained on.
        speed: of a replay over ROS; 1 is the recording's own pace.
        reliability: with which its node subscribes.
        mask_bag: also write a bag with the masks.
        video: also write a video of the overlays.
        config: the configuration that was read, if not the shipped one.
    """

    bag: Path
    out: Path
    models: tuple[str, ...]
    command: str = ""
    adapt: bool = False
    evaluation: str = ""
    source_data: str = ""
    speed: float = 1.0
    reliability: Literal["best_effort", "reliable"] = "reliable"
    mask_bag: bool = False
    video: bool = False
    config: Path | None = None


def run_replay(
    options: ReplayOptions,
    settings: ReplaySettings,
    *,
    log: Log,
    on_frame: Progress | None = None,
    ros: OpenRos | None = None,
) -> ReplayReport:
    """Replay a recording and write ``report.html``, ``report.json`` and ``frames.csv``.

    Args:
        options: what to do.
        settings: how.
        log: gets a line for what takes a while.
        on_frame: told how far the drive is.
        ros: play over real nodes, which it starts, instead of reading directly.

    Raises:
        SsadaError: one line that says what is wrong and what to do.
    """
    models = find_models(options.models)
    if ros is not None:
        over_ros.check(len(models), settings, adapt=options.adapt)
    if options.adapt and len(models) > 1:
        raise ConfigError("--adapt plays one model: give --model once")
    space = models[0].label_space
    damage = Damage()
    recording = _recording(options, space, settings, damage)
    until_ns = _until(options, settings, space) if options.adapt else None
    out = run_folder(options.out, kind="replay", inputs=_inputs(options, settings, models))
    with ExitStack() as stack:
        driver, driven, described = _open(models, recording, options, settings, out, until_ns, log, ros, on_frame)
        stack.callback(driver.close)
        done = play_into(out, recording, driver, space, options, settings, unseen_from_ns=until_ns, on_frame=on_frame)
        learned = None
        if isinstance(driver, AdaptingDriver | JudgingDriver):
            took = settings.round_seconds if driven is None else None
            learned = gather(driver, done, settings, space, options.evaluation, round_seconds=took)
    report = _report(options, settings, space, recording, damage, done, described, learned)
    if driven is not None:
        report = over_ros.with_ros(report, driven, _ros_options(options, out))
    if settings.truth.folder and not any(series.frames for series in report.series):
        log(f"no label of {settings.truth.folder} belongs to a frame: see --label-by, and how the files are named")
    write_json(out / "report.json", report.model_dump(mode="json"))
    queries, pairs = (learned.queries, learned.pairs) if learned is not None else ([], [])
    write_page(out / "report.html", report, done, space, queries=queries, pairs=pairs)
    return report


def _inputs(options: ReplayOptions, settings: ReplaySettings, models: Sequence[ReplayModel]) -> list[str]:
    """What a replay reads, and must not empty to make room for what it writes."""
    read = [options.bag, *(model.folder for model in models), settings.truth.folder, options.config or ""]
    return [*map(str, read), options.source_data, options.evaluation, settings.answers]


def _report(
    options: ReplayOptions,
    settings: ReplaySettings,
    space: LabelSpace,
    recording: Recording,
    damage: Damage,
    done: Pass,
    described: list[ModelFigures],
    learned: AdaptationResults | None,
) -> ReplayReport:
    timing = results.timing(done)
    if learned is not None:
        took = {"round_seconds": learned.round_seconds, "gate_latency": learned.gate_latency}
        timing = timing.model_copy(update=took)
    return ReplayReport(
        command=options.command,
        mode="direct",
        recording=results.recording_figures(str(options.bag), recording, done, settings.recording.every),
        damage=results.damage_figures(damage),
        models=described,
        series=results.series_figures(done.tally, space),
        stretch_s=settings.stretch_s,
        stretches=results.stretch_figures(done.tally, settings.stretch_s),
        comparisons=results.comparisons(done.tally, space, settings),
        adaptation=learned.figures if learned is not None else None,
        ros=None,
        settings=settings.model_dump(mode="json"),
        versions=versions(),
        system=system(),
        timing=timing,
    )


def play_into(
    out: Path,
    recording: Recording,
    driver: Driver,
    space: LabelSpace,
    options: ReplayOptions,
    settings: ReplaySettings,
    *,
    unseen_from_ns: int | None = None,
    on_frame: Progress | None = None,
) -> Pass:
    """One pass with all outputs that were asked for."""
    with ExitStack() as stack:
        table = FramesTable(out / "frames.csv")
        stack.callback(table.close)
        outputs: list[Output] = []
        if options.mask_bag:
            outputs.append(MaskBag(out / "masks", space))
        if options.video:
            outputs.append(OverlayVideo(out / "overlay.mp4", space))
        for output in outputs:
            stack.callback(output.close)
        return play(
            recording,
            driver,
            space,
            settings,
            table=table,
            outputs=outputs,
            unseen_from_ns=unseen_from_ns,
            on_frame=on_frame,
        )


def _open(
    models: Sequence[ReplayModel],
    recording: Recording,
    options: ReplayOptions,
    settings: ReplaySettings,
    out: Path,
    until_ns: int | None,
    log: Log,
    ros: OpenRos | None,
    on_frame: Progress | None,
) -> tuple[Driver, RosDriver | None, list[ModelFigures]]:
    """The driver of the pass that is reported; over ROS also the one that played the recording."""
    model, space = models[0], models[0].label_space
    frames = first_frames(options.bag, space, settings, INT8_FRAMES)
    if ros is None:
        if options.adapt:
            driver, described = _adapting(model, frames, options, settings, out, until_ns, log)
        else:
            driver, described = _direct(models, frames, settings, out, log)
        return driver, None, described
    how = _ros_options(options, out)
    if not options.adapt:
        driven, described = over_ros.open_driver(model, recording, frames, how, settings, ros, log)
        return driven, driven, described
    played = _recording(options, space, settings, Damage())  # what is broken is counted when it is judged
    driven, judging, described = over_ros.drive(model, played, frames, how, settings, ros, log, on_frame)
    return judging, driven, described


def _direct(
    models: Sequence[ReplayModel], frames: Samples, settings: ReplaySettings, out: Path, log: Log
) -> tuple[Driver, list[ModelFigures]]:
    loaded = []
    for number, model in enumerate(models, 1):
        folder = deployed(model, settings.engine, frames, out / "models" / str(number), log)
        loaded.append(load(model, folder, settings.engine, log))
    return DirectDriver(series_names(models), loaded), [describe(*pair) for pair in zip(models, loaded, strict=True)]


def _adapting(
    model: ReplayModel,
    frames: Samples,
    options: ReplayOptions,
    settings: ReplaySettings,
    out: Path,
    until_ns: int | None,
    log: Log,
) -> tuple[Driver, list[ModelFigures]]:
    prepare(out / "vehicle", model, settings, frames, options.source_data, log)
    driver = AdaptingDriver(out / "vehicle", settings, model.label_space, until_ns, log)
    return driver, [describe(model, driver.load_pair()[0])]


def _ros_options(options: ReplayOptions, out: Path) -> over_ros.RosOptions:
    return over_ros.RosOptions(out, options.speed, options.reliability, options.source_data)


def _recording(options: ReplayOptions, space: LabelSpace, settings: ReplaySettings, damage: Damage) -> Recording:
    return Recording(RecoveredBag(options.bag, damage), space, settings.recording, settings.truth)


def _until(options: ReplayOptions, settings: ReplaySettings, space: LabelSpace) -> int | None:
    """Where the adaptation stops; a share of the drive needs its length, which only its stamps tell."""
    if not settings.adapt_until:
        return None
    recording = Recording(RecoveredBag(options.bag, Damage()), space, settings.recording, TruthSettings(source="none"))
    stamps = recording.stamps()
    return until_stamp(settings.adapt_until, *settings.recording.played(min(stamps), max(stamps)))


def first_frames(bag: Path, space: LabelSpace, settings: ReplaySettings, count: int) -> Samples:
    """The first frames of a recording, on which deployed forms are compared with torch and int8 is calibrated.

    Raises:
        BagError: if there is not a single usable frame.
    """
    recording = Recording(RecoveredBag(bag, Damage()), space, settings.recording, TruthSettings(source="none"))
    images = []
    for frame in recording.frames():
        images.append(frame.image)
        if len(images) == count:
            break
    return ArraySamples(images)
