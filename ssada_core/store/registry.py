"""The model registry: versions that cannot change, one of them current, and the way back.

::

    <root>/v0001/{weights.safetensors, manifest.json, deploy/<backend>-<precision>/…, decision.json}
    <root>/current          {version, previous, earlier, promoted_at}, replaced atomically
    <root>/decisions.jsonl  every promotion and rollback, oldest first

(ARCHITECTURE contract 4.) Nothing is ever unpickled. Several processes may use it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ssada_core.errors import ModelError, StoreError
from ssada_core.settings import Settings, nearest
from ssada_core.store import model_files, signature, version_folders
from ssada_core.store.files import fsync_directory, make_directory, read_json, write_json
from ssada_core.store.journal import Journal, replay, utc_now
from ssada_core.store.manifest import DECISION_FILE, ModelManifest

if TYPE_CHECKING:
    import torch

CURRENT_FILE = "current"
DECISIONS_FILE = "decisions.jsonl"

_log = logging.getLogger(__name__)


class RegistrySettings(Settings):
    """How many versions stay, and whose signature they need."""

    keep: int = Field(
        10, ge=1, description="Newest versions that stay; the current, the one before and the first always stay."
    )
    signing_key: str = Field("", description="Private key (PEM, Ed25519) that signs what is promoted; empty: none.")
    trusted_key: str = Field(
        "", description="Public key without whose signature nothing is promoted or rolled back to; empty: none."
    )


class ModelRegistry:
    """The registry in the folder ``root``."""

    def __init__(self, root: str | Path, settings: RegistrySettings | None = None) -> None:
        """Open or create.

        Raises:
            StoreError: if the folder cannot be used.
        """
        self.root = Path(root)
        self.settings = settings or RegistrySettings()
        self._journal = Journal(self.root / DECISIONS_FILE)
        self._told_damaged = False
        make_directory(self.root)

    def versions(self) -> list[str]:
        """All versions, oldest first."""
        return [
            path.name
            for path in sorted(filter(model_files.is_version, self.root.iterdir()), key=version_folders.number_of)
        ]

    def first(self) -> str | None:
        """The first model, which the gate never forgets; None while the registry is empty."""
        return next(iter(self.versions()), None)

    def current(self) -> str | None:
        """The version in use; None before the first promotion.

        Raises:
            StoreError: if the file ``current`` is damaged.
        """
        return self._current().get("version")

    def current_or_fail(self) -> str:
        """The version in use.

        Raises:
            ModelError: before the first promotion.
            StoreError: if the file ``current`` is damaged.
        """
        version = self.current()
        if version is None:
            known = ", ".join(self.versions()) or "none yet"
            raise ModelError(f"the registry {self.root} has no current model: promote a version (there are: {known})")
        return version

    def path(self, version: str) -> Path:
        """The version's folder.

        Raises:
            ModelError: if there is no such version, with the nearest.
        """
        if version not in self.versions():
            raise ModelError(f"no model version '{version}' in {self.root}{nearest(version, self.versions())}")
        return self.root / version

    def manifest(self, version: str) -> ModelManifest:
        """The version's manifest, with the decision that promoted it, if any.

        Raises:
            ModelError: if there is no such version, or its manifest is damaged.
        """
        folder = self.path(version)
        manifest = model_files.read_manifest(folder)
        if (folder / DECISION_FILE).exists():
            return manifest.model_copy(update={"decision": read_json(folder / DECISION_FILE)})
        return manifest

    def history(self) -> list[dict[str, Any]]:
        """Every promotion and rollback, oldest first: ``{action, version, previous, at, decision}``."""
        return self._journal.read()

    def verify(self, version: str) -> None:
        """Check every file against the manifest's SHA-256.

        Raises:
            ModelError: naming the first file that is missing or differs.
        """
        model_files.verify(self.path(version))

    def load_weights(self, version: str) -> dict[str, torch.Tensor]:
        """The version's weights, once their hash is right.

        Raises:
            ModelError: if there is no such version, or its weights are damaged.
        """
        return model_files.load_weights(self.path(version))

    def add(
        self,
        weights: Mapping[str, torch.Tensor],
        manifest: ModelManifest,
        deploy: Callable[[Path], None] | None = None,
    ) -> str:
        """Store a model as the next version. It appears complete or not at all.

        Args:
            weights: its state dict.
            manifest: what is known of it; ``version``, ``files`` and an empty ``created`` are filled in here.
            deploy: fills ``deploy/`` in the folder it is given, where weights and manifest already lie.

        Raises:
            StoreError: if the disk refuses. Whatever ``deploy`` raises comes through; then nothing is added.
        """

        def build(folder: Path, version: str) -> None:
            model_files.write_weights(folder, weights)
            created = manifest.created or utc_now()
            filled = manifest.model_copy(update={"version": version, "created": created, "files": {}})
            model_files.write_manifest(folder, filled)
            if deploy is not None:
                deploy(folder)
            model_files.seal(folder, filled)

        return self._build(build)

    def adopt(self, model_dir: str | Path) -> str:
        """Copy a model directory in as the next version; its own name becomes the parent's if it has none.

        Raises:
            ModelError: if it is no model directory, or a file differs from its manifest.
            StoreError: if the disk refuses.
        """
        source = Path(model_dir)
        model_files.verify(source)
        manifest = model_files.read_manifest(source)

        def build(folder: Path, version: str) -> None:
            model_files.copy_files(source, folder, manifest)
            for name in model_files.vouched(
                manifest
            ):  # what arrived is what was sent, also where the disk is not sound
                model_files.verify_file(folder, name, manifest)
            parent = manifest.parent or manifest.version
            model_files.seal(folder, manifest.model_copy(update={"version": version, "parent": parent}))

        return self._build(build)

    def _build(self, build: Callable[[Path, str], None]) -> str:
        with version_folders.reserved(self.root) as (version, folder):
            build(folder, version)
            model_files.fsync_tree(folder)
            with version_folders.locked(self.root):
                folder.rename(self.root / version)
                fsync_directory(self.root)
                self._prune()
        return version

    def _prune(self) -> None:
        versions, state = self.versions(), self._current()
        kept = {*versions[-self.settings.keep :], versions[0], state.get("version"), state.get("previous")}
        version_folders.remove(self.root, [version for version in versions if version not in kept])

    def promote(self, version: str, decision: Mapping[str, Any] | None = None) -> None:
        """Make a version the current one, after checking its files.

        Args:
            version: any kept version.
            decision: the gate's decision in figures and words, kept beside the version and in the history.

        Raises:
            ModelError: if there is no such version, a file of it is damaged, or the signature asked for is missing.
            StoreError: if the disk refuses.
        """
        with version_folders.locked(self.root):
            self._admit(version, sign=True)
            before = self._current()
            if decision is not None:
                write_json(self.path(version) / DECISION_FILE, dict(decision))
            earlier = [*before.get("earlier", []), before.get("version")]
            others = [name for name in earlier if name != version and name in self.versions()]
            self._switch("promote", version, others, decision)
            self._prune()

    def record(self, version: str, decision: Mapping[str, Any]) -> None:
        """Keep a decision that promotes nothing beside its version.

        Raises:
            ModelError: if there is no such version.
            StoreError: if the disk refuses.
        """
        with version_folders.locked(self.root):
            write_json(self.path(version) / DECISION_FILE, dict(decision))

    def rollback(self, reason: str = "") -> str:
        """Go back to the version that was current before; again, to the one before that.

        Returns:
            The version that is current now.

        Raises:
            StoreError: if there is none before, or the disk refuses.
            ModelError: if a file of it is damaged.
        """
        with version_folders.locked(self.root):
            earlier = [name for name in self._current().get("earlier", []) if name in self.versions()]
            if not earlier:
                raise StoreError(f"{self.root}: nothing to roll back to, no other version was promoted: promote one")
            version = str(earlier[-1])
            self._admit(version)
            self._switch("rollback", version, earlier[:-1], {"reason": reason} if reason else None)
        return version

    def _admit(self, version: str, *, sign: bool = False) -> None:
        """Check everything that a version must have to become the current one.

        Where this registry signs, it signs what is promoted; what was promoted before must have kept its signature.
        """
        folder = self.path(version)
        model_files.verify(folder)
        if sign and self.settings.signing_key:
            signature.sign(folder, Path(self.settings.signing_key))
        if self.settings.trusted_key:
            signature.verify_signature(folder, Path(self.settings.trusted_key))

    def fallbacks(self) -> list[str]:
        """What may run where the current version cannot: those that were promoted before, newest first, and the first.

        Never one that the gate has not let through.
        """
        try:
            state = self._current()
        except StoreError:
            state = {}
        wanted = [*reversed(state.get("earlier", [])), *self.versions()[:1]]
        return [name for name in dict.fromkeys(wanted) if name != state.get("version") and name in self.versions()]

    def ensure_sound(self) -> tuple[str, str]:
        """Go back by itself where a file of the current version is damaged.

        Returns:
            The version that is current now, and what was wrong with the one before; "" where nothing was.

        Raises:
            ModelError: if there is no current version, or none that is sound.
            StoreError: if the disk refuses.
        """
        current = self.current_or_fail()
        try:
            self.verify(current)
        except ModelError as error:
            with version_folders.locked(self.root):
                version = next(filter(self._is_sound, self.fallbacks()), None)
                if version is None:
                    raise
                earlier = [name for name in self._current()["earlier"] if name not in (version, current)]
                self._switch("rollback", version, earlier, {"reason": str(error)})
            return version, str(error)
        return current, ""

    def _is_sound(self, version: str) -> bool:
        try:
            self._admit(version)
        except ModelError:
            return False
        return True

    def _switch(self, action: str, version: str, earlier: list[str], decision: Mapping[str, Any] | None) -> None:
        now = utc_now()
        entry = {"action": action, "version": version, "previous": self.current(), "at": now}
        self._journal.append({**entry, "decision": dict(decision) if decision is not None else None})
        previous = earlier[-1] if earlier else None
        state = {"version": version, "previous": previous, "earlier": earlier, "promoted_at": now}
        write_json(self.root / CURRENT_FILE, state)

    def _current(self) -> dict[str, Any]:
        path = self.root / CURRENT_FILE
        if not path.exists():
            return {}
        try:
            state = read_json(path)
        except StoreError:
            state = None
        if isinstance(state, dict) and {"version", "earlier"} <= set(state):
            return state
        return self._from_history(path)

    def _from_history(self, path: Path) -> dict[str, Any]:
        """What ``current`` said before it was damaged: every switch was written to the history first."""
        state = replay(self._journal.read())
        if state is None or state["version"] not in self.versions():
            raise StoreError(f"{path} is damaged: delete it, then promote a version")
        if not self._told_damaged:
            _log.warning("%s is damaged; %s is current by the history", path, state["version"])
        self._told_damaged = True
        return state
