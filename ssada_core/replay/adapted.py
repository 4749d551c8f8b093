"""What an adaptation did on a drive, whoever drove: the recorded adapter, or real nodes over ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ssada_core.annotation.submit import SubmitResult
from ssada_core.data.damage import Damage
from ssada_core.data.encodings import decode_label, encode_png
from ssada_core.data.samples import Array
from ssada_core.labels import LabelSpace
from ssada_core.replay.driver import LoadedModel
from ssada_core.replay.settings import ReplaySettings
from ssada_core.replay.truth import FolderTruth, Place
from ssada_core.store.files import make_directory, write_atomic
from ssada_core.store.pool import FramePool, FrameRecord

SERIES = ("without adaptation", "with adaptation")


@dataclass
class AskedFrame:
    """A query: the frame, when it was asked, and what became of it."""

    record: FrameRecord
    asked_s: float
    result: SubmitResult | None = None


@dataclass
class PlayedRound:
    """A round: when it was started and ended, in seconds of the drive, and the decision as stored."""

    started_s: float
    ended_s: float
    decision: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Swap:
    """A version that took over."""

    version: str
    time_s: float
    reason: str


class Adapted(Protocol):
    """What the report asks of a drive with adaptation, once it is over.

    Attributes:
        root: the vehicle's folder: registry, pool, rounds.
        until_ns: where the adaptation stopped; None is the end of the drive.
        first_version: in use at the start.
        pool: the frames, with their queries and labels.
    """

    root: Path
    until_ns: int | None
    first_version: str

    @property
    def pool(self) -> FramePool:
        """The frames, with their queries and labels."""
        ...

    @property
    def end_s(self) -> float:
        """Seconds of the drive's last frame."""
        ...

    @property
    def asked(self) -> Sequence[AskedFrame]:
        """Queries in the order in which they were asked."""
        ...

    @property
    def rounds(self) -> Sequence[PlayedRound]:
        """In order."""
        ...

    @property
    def swaps(self) -> Sequence[Swap]:
        """In order."""
        ...

    def load_pair(self) -> tuple[LoadedModel, LoadedModel]:
        """The first model and the one in use now."""
        ...


class Answers:
    """Who answers the queries: the drive's own ground truth, a folder of label images, or nobody."""

    def __init__(self, folder: Path, settings: ReplaySettings, label_space: LabelSpace) -> None:
        """Prepare; ``folder`` keeps the drive's labels until they are asked for.

        Raises:
            DataError: if the folder of answers cannot be used.
            StoreError: if ``folder`` cannot be made.
        """
        self._folder = folder
        self._truth = settings.answers == "truth"
        self._given: FolderTruth | None = None
        if not self._truth and settings.answers != "none":
            tolerance_ns = round(settings.truth.tolerance_s * 1e9)
            self._given = FolderTruth(
                Path(settings.answers), label_space, by="stamp", tolerance_ns=tolerance_ns, damage=Damage()
            )
        make_directory(folder)

    def keep(self, camera: str, stamp_ns: int, label: Array | None) -> None:
        """Keep a frame's ground truth if it may be the answer to a query."""
        if self._truth and label is not None:
            write_atomic(self._path(camera, stamp_ns), encode_png(label))

    def answer(self, record: FrameRecord) -> Array | None:
        """See :data:`~ssada_core.replay.driver.Answerer`."""
        if self._given is not None:
            return self._given.label(Place(record.stamp_ns, 0, record.size))
        path = self._path(record.camera, record.stamp_ns)
        return decode_label(path.read_bytes()) if path.exists() else None

    def _path(self, camera: str, stamp_ns: int) -> Path:
        return self._folder / f"{camera}-{stamp_ns}.png"
