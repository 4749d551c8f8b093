from __future__ import annotations

from pathlib import Path

import pytest

from ssada_core.errors import ConfigError
from ssada_core.store.run_folder import run_folder


def test_only_the_folder_of_an_earlier_run_of_the_same_kind_is_emptied(tmp_path: Path) -> None:
    out = run_folder(tmp_path / "out", kind="demo")
    (out / "report.html").touch()
    assert [path.name for path in run_folder(out, kind="demo").iterdir()] == [".ssada-demo"]
    with pytest.raises(ConfigError, match="not empty and not of an earlier replay"):
        run_folder(out, kind="replay")
    foreign = tmp_path / "home"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="not empty and not of an earlier demo"):
        run_folder(foreign, kind="demo")
    assert (foreign / "thesis.tex").exists()
    with pytest.raises(ConfigError, match="not empty"):
        run_folder(foreign / "thesis.tex", kind="demo")
