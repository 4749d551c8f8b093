"""The model registry: versions that cannot change, one of them current, and the way back.

::

    <root>/v0001/{weights.safetensors, manifest.json, deploy/<backend>-<precision>/…, decision.json}
    <root>/current          {version, previous, earlier, promoted_at}, replaced atomically
    <root>/decisions.jsonl  every promotion and rollback, oldest first

(ARCHITECTURE contract 4.) Nothing is ever unpickled. Several processes may use it at once.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ssada_core.errors import ModelError, StoreError
from ssada_core.settings import Settings, nearest
from ssada_core.store import model_files
from ssada_core.store.files import fsync_directory, make_directory, read_json, store_error, write_json
from ssada_core.store.journal import Journal, file_lock, utc_now
from ssada_core.store.manifest import ModelManifest

if TYPE_CHECKING:
    import torch

CURRENT_FILE = "current"
DECISIONS_FILE = "decisions.jsonl"
DECISION_FILE = "decision.json"
LOCK_FILE = "lock"


class RegistrySettings(Settings):
    """How many versions stay."""

    keep: int = Field(
        10, ge=1, description="Newest versions that stay; the current, the one before and the first always stay."
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
        make_directory(self.root)

    def versions(self) -> list[str]:
        """All versions, oldest first."""
        return [path.name for path in sorted(filter(model_files.is_version, self.root.iterdir()), key=_version_of)]

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
            filled = manifest.model_copy(update={"version": version, "created": manifest.created or utc_now()})
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
            parent = manifest.parent or manifest.version
            model_files.seal(folder, manifest.model_copy(update={"version": version, "parent": parent}))

        return self._build(build)

    def _build(self, build: Callable[[Path, str], None]) -> str:
        with self._reserved() as (version, folder):
            build(folder, version)
            model_files.fsync_tree(folder)
            with self._locked():
                folder.rename(self.root / version)
                fsync_directory(self.root)
                self._prune()
        return version

    @contextlib.contextmanager
    def _reserved(self) -> Iterator[tuple[str, Path]]:
        """The next version's name and its folder under construction; building may take minutes, so without the lock."""
        with self._locked():
            self._remove_leftovers()
            version = f"v{max(map(_version_of, self._folders()), default=0) + 1:04d}"
            folder = self.root / f".{version}.tmp"
            try:
                folder.mkdir()
            except OSError as error:
                raise store_error("create", folder, error) from error
            lock = contextlib.ExitStack()
            lock.enter_context(file_lock(folder))
        with lock:
            try:
                yield version, folder
            except OSError as error:
                raise store_error("write", folder, error) from error
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def promote(self, version: str, decision: Mapping[str, Any] | None = None) -> None:
        """Make a version the current one, after checking its files.

        Args:
            version: any kept version.
            decision: the gate's decision in figures and words, kept beside the version and in the history.

        Raises:
            ModelError: if there is no such version, or a file of it is damaged.
            StoreError: if the disk refuses.
        """
        with self._locked():
            self.verify(version)
            before = self._current()
            if decision is not None:
                write_json(self.path(version) / DECISION_FILE, dict(decision))
            earlier = [*before.get("earlier", []), before.get("version")]
            others = [name for name in earlier if name != version and name in self.versions()]
            self._switch("promote", version, others, decision)
            self._prune()

    def rollback(self, reason: str = "") -> str:
        """Go back to the version that was current before; again, to the one before that.

        Returns:
            The version that is current now.

        Raises:
            StoreError: if there is none before, or the disk refuses.
            ModelError: if a file of it is damaged.
        """
        with self._locked():
            earlier = [name for name in self._current().get("earlier", []) if name in self.versions()]
            if not earlier:
                raise StoreError(f"{self.root}: nothing to roll back to, no other version was promoted: promote one")
            version = str(earlier[-1])
            self.verify(version)
            self._switch("rollback", version, earlier[:-1], {"reason": reason} if reason else None)
        return version

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
        state = read_json(path)
        if not isinstance(state, dict) or not {"version", "earlier"} <= set(state):
            raise StoreError(f"{path} is damaged: delete it, then promote a version")
        return state

    def _prune(self) -> None:
        versions, state = self.versions(), self._current()
        kept = {*versions[-self.settings.keep :], versions[0], state.get("version"), state.get("previous")}
        for version in versions:
            if version not in kept:
                doomed = self.root / f".{version}.old"
                (self.root / version).rename(doomed)  # a name that no reader takes for a version
                shutil.rmtree(doomed, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Delete what killed processes left: folders under construction that nobody holds, and pruned ones."""
        for folder in self._folders():
            if folder.name.endswith(".old"):
                shutil.rmtree(folder, ignore_errors=True)
            elif folder.name.endswith(".tmp"):
                with file_lock(folder, wait=False) as held:
                    if held:
                        shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return [path for path in self.root.iterdir() if path.is_dir() and _version_of(path)]

    def _locked(self) -> contextlib.AbstractContextManager[bool]:
        lock = self.root / LOCK_FILE
        try:
            lock.touch()
        except OSError as error:
            raise store_error("write", lock, error) from error
        return file_lock(lock)


def _version_of(folder: Path) -> int:
    """The number of a version's folder, finished or not (``.v0003.tmp``)."""
    return model_files.version_number(folder.name.strip(".").partition(".")[0])
