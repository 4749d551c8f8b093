from __future__ import annotations

from pathlib import Path

import pytest

from ssada_core.errors import ConfigError, StoreError
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


@pytest.mark.parametrize("reference", ["{}", "{}@v0003", "frames:0-9:{}/day.txt", "bag:{}"])
def test_what_is_to_be_read_is_never_emptied(tmp_path: Path, reference: str) -> None:
    """``ssada replay --adapt``, then ``ssada replay --model out/replay/vehicle/registry``: the model was gone."""
    out = run_folder(tmp_path / "out", kind="replay")
    registry = out / "vehicle" / "registry"
    registry.mkdir(parents=True)
    (registry / "day.txt").touch()
    named = reference.format(registry)
    with pytest.raises(ConfigError, match=r"would be emptied, and holds .*registry.*: give another"):
        run_folder(tmp_path / "out", kind="replay", inputs=["sim:day", named])
    assert (registry / "day.txt").exists()
    run_folder(tmp_path / "other", kind="replay", inputs=["sim:day", named])
    run_folder(tmp_path / "out", kind="replay", inputs=["sim:day", "", tmp_path / "elsewhere"])
    assert not registry.exists()


def test_a_link_is_emptied_and_stays_and_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for _ in range(2):
        (run_folder(tmp_path / "out", kind="demo") / "report.html").touch()
    assert (tmp_path / "out").is_symlink()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write .*file/out"):
        run_folder(tmp_path / "file" / "out", kind="demo")
