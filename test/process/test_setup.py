"""``scripts/setup.sh``: says what is missing, repairs what is half made, and takes no failure for success.

The whole set-up downloads PyTorch; that is what ``make test`` itself does first in a fresh clone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "env", "dirname", "cat", "touch")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the script reads, and nothing that could be installed."""
    root = tmp_path / "checkout"
    (root / "scripts").mkdir(parents=True)
    shutil.copy2(REPOSITORY / "scripts" / "setup.sh", root / "scripts")
    shutil.copy2(REPOSITORY / "constraints.txt", root)
    return root


def run(checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "setup.sh"],
        env={"HOME": str(checkout), **variables},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def tools(folder: Path, python: str) -> str:
    """A PATH with the script's tools and one ``python3``, a shell script."""
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(str(shutil.which(name)))
    (folder / "python3").write_text(f"#!/bin/sh\n{python}\n")
    (folder / "python3").chmod(0o755)
    return str(folder)


def test_an_unsuitable_python_is_said_to_be_so(checkout: Path, tmp_path: Path):
    result = run(checkout, PATH=tools(tmp_path / "bin", "exit 1"))
    assert result.returncode != 0
    assert "no suitable Python: install Python 3.11 or 3.12, or source a ROS 2" in result.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_names_the_package_to_install(checkout: Path, tmp_path: Path):
    """Debian splits venv off: the interpreter is fine, but ``ensurepip`` is not there."""
    python = 'case "$*" in *ensurepip*) exit 1;; *) exit 0;; esac'
    result = run(checkout, PATH=tools(tmp_path / "bin", python))
    assert result.returncode != 0
    assert "apt-get install python3-venv" in result.stderr
    assert not (checkout / ".venv").exists()


def test_a_half_made_environment_is_made_again_and_a_failure_is_not_taken_for_success(checkout: Path):
    broken = checkout / ".venv" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.symlink_to(checkout / "gone")
    # There is no setup.py in the checkout, so that pip fails at once and without a network.
    result = run(checkout, PATH=os.environ["PATH"], PYTHON=sys.executable, PIP_NO_INDEX="1")
    assert "[setup] creating .venv with Python 3." in result.stdout
    assert subprocess.run([broken, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    assert result.returncode != 0
    assert not (checkout / ".venv" / ".ready").exists()
    again = run(checkout, PATH=os.environ["PATH"], PYTHON=sys.executable, PIP_NO_INDEX="1")
    assert "creating" not in again.stdout
    assert again.returncode != 0
