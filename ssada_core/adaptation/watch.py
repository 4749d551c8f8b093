"""The watch after a promotion: the new model beside the one before it, until it has proved itself on the road."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from ssada_core.adaptation.expectations import Expectations
from ssada_core.adaptation.pair_watch import Alarm, EveryNth, PairWatch, Seen
from ssada_core.errors import StoreError
from ssada_core.labels import LabelSpace
from ssada_core.settings import Settings
from ssada_core.store.files import read_json, write_json

WATCH_FILE = "watch.json"


class WatchSettings(Settings):
    """How long a promoted model is watched, and what an alarm does."""

    frames: int = Field(
        120,
        ge=0,
        le=100_000,
        description="Live frames on which a promoted model is compared, in whole windows of one camera on one road; "
        "0 is no watch.",
    )
    every: int = Field(
        2, ge=1, le=1000, description="Each n-th stored frame of a camera also goes through the model before."
    )
    window: int = Field(12, ge=4, le=1000, description="Compared frames that are judged together.")
    false_alarm_rate: float = Field(0.01, gt=0, lt=0.5, description="Probability of a false alarm in a whole watch.")
    ask: int = Field(4, ge=0, le=100, description="Frames of an alarm that a human is asked to label at once.")
    cooldown_s: float = Field(600.0, ge=0, description="Seconds after an alarm without a round that nobody asks for.")


class Watch:
    """A promoted version under watch; how far it got survives a restart."""

    def __init__(
        self,
        folder: Path,
        version: str,
        before: str,
        expectations: Expectations | None,
        label_space: LabelSpace,
        settings: WatchSettings,
        *,
        seen: int = 0,
    ) -> None:
        self._path = folder / WATCH_FILE
        self._settings = settings
        self._pair = PairWatch(
            expectations,
            label_space,
            window=settings.window,
            frames=settings.frames,
            rate=settings.false_alarm_rate,
        )
        self._turns = EveryNth(settings.every)
        self.version, self.before, self.seen = version, before, seen

    @classmethod
    def resumed(
        cls, folder: Path, version: str, expectations: Expectations | None, space: LabelSpace, settings: WatchSettings
    ) -> Watch | None:
        """The watch over ``version`` that an earlier process began; None if there is none.

        Raises:
            StoreError: if its file cannot be read, or is something else.
        """
        values = stored(folder)
        if values.get("version") != version or values["seen"] >= settings.frames:
            return None
        return cls(folder, version, values["before"], expectations, space, settings, seen=values["seen"])

    @property
    def over(self) -> bool:
        """Whether the version has proved itself."""
        return self.seen >= self._settings.frames

    def due(self, camera: str) -> bool:
        """Whether the next stored frame of a camera should go through the model before, too."""
        return self._turns.due(camera)

    def observe(self, seen: Seen) -> Alarm | None:
        """Take a compared frame; only those of judged windows count as seen.

        Raises:
            StoreError: if the disk refuses.
        """
        before = self._pair.judged
        alarm = self._pair.observe(seen)
        self.seen += self._pair.judged - before
        if alarm is None and self._pair.judged > before:
            self.keep()
        return alarm

    def end(self) -> None:
        """Nothing is to be watched any more.

        Raises:
            StoreError: if the disk refuses.
        """
        self.seen = max(self.seen, self._settings.frames)
        self.keep()

    def status(self) -> dict[str, Any]:
        """Plain figures."""
        return {"version": self.version, "before": self.before, "seen": self.seen, "frames": self._settings.frames}

    def keep(self) -> None:
        """Write down how far it got.

        Raises:
            StoreError: if the disk refuses.
        """
        write_json(self._path, {"version": self.version, "before": self.before, "seen": self.seen})


def stored(folder: Path) -> dict[str, Any]:
    """What :class:`Watch` left in a folder; empty before the first.

    Raises:
        StoreError: if it cannot be read, or is something else.
    """
    path = folder / WATCH_FILE
    values = read_json(path) if path.exists() else {}
    kinds = {"version": str, "before": str, "seen": int}
    whole = isinstance(values, dict) and all(isinstance(values.get(name), kind) for name, kind in kinds.items())
    if not whole and values != {}:
        raise StoreError(f"{path} is no stored watch: delete it, and nothing is watched")
    return values
