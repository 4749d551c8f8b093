"""Follows the vehicle's road: what it is called, whether the model in use was made for it, and when it changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssada_core.adaptation.components import MIN_FRAMES, Component, Reference, Vectors, describe
from ssada_core.adaptation.domains import DOMAINS_FILE, SOURCE, DomainBook, picture
from ssada_core.adaptation.drift import DriftTracker, Frame
from ssada_core.adaptation.roads import REFERENCE_FILE
from ssada_core.adaptation.scorer import Live, PoolScorer
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import Samples, spread
from ssada_core.errors import DataError, ModelError
from ssada_core.store.files import make_directory
from ssada_core.store.pool import FramePool
from ssada_core.store.registry import ModelRegistry

REFERENCES = "references"
"""Folder beside the rounds, of versions that came without a description of their roads."""
PACK_FRAMES = 64
"""Frames of the source pack that describe it."""
_LATE_NS = 60_000_000_000
"""A frame at most this much older than the newest came late; an older one is from a clock that was set back."""
_PICTURES = 20
"""Pictures of a road that are entered in the book at once."""


@dataclass(frozen=True)
class _Past:
    """A frame that was followed."""

    stamp_ns: int
    frame_id: int | None
    picture: Vectors


class RoadFollower:
    """Follows one camera with the model in use; the names of the roads outlive models and restarts."""

    def __init__(
        self,
        pool: FramePool,
        registry: ModelRegistry,
        scorer: PoolScorer,
        settings: AdaptationSettings,
        log: Callable[[str], None],
    ) -> None:
        """Open the book of roads.

        Raises:
            StoreError: if it cannot be read.
            ConfigError: if it is something else.
        """
        self._pool, self._registry, self._scorer = pool, registry, scorer
        self._settings, self._log = settings, log
        self._folder = Path(settings.rounds_dir)
        self._book = DomainBook(self._folder / DOMAINS_FILE)
        self._tracker: DriftTracker | None = None
        self._version = ""
        self._camera = settings.drift.camera
        self._past: deque[_Past] = deque(maxlen=4 * settings.drift.window + _PICTURES)
        self._unnamed: int | None = None
        self._pictures: list[Vectors] = []
        self._pack: Samples | None = None
        self._vectors: list[Vectors] = []
        self.domain = ""
        """Name of the road now; empty until it is known."""
        self.entered = 0
        """How often the road has changed; who wants to know compares."""

    @property
    def drifted(self) -> bool:
        """Whether the model in use was not made for the road."""
        return self._tracker is not None and self._tracker.drifted

    def use(self, version: str) -> None:
        """Follow with another version; where the vehicle is stays known.

        Without a source pack that can be read, the road at the start is what the version was made for.
        """
        if not self._settings.drift.enabled or version == self._version:
            return
        self._version, self._tracker, self._vectors, self._pack = version, None, [], None
        reference = self._known(version)
        if reference is not None:
            self._track(reference)
        elif self._settings.source_pack:
            try:
                samples = open_samples(self._settings.source_pack, self._pool.label_space)
            except DataError as error:
                self._log(f"the drift score goes by the road at the start: {error}")
            else:
                self._pack = spread(samples, PACK_FRAMES)

    def step(self) -> bool:
        """Describe the source pack with a new version, one frame at a time; whether there is more to do.

        Raises:
            DataError: if a frame cannot be read; from then on the road at the start is described instead.
            EngineError: if the model fails.
        """
        if self._pack is None:
            return False
        try:
            image = self._pack.image(len(self._vectors))
        except DataError:
            self._pack, self._vectors, self._pictures = None, [], []
            raise
        self._vectors.append(describe(self._scorer.predict(image)))
        if SOURCE not in self._book.names() or self._pictures:
            self._pictures.append(picture(image))
        if len(self._vectors) == len(self._pack):
            if self._pictures:
                self._book.add(SOURCE, self._pictures)
            self._finish(SOURCE)
        return True

    def observe(self, live: Live) -> None:
        """Take a live frame of the followed camera.

        Raises:
            StoreError: if the disk refuses.
        """
        self._camera = self._camera or live.camera
        if not self._settings.drift.enabled or live.camera != self._camera:
            return
        newest = self._past[-1].stamp_ns if self._past else live.stamp_ns
        if 0 < newest - live.stamp_ns < _LATE_NS:
            return
        past = _Past(live.stamp_ns, live.frame_id, picture(live.image))
        self._past.append(past)
        if self._unnamed is None and not self.domain:
            self._unnamed = live.frame_id
        if self._tracker is None:
            self._calibrate(live)
            return
        self._remember(past)
        change = self._tracker.observe(Frame(describe(live.prediction), live.stamp_ns))
        if change is not None:
            self._enter(change.domain, change.since_ns, change.score)

    def status(self) -> dict[str, Any]:
        """Plain figures; the score is 1 at the bound."""
        score = self._tracker.score if self._tracker is not None else 0.0
        known = self._tracker is not None
        return {"domain": self.domain, "score": round(score, 3), "drifted": self.drifted, "calibrated": known}

    # -- what a version was made for -------------------------------------------------------------

    def _known(self, version: str) -> Reference | None:
        for path in (self._registry.path(version) / REFERENCE_FILE, self._folder / REFERENCES / f"{version}.npz"):
            if path.exists():
                try:
                    found = Reference.load(path)
                except ModelError as error:
                    self._log(str(error))
                    continue
                if found.components:
                    return found
        return None

    def _calibrate(self, live: Live) -> None:
        """Without a source pack, the frames at the start are what the model was made for."""
        if self._pack is not None:
            return
        self._vectors.append(describe(live.prediction))
        if len(self._vectors) >= max(self._settings.drift.calibration_frames, MIN_FRAMES):
            name = self.domain or self._book.recognise([past.picture for past in self._past]) or self._book.new_name()
            self._finish(name)

    def _finish(self, name: str) -> None:
        reference = Reference({name: Component.fit(np.stack(self._vectors))})
        make_directory(self._folder / REFERENCES)
        reference.save(self._folder / REFERENCES / f"{self._version}.npz")
        self._log(f"{self._version} was made for roads like '{name}': described by {len(self._vectors)} frames")
        self._pack, self._vectors, self._pictures = None, [], []
        self._track(reference)

    def _track(self, reference: Reference) -> None:
        self._tracker = DriftTracker(reference.components, self._settings.drift, domain=self.domain)

    # -- where the vehicle is ----------------------------------------------------------------------

    def _enter(self, domain: str, since_ns: int, score: float) -> None:
        """Give the road its name, and its frames to it."""
        before = self.domain
        seen = [past for past in self._past if past.stamp_ns >= since_ns]
        if not domain:
            pictures = [past.picture for past in seen]
            domain = self._book.recognise(pictures, but=before) or self._book.new_name()
            if self._tracker is not None:
                self._tracker.name(domain)
        self.domain, self._pictures = domain, []
        self.entered += 1
        self._book.add(domain, [past.picture for past in seen])
        ids = [past.frame_id for past in seen if past.frame_id is not None]
        if not before and self._unnamed is not None:
            ids.append(self._unnamed)
        if ids:
            self._pool.name_domain(domain, since_id=min(ids))
        self._log(
            f"the road is '{domain}' now, it was '{before}': drift score {score:.2f} (1 is the bound)"
            if before
            else f"the road is '{domain}'"
        )

    def _remember(self, past: _Past) -> None:
        if not self.domain:
            return
        self._pictures.append(past.picture)
        if len(self._pictures) >= _PICTURES:
            self._book.add(self.domain, self._pictures[::2])
            self._pictures = []
