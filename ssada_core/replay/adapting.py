"""A drive with adaptation: every frame is answered by the model in use, and by the first one once they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import Samples
from ssada_core.data.source_pack import create_pack
from ssada_core.errors import ConfigError
from ssada_core.inference.deployment import enter_model
from ssada_core.inference.load import load_engine
from ssada_core.labels import LabelSpace
from ssada_core.replay.adapted import SERIES, Answers, AskedFrame, PlayedRound, Swap
from ssada_core.replay.driver import LoadedModel, Served
from ssada_core.replay.models import ReplayModel
from ssada_core.replay.recorded_adapter import RecordedAdapter
from ssada_core.replay.recording import DriveFrame
from ssada_core.replay.settings import ReplaySettings
from ssada_core.store.files import make_directory
from ssada_core.store.pool import FramePool
from ssada_core.store.registry import ModelRegistry

QUIET_S = 2.0
"""Seconds of the drive without an event after which nothing more is expected; rests after a round are added."""


class AdaptingDriver:
    """See :class:`~ssada_core.replay.driver.Driver` and :class:`~ssada_core.replay.adapted.Adapted`.

    Attributes:
        recorded: the adapter in recorded time.
        until_ns: where the adaptation stops; None is the end of the drive.
    """

    def __init__(
        self,
        root: Path,
        settings: ReplaySettings,
        label_space: LabelSpace,
        until_ns: int | None,
        log: Callable[[str], None],
    ) -> None:
        """Open the adapter in ``root``, as :func:`prepare` left it.

        Raises:
            SsadaError: if it cannot be opened.
        """
        self.series: Sequence[str] = SERIES
        self.root = root
        self.until_ns = until_ns
        self._settings = settings
        self._log = log
        self._now_s = 0.0
        self._stopped = False
        self._quiet_s = QUIET_S + settings.adaptation.cycle.cooldown_s
        self._answers = Answers(root / "truth", settings, label_space)
        with ExitStack() as undo:
            adaptation = adaptation_settings(root, settings)
            self.recorded = RecordedAdapter(adaptation, settings.round_seconds, self._answers.answer, log)
            undo.callback(self.recorded.close)
            self.first_version = self.recorded.version
            self._first = self._load(self.first_version)
            undo.pop_all()
        self._current = self._first

    def serve(self, frame: DriveFrame) -> Iterable[Served]:
        """See :class:`~ssada_core.replay.driver.Driver`."""
        self._now_s = max(self._now_s, frame.second)
        if not self._stopped and self.until_ns is not None and frame.stamp_ns >= self.until_ns:
            self._stopped = True
            self.recorded.settle(self._now_s, self._quiet_s)
        self.recorded.conclude(self._now_s)
        served = self._served(frame)
        if not self._stopped:
            self._learn(frame)
        return [served]

    def finish(self) -> Iterable[Served]:
        """See :class:`~ssada_core.replay.driver.Driver`."""
        if not self._stopped:
            self.recorded.finish(self._now_s, self._quiet_s)
        elif self.recorded.rounds:
            self.recorded.conclude(float("inf"))
        return []

    @property
    def pool(self) -> FramePool:
        """See :class:`~ssada_core.replay.adapted.Adapted`; the others likewise."""
        return self.recorded.adapter.pool

    @property
    def asked(self) -> Sequence[AskedFrame]:  # noqa: D102
        return self.recorded.asked

    @property
    def rounds(self) -> Sequence[PlayedRound]:  # noqa: D102
        return self.recorded.rounds

    @property
    def swaps(self) -> Sequence[Swap]:  # noqa: D102
        return self.recorded.swaps

    @property
    def end_s(self) -> float:
        """Seconds of the drive's last frame."""
        return self._now_s

    def load_pair(self) -> tuple[LoadedModel, LoadedModel]:
        """The first model and the one in use now."""
        return self._first, self._in_use()

    def close(self) -> None:
        """See :class:`~ssada_core.replay.driver.Driver`."""
        for model in {id(model): model for model in (self._first, self._current)}.values():
            model.engine.close()
        self.recorded.close()

    def _served(self, frame: DriveFrame) -> Served:
        current = self._in_use()
        answer = current.answer(frame.image)
        before = answer if current is self._first else self._first.answer(frame.image)
        return Served(frame, (before, answer))

    def _in_use(self) -> LoadedModel:
        if self._current.version != self.recorded.version:
            if self._current is not self._first:
                self._current.engine.close()
            again = self.recorded.version == self._first.version  # after a rollback
            self._current = self._first if again else self._load(self.recorded.version)
        return self._current

    def _learn(self, frame: DriveFrame) -> None:
        record = self.recorded.offer(frame.image, jpeg=frame.jpeg, camera=frame.camera, stamp_ns=frame.stamp_ns)
        if record is not None:
            self._answers.keep(record.camera, record.stamp_ns, frame.label)
        self.recorded.step(self._now_s)

    def _load(self, version: str) -> LoadedModel:
        folder = self.recorded.adapter.registry.path(version)
        return LoadedModel(version, load_engine(folder, self._settings.engine, log=self._log))


def prepare(
    root: Path,
    model: ReplayModel,
    settings: ReplaySettings,
    frames: Samples,
    source_data: str,
    log: Callable[[str], None],
) -> None:
    """Make the vehicle's folder: a registry with the model, and the source pack.

    Raises:
        DataError: if the source data cannot be read.
        ModelError: if the model cannot be read or deployed.
    """
    make_directory(root)
    if source_data:
        log(f"packing {settings.source_frames} source frames from {source_data}")
        samples = open_samples(source_data, model.label_space)
        pack = root / "source_pack.zip"
        create_pack(samples, model.label_space, pack, frames=settings.source_frames, seed=settings.seed)
    log(f"deploying {model.reference}")
    enter_model(ModelRegistry(root / "registry"), model.folder, settings.engine, frames)


def adaptation_settings(root: Path, settings: ReplaySettings, *, live: bool = False) -> AdaptationSettings:
    """The adaptation's settings for a vehicle in ``root``; ``live``: it trains beside the masks."""
    given = settings.adaptation
    pack = root / "source_pack.zip"
    form = {"backend": settings.engine.backend, "precision": settings.engine.precision}
    return given.model_copy(
        update={
            "registry_dir": str(root / "registry"),
            "pool_dir": str(root / "pool"),
            "rounds_dir": str(root / "rounds"),
            "source_pack": str(pack) if pack.exists() else "",
            "queries_dir": "",
            "labels_dir": "",
            "seed": settings.seed,
            "low_priority": given.low_priority and live,  # else nothing waits meanwhile
            "training": given.training.model_copy(update={"seed": settings.seed}),
            "engine": given.engine.model_copy(update=form),
        }
    )


def until_stamp(text: str, first_ns: int, last_ns: int) -> int | None:
    """A stamp in nanoseconds from a share of the drive (``0.5``) or a stamp; None for the end.

    Raises:
        ConfigError: if it is neither.
    """
    if not text:
        return None
    if text.isdecimal() and int(text) > 1:
        return int(text)
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"--adapt-until '{text}' is neither a share of the drive, such as 0.5, nor a stamp in ns")
    return first_ns + round(share * (last_ns - first_ns))
