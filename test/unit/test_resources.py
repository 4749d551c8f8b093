"""Shipped files are found in the source tree, a colcon install space and a pip prefix; errors say their remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssada_core.errors import ConfigError, MissingExtraError, SsadaError, require
from ssada_core.resources import resource

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_source_tree_comes_first():
    assert resource("config/demo.yaml") == REPOSITORY / "config" / "demo.yaml"


def test_every_prefix_of_ament_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "b" / "share" / "ssada_ros" / "config" / "only_here.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'a'}::{tmp_path / 'b'}")
    assert resource("config/only_here.yaml") == file


def test_a_pip_prefix_is_searched(tmp_path: Path):
    """An installed copy lies outside the source tree, beside ``share/`` in its prefix."""
    package = tmp_path / "site" / "ssada_core"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "resources.py"):
        shutil.copy(REPOSITORY / "ssada_core" / name, package)
    file = tmp_path / "prefix" / "share" / "ssada_ros" / "models" / "manifest.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); sys.prefix = {str(tmp_path / 'prefix')!r}; "
        "from ssada_core.resources import resource; print(resource('models/manifest.yaml'))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip() == str(file)


def test_what_is_nowhere_names_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        resource("config/nothing.yaml")
    words = str(caught.value)
    assert "shipped file 'config/nothing.yaml' not found in " in words
    assert str(tmp_path / "share" / "ssada_ros") in words
    assert str(REPOSITORY) in words
    assert words.endswith("reinstall the package")


def test_require_returns_the_module():
    assert require("json.decoder", extra="x", purpose="this").__name__ == "json.decoder"


def test_require_says_what_to_install():
    with pytest.raises(MissingExtraError) as caught:
        require("no_such_package.inner", extra="openvino", purpose="backend 'openvino'")
    assert str(caught.value) == (
        "backend 'openvino' needs the package 'no_such_package', which is not installed: "
        "pip install 'ssada_ros[openvino]'"
    )
    assert (caught.value.package, caught.value.extra) == ("no_such_package", "openvino")
    assert isinstance(caught.value, SsadaError)
