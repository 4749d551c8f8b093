"""Replays over real nodes: without adaptation frame by frame, with it driven first and judged afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ssada_core.data.samples import Samples
from ssada_core.errors import ConfigError
from ssada_core.replay.adapted import Answers
from ssada_core.replay.adapting import adaptation_settings, prepare
from ssada_core.replay.ahead import ahead
from ssada_core.replay.driver import OpenRos, RosDriver, RosRequest
from ssada_core.replay.figures import ModelFigures, ReplayReport, RosFigures
from ssada_core.replay.judging import JudgingDriver, Spool
from ssada_core.replay.models import ReplayModel, deployed, describe, load
from ssada_core.replay.recording import Recording
from ssada_core.replay.session import Progress
from ssada_core.replay.settings import ReplaySettings

Log = Callable[[str], None]


@dataclass(frozen=True)
class RosOptions:
    """How a recording is played over ROS.

    Attributes:
        out: folder of the results.
        speed: 1 is the recording's own pace.
        reliability: with which the nodes subscribe.
        source_data: what the model was first trained on.
    """

    out: Path
    speed: float
    reliability: Literal["best_effort", "reliable"]
    source_data: str = ""


def check(models: int, settings: ReplaySettings, *, adapt: bool) -> None:
    """Refuse what real nodes cannot do.

    Raises:
        ConfigError: naming it.
    """
    if models > 1:
        raise ConfigError("--through-ros plays one model: give --model once")
    if adapt and settings.adapt_until:
        raise ConfigError("--through-ros adapts to the end of the drive: leave --adapt-until out, or --through-ros")


def open_driver(
    model: ReplayModel,
    recording: Recording,
    frames: Samples,
    options: RosOptions,
    settings: ReplaySettings,
    ros: OpenRos,
    log: Log,
) -> tuple[RosDriver, list[ModelFigures]]:
    """Start the segmentation node for a replay without adaptation."""
    folder = deployed(model, settings.engine, frames, options.out / "models" / "1", log)
    loaded = load(model, folder, settings.engine, log)  # says what the node will run
    described = [describe(model, loaded)]
    loaded.engine.close()
    log("starting the node")
    return ros(_request(folder, model.version, recording, options, settings, log)), described


def drive(
    model: ReplayModel,
    recording: Recording,
    frames: Samples,
    options: RosOptions,
    settings: ReplaySettings,
    ros: OpenRos,
    log: Log,
    on_frame: Progress | None,
) -> tuple[RosDriver, JudgingDriver, list[ModelFigures]]:
    """Drive with the real segmentation and adaptation nodes; what is left is to judge what they did.

    Raises:
        SsadaError: if a node ends by itself, or a round fails.
    """
    root, space = options.out / "vehicle", model.label_space
    prepare(root, model, settings, frames, options.source_data, log)
    answers = Answers(root / "truth", settings, space)
    request = replace(
        _request(root / "registry", model.version, recording, options, settings, log),
        adaptation=adaptation_settings(root, settings, live=True),
        answer=answers.answer,
    )
    spool = Spool(options.out / "ros" / "masks")
    log("starting the nodes")
    driven = ros(request)
    with closing(driven):
        with ahead(recording.frames()) as played:
            for number, frame in enumerate(played, 1):
                answers.keep(frame.camera, frame.stamp_ns, frame.label)
                spool.put(driven.serve(frame))
                if on_frame is not None:
                    on_frame(number, recording.expected or 0)
        spool.put(driven.finish())
    log("judging what the nodes did")
    judging = JudgingDriver(root, settings, space, spool, driven.seen, log)
    return driven, judging, [describe(model, judging.load_pair()[0])]


def with_ros(report: ReplayReport, driven: RosDriver, options: RosOptions) -> ReplayReport:
    """The report with what only a drive over ROS can tell."""
    figures = RosFigures(
        speed=options.speed,
        published=driven.published,
        served=report.recording.frames,
        dropped=driven.dropped,
        reliability=options.reliability,
    )
    gaps = [round(gap, 3) for gap in driven.seen.swap_gaps_s()]
    timing = report.timing.model_copy(update={"longest_gap_s": driven.longest_gap_s, "swap_gaps_s": gaps})
    return report.model_copy(update={"mode": "ros", "ros": figures, "timing": timing})


def _request(
    folder: Path, version: str, recording: Recording, options: RosOptions, settings: ReplaySettings, log: Log
) -> RosRequest:
    return RosRequest(
        out=options.out / "ros",
        model_dir=folder,
        version=version,
        cameras=recording.compressed,
        engine=settings.engine,
        speed=options.speed,
        reliability=options.reliability,
        log=log,
    )
