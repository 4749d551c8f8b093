"""The frames of a recording, one after another, with their labels; what is broken is counted and left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssada_core.data.bag_messages import COMPRESSED_TYPE, UNREADABLE, read_frame, stamp_of
from ssada_core.data.bag_recovery import RecoveredBag
from ssada_core.data.camera_names import camera_name
from ssada_core.data.samples import Array
from ssada_core.errors import BagError, DataError
from ssada_core.labels import LabelSpace
from ssada_core.replay.settings import RecordingSettings, TruthSettings
from ssada_core.replay.truth import NoTruth, Place, open_truths

DUPLICATE = "frame with a stamp that its camera had before, left out"
OUT_OF_ORDER = "frame older than the one before it, used where it stands"
NO_STAMP = "frame without a stamp, placed by its record time"
BROKEN_FRAME = "frame that cannot be decoded, left out"
GAP = "gap between frames"


@dataclass(frozen=True)
class DriveFrame:
    """One frame of the drive.

    Attributes:
        camera: the camera's name.
        position: number of the frame among its camera's, from 0, those that are not played included.
        stamp_ns: the header's stamp.
        second: seconds from the recording's first frame on, also where that one is not played; the drive's one clock.
        frame_id: the header's frame id.
        image: uint8 H×W×3 BGR.
        jpeg: the camera's own JPEG bytes, or None.
        label: class ids and 255, uint8 H×W, or None.
    """

    camera: str
    position: int
    stamp_ns: int
    second: float
    frame_id: str
    image: Array
    jpeg: bytes | None
    label: Array | None


class Recording:
    """The cameras of a bag, played once; the counts are complete at the end.

    Attributes:
        cameras: name of each camera's topic.
        compressed: whether a camera's topic is of CompressedImage, by its name.
        labelled: whether there is a source of ground truth at all.
        first_ns: stamp of the first frame; None before it.
        stamps_ns: the stamps played so far, per camera.
    """

    def __init__(
        self, bag: RecoveredBag, label_space: LabelSpace, recording: RecordingSettings, truth: TruthSettings
    ) -> None:
        """Find cameras and ground truth.

        Raises:
            BagError: if the bag has no such topics.
            DataError: if the folder of labels cannot be used.
        """
        self._bag = bag
        self._settings = recording
        topics = bag.image_topics(recording.topics)
        self.cameras = dict(zip(topics, _names(topics), strict=True))
        self.compressed = {name: bag.topics[topic] == COMPRESSED_TYPE for topic, name in self.cameras.items()}
        self._truths = open_truths(bag, topics, label_space, truth)
        self.labelled = any(not isinstance(one, NoTruth) for one in self._truths.values())
        self.first_ns: int | None = None
        self.stamps_ns: dict[str, list[int]] = {name: [] for name in self.cameras.values()}
        self._seen: dict[str, set[int]] = {name: set() for name in self.cameras.values()}

    @property
    def expected(self) -> int | None:
        """How many frames may come, for progress; None where the metadata does not say."""
        counts = [self._bag.counts.get(topic) for topic in self.cameras]
        return None if None in counts else -(-sum(filter(None, counts)) // self._settings.every)

    def frames(self) -> Iterator[DriveFrame]:
        """The frames, in the order in which they were recorded.

        Raises:
            BagError: at the end, if not a single one could be used.
        """
        played = 0
        for raw, message in self._bag.decoded(self.cameras.keys()):
            frame = self._frame(raw.topic, raw.time_ns, message)
            if frame is not None:
                played += 1
                yield frame
        if not played:
            words = self._bag.damage.words()
            raise BagError(f"bag {self._bag.path} has not a single usable frame{f': {words}' if words else ''}")

    def stamps(self) -> list[int]:
        """Stamps of all messages of the cameras, in nanoseconds, without decoding a picture.

        Raises:
            BagError: if there is none.
        """
        found = [stamp_of(message) or raw.time_ns for raw, message in self._bag.decoded(self.cameras.keys())]
        if not found:
            raise BagError(f"bag {self._bag.path} has not a single usable frame")
        return found

    def note_gaps(self, factor: float) -> None:
        """Count pauses that are ``factor`` times as long as the usual time between two frames of a camera."""
        for camera, stamps in self.stamps_ns.items():
            steps = np.diff(np.sort(np.asarray(stamps, np.int64))).astype(np.float64)
            usual = float(np.median(steps)) if steps.size else 0.0
            for step in steps[steps > factor * usual] if usual else ():
                self._bag.damage.note(GAP, f"{camera}: {step / 1e9:.2f} s, usually {usual / 1e9:.2f} s")

    def _frame(self, topic: str, time_ns: int, message: Any) -> DriveFrame | None:  # noqa: ANN401
        camera = self.cameras[topic]
        stamp_ns = self._stamp(camera, time_ns, message)
        if stamp_ns in self._seen[camera]:
            self._bag.damage.note(DUPLICATE, f"{camera} at {stamp_ns} ns")
            return None
        position = len(self._seen[camera])
        self._seen[camera].add(stamp_ns)
        if not self._is_wanted(position, stamp_ns):
            return None
        try:
            frame = read_frame(message)
            image = frame.decoded()
        except (DataError, *UNREADABLE) as error:
            self._bag.damage.note(BROKEN_FRAME, f"{camera} at {stamp_ns} ns: {error}")
            return None
        if self.stamps_ns[camera] and stamp_ns < self.stamps_ns[camera][-1]:
            self._bag.damage.note(OUT_OF_ORDER, f"{camera} at {stamp_ns} ns")
        self.stamps_ns[camera].append(stamp_ns)
        label = self._truths[topic].label(Place(stamp_ns, position, (image.shape[0], image.shape[1])))
        second = self._second(stamp_ns)
        return DriveFrame(camera, position, stamp_ns, second, frame.frame_id, image, frame.jpeg, label)

    def _stamp(self, camera: str, time_ns: int, message: Any) -> int:  # noqa: ANN401
        stamp_ns = stamp_of(message)
        if stamp_ns <= 0:
            self._bag.damage.note(NO_STAMP, f"{camera} recorded at {time_ns} ns")
            stamp_ns = time_ns
        if self.first_ns is None:
            self.first_ns = stamp_ns
        return stamp_ns

    def _second(self, stamp_ns: int) -> float:
        return (stamp_ns - (self.first_ns or 0)) / 1e9

    def _is_wanted(self, position: int, stamp_ns: int) -> bool:
        seconds, settings = self._second(stamp_ns), self._settings
        in_time = seconds >= settings.start_s and (not settings.end_s or seconds < settings.end_s)
        return in_time and position % settings.every == 0


def _names(topics: list[str]) -> list[str]:
    """Cameras by their short names where these differ, else by their topics."""
    names = [camera_name(topic) for topic in topics]
    return names if len(set(names)) == len(names) else [topic.strip("/").replace("/", "_") for topic in topics]
