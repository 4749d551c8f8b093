"""Signed models: Ed25519 over the manifest, which holds the hash of every other file.

Needs the extra ``signature`` (the package ``cryptography``). A signature proves who let a model through, where hashes
alone only prove that it has not changed since.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any

from ssada_core.errors import ConfigError, ModelError, require
from ssada_core.store.files import store_error, write_atomic
from ssada_core.store.manifest import MANIFEST_FILE, SIGNATURE_FILE
from ssada_core.store.model_files import read_manifest

_PURPOSE = "signing models"


def create_keys(private: Path) -> Path:
    """Make a pair of keys: ``private`` (PEM, readable by this user alone) and ``<private>.pub``; returns the latter.

    Raises:
        ConfigError: if there is a file of either name already.
        StoreError: if the disk refuses.
    """
    serialization, ed25519 = _modules()
    public = private.with_name(f"{private.name}.pub")
    for path in (private, public):
        if path.exists():
            raise ConfigError(f"{path} exists: a key is never overwritten, choose another name")
    key = ed25519.Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise store_error("write", private, error) from error
    write_atomic(
        public,
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    return public


def sign(folder: Path, private: Path) -> None:
    """Sign a model directory: ``manifest.json.sig`` beside its manifest, in base64.

    Raises:
        ConfigError: if the key cannot be used.
        ModelError: if there is no manifest.
        StoreError: if the disk refuses.
    """
    signature: bytes = _private(private).sign(_manifest(folder))
    write_atomic(folder / SIGNATURE_FILE, base64.b64encode(signature) + b"\n")


def verify_signature(folder: Path, public: Path) -> None:
    """Check a model directory's signature. The files are checked against the manifest elsewhere.

    Raises:
        ConfigError: if the key cannot be used.
        ModelError: if the model is not signed, not by this key, or its manifest lists no file.
    """
    key = _public(public)
    path = folder / SIGNATURE_FILE
    try:
        signature = base64.b64decode(path.read_bytes(), validate=False)
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is not signed: run 'ssada models sign {folder} --key PRIVATE', or take another model"
        ) from error
    except (OSError, binascii.Error) as error:
        raise ModelError(f"{path} cannot be read ({error}): sign the model again") from error
    try:
        key.verify(signature, _manifest(folder))
    except _invalid() as error:
        raise ModelError(f"{folder} was not signed by {public}: do not use it, or name the key of its maker") from error
    if not read_manifest(folder).files:
        raise ModelError(f"{folder / MANIFEST_FILE} lists no file, so its signature holds for none: build it again")


def _manifest(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise ModelError(
            f"{folder} is no model directory: {MANIFEST_FILE} cannot be read ({error.strerror})"
        ) from error


def _private(path: Path) -> Any:  # noqa: ANN401 (types of an optional package)
    serialization, ed25519 = _modules()
    key = _load(path, lambda data: serialization.load_pem_private_key(data, password=None))
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{path} is no private Ed25519 key: make one with 'ssada models keys {path}'")
    return key


def _public(path: Path) -> Any:  # noqa: ANN401
    serialization, ed25519 = _modules()
    key = _load(path, serialization.load_pem_public_key)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ConfigError(f"{path} is no public Ed25519 key: give the .pub file")
    return key


def _load(path: Path, read: Any) -> Any:  # noqa: ANN401
    try:
        return read(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"key {path} cannot be read ({error.strerror}): name the file of a key") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no key in PEM: make one with 'ssada models keys'") from error


def _modules() -> tuple[Any, Any]:
    serialization = require("cryptography.hazmat.primitives.serialization", extra="signature", purpose=_PURPOSE)
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", extra="signature", purpose=_PURPOSE)
    return serialization, ed25519


def _invalid() -> type[Exception]:
    exceptions = require("cryptography.exceptions", extra="signature", purpose=_PURPOSE)
    invalid: type[Exception] = exceptions.InvalidSignature
    return invalid
