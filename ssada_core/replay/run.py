"""``ssada replay``: a recording through models or through the whole adaptation, to one page and its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ssada_core.data.bag_recovery import RecoveredBag
from ssada_core.data.damage import Damage
from ssada_core.data.samples import ArraySamples, Samples
from ssada_core.evaluation.report_system import system, versions
from ssada_core.inference.deployment import INT8_FRAMES
from ssada_core.labels import LabelSpace
from ssada_core.replay import results
from ssada_core.replay.driver import DirectDriver, Driver
from ssada_core.replay.figures import ModelFigures, ReplayReport
from ssada_core.replay.models import ReplayModel, describe, find_models, load, series_names
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
        mask_bag: also write a bag with the masks.
        video: also write a video of the overlays.
    """

    bag: Path
    out: Path
    models: tuple[str, ...]
    command: str = ""
    mask_bag: bool = False
    video: bool = False


def run_replay(
    options: ReplayOptions, settings: ReplaySettings, *, log: Log, on_frame: Progress | None = None
) -> ReplayReport:
    """Replay a recording and write ``report.html``, ``report.json`` and ``frames.csv``.

    Raises:
        SsadaError: one line that says what is wrong and what to do.
    """
    models = find_models(options.models)
    space = models[0].label_space
    damage = Damage()
    bag = RecoveredBag(options.bag, damage)
    recording = Recording(bag, space, settings.recording, settings.truth)
    out = run_folder(options.out, kind="replay")
    with ExitStack() as stack:
        driver, described = _direct(models, options, settings, space, out, log)
        stack.callback(driver.close)
        done = play_into(out, recording, driver, space, options, settings, on_frame=on_frame)
    report = ReplayReport(
        command=options.command,
        mode="direct",
        recording=results.recording_figures(str(options.bag), recording, done, settings.recording.every),
        damage=results.damage_figures(damage),
        models=described,
        series=results.series_figures(done.tally, space),
        stretch_s=settings.stretch_s,
        stretches=results.stretch_figures(done.tally, settings.stretch_s),
        comparisons=results.comparisons(done.tally, space, settings),
        adaptation=None,
        ros=None,
        settings=settings.model_dump(mode="json"),
        versions=versions(),
        system=system(),
        timing=results.timing(done),
    )
    write_json(out / "report.json", report.model_dump(mode="json"))
    write_page(out / "report.html", report, done, space)
    return report


def play_into(
    out: Path,
    recording: Recording,
    driver: Driver,
    space: LabelSpace,
    options: ReplayOptions,
    settings: ReplaySettings,
    *,
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
        return play(recording, driver, space, settings, table=table, outputs=outputs, on_frame=on_frame)


def _direct(
    models: Sequence[ReplayModel],
    options: ReplayOptions,
    settings: ReplaySettings,
    space: LabelSpace,
    out: Path,
    log: Log,
) -> tuple[DirectDriver, list[ModelFigures]]:
    frames = first_frames(options.bag, space, settings, INT8_FRAMES)
    loaded = [
        load(model, settings.engine, frames, out / "models" / str(number), log)
        for number, model in enumerate(models, 1)
    ]
    return DirectDriver(series_names(models), loaded), [describe(*pair) for pair in zip(models, loaded, strict=True)]


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
