"""Finding and reading the files that samples are made of, with errors that name them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from ssada_core.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_NUMBERS = re.compile(r"(\d+)")


def read_list(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and words of a list file, without blank lines and comments.

    Raises:
        DataError: if it cannot be read, is empty, or a line has more than two words.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list {path} cannot be read: {_reason(error)}") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    parsed = [(number, _words(path, number, line)) for number, line in lines if line and not line.startswith("#")]
    if not parsed:
        raise DataError(f"list {path} names no frames: write one line 'image label' for each")
    return parsed


def _words(path: Path, number: int, line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise DataError(f"{path}:{number}: {str(error).lower()}: quote paths in pairs") from error
    if not 1 <= len(words) <= 2:
        raise DataError(f"{path}:{number}: {len(words)} paths: write 'image label', and quote paths that have spaces")
    return words


def natural(name: str) -> list[Any]:
    """A key that sorts ``part_2`` before ``part_10``."""
    return [int(part) if part.isdecimal() else part for part in _NUMBERS.split(name)]


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Images of a folder by stem, in the order of their names.

    Raises:
        DataError: if it cannot be read, has no images, or two of them share a stem.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {_reason(error)}") from error
    if not paths:
        raise DataError(f"folder {folder} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise DataError(f"{found[path.stem].name} and {path.name} in {folder} share a name: remove one of them")
        found[path.stem] = path
    return found


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else "it is not UTF-8 text"


def images_below(folder: Path) -> list[Path]:
    """Images in a folder and its subfolders, in the order of their paths.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        found = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {_reason(error)}") from error
    return sorted(found)
