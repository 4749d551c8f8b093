"""The model that drives along: the one before a promoted version (the watch), or a challenger (the shadow drive)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssada_core.adaptation.bystander import Bystander
from ssada_core.adaptation.expectations import Expectations, compare
from ssada_core.adaptation.pair_watch import Alarm, Seen
from ssada_core.adaptation.scorer import Live
from ssada_core.adaptation.shadow import Shadow, ShadowSettings
from ssada_core.adaptation.watch import Watch, WatchSettings, stored
from ssada_core.errors import SsadaError
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.load import load_engine
from ssada_core.labels import LabelSpace
from ssada_core.store.registry import ModelRegistry


class Companions:
    """At most one watch and one shadow drive, each with an engine of its own that answers sampled frames.

    Nothing here raises: a watch that fails ends, and is said to; a shadow drive that fails refuses its challenger.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        label_space: LabelSpace,
        folder: Path,
        *,
        engine: EngineSettings,
        watch: WatchSettings,
        shadow: ShadowSettings,
        log: Callable[[str], None],
    ) -> None:
        self._registry, self._space, self._folder = registry, label_space, folder
        self._engine_settings, self._watch_settings, self._shadow_settings = engine, watch, shadow
        self._log = log
        self._engines: dict[str, Engine] = {}
        self.watch: Watch | None = None
        self.shadow: Shadow | None = None
        self.alarm: Alarm | None = None
        """Of the watch; whoever acts on it ends the watch."""
        self.shadow_alarm: Alarm | None = None
        self.watch_guard = Bystander("watch", log)
        self.shadow_guard = Bystander("shadow drive", log)

    def begin_watch(self, version: str, before: str, expectations: Expectations | None) -> None:
        """Watch a promoted version; a shadow drive ends here, its challenger was compared with another champion."""
        self.end_shadow()
        self.end_watch()
        self.watch_guard.switch_on()
        self.watch_guard.attempt(lambda: self._begin_watch(version, before, expectations), None)

    def _begin_watch(self, version: str, before: str, expectations: Expectations | None) -> None:
        if self._watch_settings.frames and self._load("watch", before):
            settings = self._watch_settings
            self.watch = Watch(self._folder, version, before, expectations, self._space, settings)
            unmeasured = "" if expectations is not None else ", without figures of the gate to compare with"
            self._log(f"watching {version} beside {before} on {settings.frames} frames{unmeasured}")
            self.watch.keep()

    def resume_watch(self, version: str, expectations: Expectations | None) -> bool:
        """Go on with the watch of an earlier process; whether it had begun one over this version."""
        return self.watch_guard.attempt(lambda: self._resume_watch(version, expectations), False)

    def _resume_watch(self, version: str, expectations: Expectations | None) -> bool:
        watch = Watch.resumed(self._folder, version, expectations, self._space, self._watch_settings)
        if watch is not None and self._load("watch", watch.before):
            self.watch = watch
        return stored(self._folder).get("version") == version

    def end_watch(self) -> None:
        """Stop watching."""
        watch, self.watch, self.alarm = self.watch, None, None
        self._free("watch")
        if watch is not None:
            self.watch_guard.attempt(watch.end, None)

    def begin_shadow(self, version: str, champion: str, expectations: Expectations | None) -> None:
        """Let a challenger answer along."""
        self.end_shadow()
        self.shadow_guard.switch_on()
        self.shadow_guard.attempt(lambda: self._begin_shadow(version, champion, expectations), None)
        if self.shadow is None:
            self.shadow_alarm = Alarm(f"{version} cannot be run", ())

    def _begin_shadow(self, version: str, champion: str, expectations: Expectations | None) -> None:
        if self._load("shadow", version):
            self.shadow = Shadow(version, champion, expectations, self._space, self._shadow_settings)
            self._log(f"{version} answers along with {champion}: shadow drive")

    def end_shadow(self) -> None:
        """Stop the shadow drive."""
        self.shadow, self.shadow_alarm = None, None
        self._free("shadow")

    def observe(self, live: Live, domain: str) -> None:
        """Take a live frame."""
        watch, shadow = self.watch, self.shadow
        if watch is not None and self.alarm is None and watch.due(live.camera):
            self.watch_guard.attempt(lambda: self._watch_one(watch, live, domain), None)
            if self.watch_guard.off:
                self.end_watch()
        if shadow is not None and self.shadow_alarm is None and shadow.due(live.camera):
            self.shadow_guard.attempt(lambda: self._shadow_one(shadow, live, domain), None)
            if self.shadow_guard.off:
                self.shadow_alarm = Alarm(self.shadow_guard.trouble, ())

    def _watch_one(self, watch: Watch, live: Live, domain: str) -> None:
        before = self._engines["watch"].infer([live.image])[0]
        sight = compare(live.prediction, before, self._space.num_classes)
        self.alarm = watch.observe(Seen(sight, live.stamp_ns, domain, live.frame_id, live.camera))
        if self.alarm is None and watch.over:
            self._log(f"{watch.version} has proved itself on {watch.seen} frames: its watch is over")
            self.end_watch()

    def _shadow_one(self, shadow: Shadow, live: Live, domain: str) -> None:
        answer = self._engines["shadow"].infer([live.image])[0]
        sight = compare(answer, live.prediction, self._space.num_classes)
        self.shadow_alarm = shadow.observe(Seen(sight, live.stamp_ns, domain, live.frame_id, live.camera))

    def status(self) -> dict[str, Any]:
        """Plain figures of both; None where there is none."""
        shadow = self.shadow
        return {
            "watch": self.watch.status() if self.watch is not None else None,
            "shadow": {"version": shadow.version, **shadow.exposure.to_dict()} if shadow is not None else None,
        }

    def close(self) -> None:
        """Free the engines; a watch can be resumed."""
        for role in list(self._engines):
            self._free(role)
        self.watch = self.shadow = None

    def _load(self, role: str, version: str) -> bool:
        self._free(role)
        try:
            self._engines[role] = load_engine(self._registry.path(version), self._engine_settings)
        except SsadaError as error:  # the version in use goes on without a companion
            self._log(f"{version} cannot drive along ({role}): {error}")
        return role in self._engines

    def _free(self, role: str) -> None:
        engine = self._engines.pop(role, None)
        if engine is not None:
            engine.close()
