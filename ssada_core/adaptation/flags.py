"""A driver's flag: the seconds around it are kept, asked for first, and judge every later model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from ssada_core.data.encodings import encode_jpeg
from ssada_core.data.samples import Array
from ssada_core.errors import StoreError
from ssada_core.settings import Settings
from ssada_core.store.pool import Choice, Clip, FramePool, FrameRecord

_SECOND = 1_000_000_000
_MOST_FRAMES = 400
"""Frames that are held in memory at most, all cameras together."""


class FlagSettings(Settings):
    """What is kept around a flag, and what of it is asked."""

    before_s: float = Field(6.0, ge=0, le=120, description="Seconds before a flag that are kept.")
    after_s: float = Field(3.0, ge=0, le=120, description="Seconds after it.")
    reaction_s: float = Field(
        1.0, ge=0, le=30, description="Seconds that a driver takes to press the button: what went wrong is older."
    )
    train: int = Field(
        1, ge=0, le=20, description="Frames of a clip to train on, beside the flagged one, which only judges."
    )
    apart_s: float = Field(1.5, ge=0, le=60, description="Least seconds between the frames of a clip that are asked.")


@dataclass(frozen=True)
class _Held:
    jpeg: bytes
    camera: str
    stamp_ns: int
    domain: str


class ClipRecorder:
    """Holds the last seconds of every camera in memory, as JPEG, until a flag asks for them."""

    def __init__(self, pool: FramePool, settings: FlagSettings) -> None:
        self._pool = pool
        self._settings = settings
        self._held: deque[_Held] = deque(maxlen=_MOST_FRAMES)
        self._open: list[Clip] = []

    def add(
        self, image: Array | None, *, jpeg: bytes | None, camera: str, stamp_ns: int, domain: str
    ) -> list[FrameRecord]:
        """Hold a frame; the ones that were stored with it, because a clip is open.

        Raises:
            DataError: if it is no image.
            StoreError: if the pool cannot be written.
        """
        data = jpeg if jpeg is not None or image is None else encode_jpeg(image, self._pool.settings.jpeg_quality)
        if data is None:
            return []
        held = _Held(data, camera, stamp_ns, domain)
        if self._held and stamp_ns < self._held[-1].stamp_ns - self._span:
            self._held.clear()  # a clock that was set back, or a recording that starts again
            self._open = []
        self._held.append(held)
        while self._held and self._held[0].stamp_ns < stamp_ns - self._span:
            self._held.popleft()
        after = round(self._settings.after_s * _SECOND)
        self._open = [clip for clip in self._open if stamp_ns <= clip.stamp_ns + after]
        return [record for clip in self._open for record in self._keep(clip, held)]

    def flag(self, stamp_ns: int | None = None) -> tuple[Clip, list[FrameRecord]]:
        """Something went wrong at ``stamp_ns``, or just now; what was kept of the seconds before.

        Raises:
            StoreError: if no frame has come yet, or the pool cannot be written.
        """
        if not self._held:
            raise StoreError("nothing was seen yet that could be flagged: wait for the first frame of a camera")
        clip = self._pool.flag(self._held[-1].stamp_ns if stamp_ns is None else stamp_ns)
        self._open.append(clip)
        first = clip.stamp_ns - round(self._settings.before_s * _SECOND)
        return clip, [record for held in self._held if held.stamp_ns >= first for record in self._keep(clip, held)]

    def _keep(self, clip: Clip, held: _Held) -> list[FrameRecord]:
        kept = self._pool.keep(
            clip.id, None, jpeg=held.jpeg, camera=held.camera, stamp_ns=held.stamp_ns, domain=held.domain
        )
        return [kept.record] if kept.record is not None else []

    @property
    def _span(self) -> int:
        return round(max(self._settings.before_s, 1.0) * _SECOND)


def choose_flagged(pool: FramePool, settings: FlagSettings) -> list[Choice]:
    """What to ask about clips that nobody was asked about: the flagged frame to judge by, others to train on."""
    kept = pool.frames(states=["buffered"], flagged=True)
    choices = []
    for clip in pool.unasked_clips():
        wrong_ns = clip.stamp_ns - round(settings.reaction_s * _SECOND)
        records = [record for record in kept if record.clip == clip.id]
        for camera in sorted({record.camera for record in records}):
            frames = [record for record in records if record.camera == camera]
            choices += list(_choose(frames, clip.id, wrong_ns, settings))
    return choices


def _choose(frames: list[FrameRecord], clip: int, stamp_ns: int, settings: FlagSettings) -> Iterator[Choice]:
    near = sorted(frames, key=lambda record: (abs(record.stamp_ns - stamp_ns), record.id))
    apart = round(settings.apart_s * _SECOND)
    taken: list[FrameRecord] = []
    for record in near:
        if len(taken) > settings.train:
            break
        if all(abs(record.stamp_ns - other.stamp_ns) >= apart for other in taken):
            reason = f"flag {clip}: a second frame to learn it by" if taken else f"flag {clip}: it went wrong here"
            yield Choice(record.id, 1.0, audit=not taken, reason=reason)
            taken.append(record)
