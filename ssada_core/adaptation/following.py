"""Follows the vehicle's road: what it is called, whether the model in use was made for it, and when it changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssada_core.adaptation.bystander import Bystander
from ssada_core.adaptation.components import MIN_FRAMES, Component, Reference, Vectors, describe
from ssada_core.adaptation.domains import DOMAINS_FILE, SOURCE, DomainBook, picture
from ssada_core.adaptation.drift import DriftTracker, Frame
from ssada_core.adaptation.roads import REFERENCE_FILE
from ssada_core.adaptation.scorer import Live, PoolScorer
from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import Samples, spread
from ssada_core.errors import DataError, ModelError, StoreError
from ssada_core.store.files import make_directory
from ssada_core.store.manifest import WEIGHTS_FILE
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
    """Follows one camera with the model in use; the names of the roads outlive models and restarts.

    Attributes:
        guard: keeps its errors from everybody else.
        domain: name of the road now; empty until it is known.
        entered: how often the road has changed; who wants to know compares.
    """

    def __init__(
        self,
        pool: FramePool,
        registry: ModelRegistry,
        scorer: PoolScorer,
        settings: AdaptationSettings,
        log: Callable[[str], None],
    ) -> None:
        """Open the book of roads; one that cannot be read is left as it is, and nothing is followed."""
        self._pool, self._registry, self._scorer = pool, registry, scorer
        self._settings, self._log = settings, log
        self._folder = Path(settings.rounds_dir)
        self.guard = Bystander("drift score", log)
        self._book = self._open_book()
        self._tracker: DriftTracker | None = None
        self._version = ""
        self._camera = settings.drift.camera
        self._past: deque[_Past] = deque(maxlen=4 * settings.drift.window + _PICTURES)
        self._unnamed: int | None = None
        self._pictures: list[Vectors] = []
        self._pack: Samples | None = None
        self._vectors: list[Vectors] = []
        self.domain, self.entered = "", 0

    def _open_book(self) -> DomainBook | None:
        try:
            return DomainBook(self._folder / DOMAINS_FILE)
        except StoreError as error:
            # Met anew, the roads would get names that frames of other roads in the pool have already.
            self.guard.switch_off(str(error))
            return None

    @property
    def drifted(self) -> bool:
        """Whether the model in use was not made for the road; False while nobody can say."""
        return not self.guard.off and self._tracker is not None and self._tracker.drifted

    def use(self, version: str) -> None:
        """Follow with another version; where the vehicle is stays known.

        Without a source pack that can be read, the road at the start is what the version was made for.
        """
        if not self._settings.drift.enabled or self._book is None or version == self._version:
            return
        self.guard.switch_on()
        self._version, self._tracker = version, None
        self._forget()
        self.guard.attempt(self._begin, None)

    def step(self) -> bool:
        """Describe the source pack with a new version, one frame at a time; whether there is more to do."""
        return self.guard.attempt(self._describe_pack, False)

    def observe(self, live: Live) -> None:
        """Take a live frame of the followed camera."""
        if self._settings.drift.enabled and self._book is not None:
            self.guard.attempt(lambda: self._follow(live), None)

    def _follow(self, live: Live) -> None:
        self._camera = self._camera or live.camera
        if live.camera != self._camera:
            return
        newest = self._past[-1].stamp_ns if self._past else live.stamp_ns
        if 0 < newest - live.stamp_ns < _LATE_NS:
            return
        if live.stamp_ns < newest:
            self._past.clear()  # a clock that was set back: what is from its future says nothing about now
        past = _Past(live.stamp_ns, live.frame_id, picture(live.image))
        self._past.append(past)
        if self._unnamed is None and not self.domain:
            self._unnamed = live.frame_id
        vector = describe(live.prediction)
        if self._tracker is None or self._tracker.dimensions != len(vector):
            self._calibrate(vector)
            return
        self._remember(past)
        change = self._tracker.observe(Frame(vector, live.stamp_ns))
        if change is not None:
            self._enter(change.domain, change.since_ns, change.score)

    def status(self) -> dict[str, Any]:
        """Plain figures; the score is 1 at the bound."""
        score = self._tracker.score if self._tracker is not None else 0.0
        known = self._tracker is not None
        return {"domain": self.domain, "score": round(score, 3), "drifted": self.drifted, "calibrated": known}

    # -- what a version was made for -------------------------------------------------------------

    def _known(self, version: str) -> Reference | None:
        for path in (self._registry.path(version) / REFERENCE_FILE, self._own_file(version)):
            if path.exists():
                try:
                    found = Reference.load(path).components
                except ModelError as error:
                    self._log(str(error))
                    continue
                # An earlier release described frames without a road, too: as a road, they would be left for ever.
                roads = {name: component for name, component in found.items() if name}
                if roads:
                    return Reference(roads)
        return None

    def _own_file(self, version: str) -> Path:
        """Named after the weights: in another registry the same version is another model."""
        weights = self._registry.manifest(version).files.get(WEIGHTS_FILE, "")
        return self._folder / REFERENCES / f"{version}-{weights[:12]}.npz"

    def _begin(self) -> None:
        reference = self._known(self._version)
        if reference is not None:
            self._track(reference)
            return
        if not self._settings.source_pack:
            return
        try:
            samples = open_samples(self._settings.source_pack, self._pool.label_space)
        except DataError as error:
            self._go_by_the_start(str(error))
            return
        if len(samples) < MIN_FRAMES:
            self._go_by_the_start(f"the source pack has {len(samples)} frames, {MIN_FRAMES} are needed")
        else:
            self._pack = spread(samples, PACK_FRAMES)

    def _go_by_the_start(self, why: str) -> None:
        self._forget()
        self._log(f"the drift score goes by the road at the start: {why}")

    def _forget(self) -> None:
        self._pack, self._vectors, self._pictures = None, [], []

    def _describe_pack(self) -> bool:
        pack, done = self._pack, len(self._vectors)
        if pack is None or self._book is None:
            return False
        if done == len(pack):
            self._finish(SOURCE)
            return True
        try:
            image = pack.image(done)
        except DataError as error:
            self._go_by_the_start(str(error))
            return False
        self._vectors.append(describe(self._scorer.predict(image)))
        if SOURCE not in self._book.names():
            self._pictures.append(picture(image))
        return True

    def _calibrate(self, vector: Vectors) -> None:
        """Without a source pack, the frames at the start are what the model was made for."""
        if self._pack is not None or self._book is None:
            return
        self._tracker = None  # of another model, if there is one
        self._vectors.append(vector)
        if len(self._vectors) >= max(self._settings.drift.calibration_frames, MIN_FRAMES):
            name = self.domain or self._book.recognise([past.picture for past in self._past]) or self._book.new_name()
            self._finish(name)

    def _finish(self, name: str) -> None:
        """Follow by what was gathered; whatever refuses it, it is gathered and not looked at again."""
        vectors, pictures, apart = self._vectors, self._pictures, self._pack is not None
        self._forget()
        reference = Reference({name: Component.fit(np.stack(vectors), apart=apart)})
        self._track(reference)
        self._log(f"{self._version} was made for roads like '{name}': described by {len(vectors)} frames")
        if pictures and self._book is not None:
            self._book.add(name, pictures)
        make_directory(self._folder / REFERENCES)
        reference.save(self._own_file(self._version))

    def _track(self, reference: Reference) -> None:
        self._tracker = DriftTracker(reference.components, self._settings.drift, domain=self.domain)

    # -- where the vehicle is ----------------------------------------------------------------------

    def _enter(self, domain: str, since_ns: int, score: float) -> None:
        """Give the road its name, and its frames to it."""
        if self._book is None:
            return
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
        if not self.domain or self._book is None:
            return
        self._pictures.append(past.picture)
        if len(self._pictures) >= _PICTURES:
            self._book.add(self.domain, self._pictures[::2])
            self._pictures = []
