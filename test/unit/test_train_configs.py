"""Every shipped training configuration loads, fits its label space and names data in layouts that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssada_core.config import load_settings
from ssada_core.data.layouts import LAYOUTS
from ssada_core.data.lists import open_samples
from ssada_core.errors import DataError
from ssada_core.labels import load_label_space
from ssada_core.learning.offline import PARTS, OfflineSettings
from ssada_core.learning.separate_heads import source_space

FOLDER = Path(__file__).resolve().parents[2] / "config" / "train"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
SETTINGS = {
    "gta5_cityscapes": ("gta5", 19, "gta5", "cityscapes"),
    "synthia_cityscapes": ("synthia", 16, "synthia", "cityscapes"),
    "cityscapes_acdc": ("cityscapes", 19, "cityscapes", "acdc"),
    "cityscapes_crosscity": ("crosscity", 13, "cityscapes", "crosscity"),
    "bev2023_bev2024": ("bev", 7, "bev", "bev"),
    "camvid_dusk": ("camvid", 11, "", ""),
}


def layout(reference: str) -> str:
    name = re.sub(r"^every:\d+:", "", reference).partition(":")[0]
    return name if name in LAYOUTS else ""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_loads_and_names_what_its_mode_trains_on(path: Path):
    settings = load_settings(OfflineSettings, path)
    load_label_space(settings.label_space)
    revealed = {"labelled"} if settings.data.budget else set()
    missing = [part for part in PARTS[settings.mode] - revealed if not getattr(settings.data, part)]
    given_by_hand = {"tufl": ["source", "unlabelled"]}  # its header says so
    assert sorted(missing) == given_by_hand.get(path.stem, [])
    assert settings.training.crop_height <= settings.network.input_height
    assert settings.training.crop_width <= settings.network.input_width


@pytest.mark.parametrize("name", SETTINGS)
def test_the_named_settings_are_what_they_say(name: str):
    space, classes, source, target = SETTINGS[name]
    settings = load_settings(OfflineSettings, FOLDER / f"{name}.yaml")
    assert settings.label_space == space
    assert load_label_space(space).num_classes == classes
    assert layout(settings.data.source) == source
    targets = {layout(getattr(settings.data, part)) for part in ("labelled", "unlabelled", "validation")} - {""}
    assert targets == ({target} if target else set())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_its_references_are_well_formed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With empty data folders each reference gets as far as the frames that are missing."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(OfflineSettings, path)
    space = load_label_space(settings.label_space)
    for part, reference in settings.data.model_dump().items():
        if not isinstance(reference, str) or not reference:
            continue
        folder = re.sub(r"^every:\d+:", "", reference).split(":")
        if layout(reference):
            Path(folder[1]).mkdir(parents=True, exist_ok=True)
            with pytest.raises(DataError, match="has no folder"):
                open_samples(reference, source_space(settings, space) if part == "source" else space)


@pytest.mark.parametrize("mode", ["source", "supervised", "joint", "ssada"])
@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "cityscapes_crosscity"])
def test_the_other_rows_are_one_override_away(name: str, mode: str):
    settings = load_settings(OfflineSettings, FOLDER / f"{name}.yaml", [f"mode={mode}", "initial=''"])
    assert all(getattr(settings.data, part) for part in PARTS[settings.mode])
