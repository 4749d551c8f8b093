"""The files of one model directory: written once, hashed, and checked before they are trusted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ssada_core.errors import ModelError, StoreError
from ssada_core.networks.settings import ONNX_ARCHITECTURE
from ssada_core.store.files import fsync_directory, sha256_file, store_error, write_atomic
from ssada_core.store.manifest import MANIFEST_FILE, UNSEALED, WEIGHTS_FILE, ModelManifest

if TYPE_CHECKING:
    import torch

_VERSION = re.compile(r"v([0-9]{4,9})")


def is_version(path: Path) -> bool:
    """Whether this is a finished version's folder of a registry."""
    return version_number(path.name) > 0 and (path / MANIFEST_FILE).is_file()


def version_number(name: str) -> int:
    """3 for ``v0003``, 0 for what is no version's name."""
    found = _VERSION.fullmatch(name)
    return int(found[1]) if found else 0


def read_manifest(folder: Path) -> ModelManifest:
    """The manifest of a model directory.

    Raises:
        ModelError: if there is none, or it does not fit its schema.
    """
    path = folder / MANIFEST_FILE
    try:
        return ModelManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{folder} is no model directory: {path.name} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"{path} is damaged: {key}: {first['msg']}: restore the model from a copy") from error


def write_manifest(folder: Path, manifest: ModelManifest) -> None:
    """Write ``manifest.json``.

    Raises:
        StoreError: if the disk refuses.
    """
    write_atomic(folder / MANIFEST_FILE, f"{manifest.model_dump_json(indent=2)}\n".encode())


def seal(folder: Path, manifest: ModelManifest) -> None:
    """Write the manifest with the SHA-256 of every file that makes the model. A signature of the one before is void.

    Raises:
        StoreError: if a file cannot be read, or the disk refuses.
    """
    names = sorted(str(path.relative_to(folder)) for path in _regular_files(folder))
    hashes = {name: sha256_file(folder / name) for name in names if name not in UNSEALED}
    write_manifest(folder, manifest.model_copy(update={"files": hashes}))


def verify(folder: Path) -> ModelManifest:
    """Check every file against the manifest; returns it.

    Raises:
        ModelError: naming the first file that is missing or differs.
    """
    manifest = read_manifest(folder)
    imported = manifest.network.architecture == ONNX_ARCHITECTURE  # its graph is all there is
    if WEIGHTS_FILE not in manifest.files and not imported:
        raise ModelError(f"{folder / MANIFEST_FILE} has no hash of {WEIGHTS_FILE}: build the model again")
    for name in vouched(manifest):
        verify_file(folder, name, manifest)
    return manifest


def vouched(manifest: ModelManifest) -> list[str]:
    """The files that a manifest vouches for; those sealed by an earlier release also list the gate's decision."""
    return [name for name in manifest.files if name not in UNSEALED]


def verify_listed(folder: Path, manifest: ModelManifest, *, below: str) -> None:
    """Check one file, or all of one subfolder, whether listed or there; a model under construction lists none.

    Raises:
        ModelError: naming the first that is missing, differs, or is not listed by a manifest that lists others.
    """
    for name in manifest.files:
        if name == below or name.startswith(f"{below}/"):
            verify_file(folder, name, manifest)
    path = folder / below
    for found in [path, *path.rglob("*")] if manifest.files else []:
        name = found.relative_to(folder).as_posix()
        if not found.is_dir() and name not in manifest.files:
            raise ModelError(f"{found} is not in the manifest: delete it, or run 'ssada export {folder}'")


def verify_rest(folder: Path, manifest: ModelManifest, *, rebuilt: Collection[str]) -> None:
    """Check what stays of a model that is sealed again: all but the subfolders ``rebuilt`` and those that are gone.

    Raises:
        ModelError: naming the first file that is missing, differs, or is not listed by a manifest that lists others.
    """
    for name in vouched(manifest):
        if not _is_below(name, rebuilt) and (folder / name).parent.is_dir():
            verify_file(folder, name, manifest)
    for path in folder.rglob("*") if manifest.files else ():
        name = path.relative_to(folder).as_posix()
        known = name in manifest.files or name in UNSEALED
        if not path.is_dir() and not known and not _is_below(name, rebuilt):
            raise ModelError(f"{path} is not in the manifest: delete it, or export that form as well")


def _is_below(name: str, folders: Collection[str]) -> bool:
    return any(name.startswith(f"{folder}/") for folder in folders)


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a model directory, once their hash is right.

    Raises:
        ModelError: if they are missing, differ from the manifest, or are no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    verify_file(folder, WEIGHTS_FILE, read_manifest(folder))
    try:
        weights: dict[str, torch.Tensor] = load_file(folder / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder / WEIGHTS_FILE} cannot be loaded: {error}: restore it from a copy") from error
    return weights


def write_weights(folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a state dict as safetensors.

    Raises:
        StoreError: if the disk refuses.
    """
    from safetensors.torch import save

    # Cloned, because safetensors refuses tensors that are views of one memory.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    write_atomic(folder / WEIGHTS_FILE, save(plain))


def copy_files(source: Path, target: Path, manifest: ModelManifest) -> None:
    """Copy the files that a manifest vouches for into a new folder.

    Raises:
        StoreError: if the disk refuses.
    """
    for name in vouched(manifest):
        path = target / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, path)
        except OSError as error:
            raise store_error("write", path, error) from error


def fsync_tree(folder: Path) -> None:
    """Put every file and name below a folder on the disk.

    Raises:
        OSError: if the disk refuses.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(Path(parent) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_directory(Path(parent))


def _regular_files(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    for path in found:
        if path.is_symlink() or not path.is_file():
            raise StoreError(f"{path} is a link or special file: a model holds plain files, copy its content")
    return found


def verify_file(folder: Path, name: str, manifest: ModelManifest) -> None:
    """Check one file against the manifest.

    Raises:
        ModelError: if it is missing, differs, or lies outside the folder.
    """
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise ModelError(f"{folder / MANIFEST_FILE} names '{name}', outside the model: do not use this model")
    path = folder / name
    if not path.is_file():
        raise ModelError(f"{path} is missing: restore it from a copy, or promote another version")
    if sha256_file(path) != manifest.files.get(name):
        raise ModelError(f"{path} differs from the manifest's SHA-256: restore it, or promote another version")
