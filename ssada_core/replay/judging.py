"""A drive over ROS with adaptation, judged afterwards: the masks that came back, beside those of the first model.

While it is driven, nothing else may take the machine's time. So the masks go to the disk, and the recording is read
again when the nodes have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssada_core.data.encodings import decode_label, encode_png
from ssada_core.inference.load import load_engine
from ssada_core.labels import LabelSpace
from ssada_core.replay.adapted import SERIES, AskedFrame, PlayedRound, Swap
from ssada_core.replay.driver import Answer, LoadedModel, RosLog, Served
from ssada_core.replay.recording import DriveFrame
from ssada_core.replay.settings import ReplaySettings
from ssada_core.store.files import make_directory, write_atomic
from ssada_core.store.pool import FramePool
from ssada_core.store.registry import ModelRegistry


@dataclass
class Spool:
    """Masks of a drive as PNG files in a folder, with what each of them took."""

    folder: Path
    seconds: dict[tuple[str, int], float] = field(default_factory=dict)

    def put(self, served: Iterable[Served]) -> None:
        """Keep masks."""
        make_directory(self.folder)
        for one in served:
            write_atomic(self._path(one.frame), encode_png(one.answers[-1].label))
            self.seconds[(one.frame.camera, one.frame.stamp_ns)] = one.answers[-1].seconds

    def take(self, frame: DriveFrame, version: str) -> Answer | None:
        """The mask of a frame, once; None where it was dropped."""
        seconds = self.seconds.get((frame.camera, frame.stamp_ns))
        if seconds is None:
            return None
        path = self._path(frame)
        label = decode_label(path.read_bytes())
        path.unlink()
        return Answer(version, label, None, None, seconds)

    def _path(self, frame: DriveFrame) -> Path:
        return self.folder / f"{frame.camera}-{frame.stamp_ns}.png"


class JudgingDriver:
    """See :class:`~ssada_core.replay.driver.Driver` and :class:`~ssada_core.replay.adapted.Adapted`."""

    def __init__(
        self,
        root: Path,
        settings: ReplaySettings,
        label_space: LabelSpace,
        spool: Spool,
        seen: RosLog,
        log: Callable[[str], None],
    ) -> None:
        """Open what the nodes left in ``root``.

        Raises:
            SsadaError: if it cannot be opened.
        """
        self.series: Sequence[str] = SERIES
        self.root = root
        self.until_ns: int | None = None
        self._settings, self._log = settings, log
        self._spool, self._seen = spool, seen
        self._registry = ModelRegistry(root / "registry")
        self.first_version = self._registry.versions()[0]
        self.swaps = [Swap(version, time_s, reason) for version, time_s, reason in seen.promotions]
        self.rounds = [PlayedRound(*one) for one in seen.rounds]
        self.pool = FramePool(root / "pool", settings.adaptation.pool, label_space=label_space)
        asked = {record.query_id: record for record in self.pool.frames() if record.query_id}
        self.asked = [
            AskedFrame(asked[query_id], second, seen.results.get(query_id))
            for query_id, second in seen.queries.items()
            if query_id in asked
        ]
        self._first = self._last = self._load(self.first_version)
        self.end_s = 0.0

    def serve(self, frame: DriveFrame) -> Iterable[Served]:
        """See :class:`~ssada_core.replay.driver.Driver`."""
        self.end_s = max(self.end_s, frame.second)
        version = self._seen.version_at(frame.camera, frame.stamp_ns, self.first_version)
        answer = self._spool.take(frame, version)
        return [] if answer is None else [Served(frame, (self._first.answer(frame.image), answer))]

    def finish(self) -> Iterable[Served]:
        """See :class:`~ssada_core.replay.driver.Driver`."""
        return []

    def load_pair(self) -> tuple[LoadedModel, LoadedModel]:
        """See :class:`~ssada_core.replay.adapted.Adapted`."""
        version = self.swaps[-1].version if self.swaps else self.first_version
        if self._last.version != version:
            self._last = self._load(version)
        return self._first, self._last

    def close(self) -> None:
        """See :class:`~ssada_core.replay.driver.Driver`."""
        for model in {id(model): model for model in (self._first, self._last)}.values():
            model.engine.close()
        self.pool.close()

    def _load(self, version: str) -> LoadedModel:
        folder = self._registry.path(version)
        return LoadedModel(version, load_engine(folder, self._settings.engine, log=self._log))
