"""Files from elsewhere, checked before anything looks into them."""

from __future__ import annotations

import hashlib
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import urlsplit

from ssada_core.errors import ModelError
from ssada_core.store.files import store_error

MAX_BYTES = 1 << 30
"""No checkpoint of a network for the road is larger than this."""

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_SHA256 = re.compile("[0-9a-f]{64}")
_BLOCK = 1 << 20
_TIMEOUT_S = 60.0


@contextmanager
def open_verified(source: str, sha256: str, *, max_bytes: int = MAX_BYTES) -> Iterator[IO[bytes]]:
    """Open a file or a URL whose content has this SHA-256; what is read is what was checked.

    The content is copied into an unnamed temporary file, so nobody can change it between check and use.

    Args:
        source: a path, or an ``https`` URL (``http`` only from this machine).
        sha256: 64 hexadecimal digits.
        max_bytes: more than this is refused, and is not downloaded.

    Raises:
        ModelError: if the source cannot be read, is too large, or has another hash.
    """
    wanted = sha256.strip().lower()
    if not _SHA256.fullmatch(wanted):
        raise ModelError(f"'{sha256}' is no SHA-256: give the 64 hexadecimal digits that its publisher names")
    with tempfile.TemporaryFile() as copy:
        with _open(source) as stream:
            found = _copy(stream, copy, source, max_bytes)
        if found != wanted:
            raise ModelError(f"{source} has SHA-256 {found}, not {wanted}: do not use it, fetch it again")
        copy.seek(0)
        yield copy


def is_url(source: str) -> bool:
    """Whether this is a URL rather than a path."""
    return "://" in source


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to where a download may come from."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: object, newurl: str
    ) -> urllib.request.Request | None:
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL_HOSTS):
        raise ModelError(f"{url}: only https is downloaded (http from this machine alone): download it yourself")


@contextmanager
def _open(source: str) -> Iterator[BinaryIO]:
    try:
        if is_url(source):
            _check_url(source)
            opener = urllib.request.build_opener(_CheckedRedirects)
            with opener.open(source, timeout=_TIMEOUT_S) as response:
                yield response
        else:
            with Path(source).open("rb") as file:
                yield file
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and not is_url(source):
            raise ModelError(str(store_error("read", Path(source), error))) from error
        raise ModelError(f"{source} cannot be downloaded ({error}): check the address and the network") from error


def _copy(stream: BinaryIO, copy: IO[bytes], source: str, max_bytes: int) -> str:
    digest, size = hashlib.sha256(), 0
    while block := stream.read(_BLOCK):
        size += len(block)
        if size > max_bytes:
            raise ModelError(f"{source} is larger than {max_bytes >> 20} MiB: that is no checkpoint of a road network")
        digest.update(block)
        copy.write(block)
    return digest.hexdigest()
