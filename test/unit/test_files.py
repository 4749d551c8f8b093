from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssada_core.errors import StoreError
from ssada_core.store import files
from ssada_core.store.files import (
    DiskFullError,
    free_bytes,
    make_directory,
    read_json,
    sha256_file,
    write_atomic,
    write_json,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_old_content_is_intact_until_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    seen = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        seen.append(path.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", spy)
    write_atomic(path, b"new")
    assert seen == [b"old", b"new"]  # the data before the rename, the directory after it


def test_missing_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.bin"
    with pytest.raises(StoreError, match="create it first") as caught:
        write_atomic(path, b"x")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_make_directory_refuses_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        make_directory(tmp_path / "file" / "below")


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"name": "Zürich", "values": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Zürich" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_errors_name_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(StoreError, match=r"a\.json: there is no such file"):
        read_json(path)
    path.write_text("{half")
    with pytest.raises(StoreError, match=r"a\.json: not JSON"):
        read_json(path)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, float("nan"))
    assert path.read_text() == "{half"


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(StoreError, match="no such file"):
        sha256_file(tmp_path / "none")


def test_free_bytes_is_what_the_system_says(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert free_bytes(tmp_path) == pytest.approx(status.f_bavail * status.f_frsize, rel=0.05)
    with pytest.raises(StoreError):
        free_bytes(tmp_path / "none")


def test_full_disk_in_a_child_with_a_file_size_limit(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from ssada_core.store.files import DiskFullError, write_atomic\n"
        "path = Path(sys.argv[1])\n"
        "write_atomic(path, b'old')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_atomic(path, bytes(5000))\n"
        "except DiskFullError as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / "a.bin"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stdout == f"cannot write {path}: the disk is full: free some space, or choose another disk\n"
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.ENOSPC, DiskFullError, "disk is full"),
        (errno.EROFS, StoreError, "read-only"),
        (errno.EACCES, StoreError, "permission"),
    ],
)
def test_each_failure_has_a_remedy(code: int, kind: type[StoreError], words: str) -> None:
    error = files.store_error("write", Path("/data/x"), OSError(code, "raw"))
    assert type(error) is kind
    assert str(error).startswith("cannot write /data/x: ")
    assert words in str(error)
