"""One pass over a recording: every frame to the driver, every answer to the sums, the outputs and the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ssada_core.labels import LabelSpace
from ssada_core.replay.ahead import ahead
from ssada_core.replay.driver import Driver, Served
from ssada_core.replay.moments import Moments
from ssada_core.replay.outputs import FramesTable, Output
from ssada_core.replay.recording import Recording
from ssada_core.replay.settings import ReplaySettings
from ssada_core.replay.tally import Tally

Progress = Callable[[int, int], None]
"""Called with (frames done, frames expected; 0 where that is not known)."""


@dataclass
class Pass:
    """What a pass over the recording gave.

    Attributes:
        tally: over the whole drive.
        after: over the frames from ``unseen_from_ns`` on; empty without one.
        moments: of the drive, or of its unseen part where there is one.
        seconds: the whole pass.
        read_seconds: of which waiting for frames to be read and decoded, which goes on in a thread meanwhile.
        frames: frames served.
        cameras: frames served, by camera.
        first_ns: stamp of the recording's first frame.
        end_s: seconds of the last frame that was played.
    """

    tally: Tally
    after: Tally
    moments: Moments
    seconds: float = 0.0
    read_seconds: float = 0.0
    frames: int = 0
    cameras: dict[str, int] = field(default_factory=dict)
    first_ns: int = 0
    end_s: float = 0.0


def play(
    recording: Recording,
    driver: Driver,
    label_space: LabelSpace,
    settings: ReplaySettings,
    *,
    table: FramesTable,
    outputs: Sequence[Output] = (),
    unseen_from_ns: int | None = None,
    on_frame: Progress | None = None,
) -> Pass:
    """Play the recording through the driver.

    Raises:
        BagError: if not a single frame can be used.
        SsadaError: if the driver fails.
    """
    classes = label_space.num_classes
    done = Pass(
        Tally(driver.series, classes, settings.stretch_s),
        Tally(driver.series, classes, settings.stretch_s),
        Moments(settings.moments, classes),
    )
    start = time.perf_counter()
    with ahead(recording.frames()) as frames:
        while True:
            before = time.perf_counter()
            frame = next(frames, None)
            done.read_seconds += time.perf_counter() - before
            if frame is None:
                break
            done.end_s = max(done.end_s, frame.second)
            _take(done, driver.serve(frame), recording, table, outputs, unseen_from_ns)
            if on_frame is not None:
                on_frame(done.frames, recording.expected or 0)
    _take(done, driver.finish(), recording, table, outputs, unseen_from_ns)
    recording.note_gaps(settings.gap_factor)
    done.seconds = time.perf_counter() - start
    return done


def _take(
    done: Pass,
    served: Iterable[Served],
    recording: Recording,
    table: FramesTable,
    outputs: Sequence[Output],
    unseen_from_ns: int | None,
) -> None:
    first_ns = done.first_ns = recording.first_ns or 0
    for one in served:
        frame = one.frame
        done.frames += 1
        done.cameras[frame.camera] = done.cameras.get(frame.camera, 0) + 1
        table.write(done.tally.add(one, first_ns))
        for output in outputs:
            output.see(one)
        unseen = unseen_from_ns is not None and frame.stamp_ns >= unseen_from_ns
        if unseen:
            done.after.add(one, first_ns)
        if unseen or unseen_from_ns is None:
            done.moments.see(one, done.tally.stretch_of(frame.stamp_ns, first_ns))
