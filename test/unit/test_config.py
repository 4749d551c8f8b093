"""YAML in, typed settings out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssada_core.adaptation.settings import AdaptationSettings
from ssada_core.config import load_settings, load_yaml, parse_overrides
from ssada_core.errors import ConfigError
from ssada_core.labels import load_label_space
from ssada_core.learning.offline import OfflineSettings
from ssada_core.resources import resource
from ssada_core.settings import merge

TREES = st.recursive(
    st.integers(), lambda children: st.dictionaries(st.sampled_from("abc"), children, max_size=3), max_leaves=8
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_and_overrides_become_settings(tmp_path: Path):
    path = write(tmp_path, "name: a\nout: runs/a\ntraining: {iterations: 7, learning_rate: 0.01}\n")
    settings = load_settings(OfflineSettings, path, ["training.iterations=9", "out=runs/b"])
    assert (settings.name, settings.out) == ("a", "runs/b")
    assert (settings.training.iterations, settings.training.learning_rate) == (9, 0.01)


def test_a_misspelt_key_names_file_and_nearest(tmp_path: Path):
    path = write(tmp_path, "training: {iteratons: 7}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(OfflineSettings, path)
    assert str(caught.value) == f"{path}: unknown key 'training.iteratons' (did you mean 'iterations'?)"


@pytest.mark.parametrize("name", ["sim_day", "camvid_day", "tufl"])
def test_the_shipped_training_configurations_are_valid(name: str):
    overrides = [] if name == "sim_day" else ["data.source=source_day.txt"]
    settings = load_settings(OfflineSettings, resource(f"config/train/{name}.yaml"), overrides)
    assert settings.name == name.replace("_", "-")


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path):
    assert load_yaml(write(tmp_path, "")) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [("- a\n- b\n", "expected a mapping of keys, got list"), ("a: [1\n", "is not YAML"), ("a: b: c\n", "is not YAML")],
)
def test_what_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str, words: str):
    with pytest.raises(ConfigError, match=words) as caught:
        load_yaml(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"a: \xff\xfe\n", b"a: 2024-13-45\n"])
def test_what_is_no_text_or_no_value_is_refused_in_one_line(tmp_path: Path, data: bytes):
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    for load in (load_yaml, lambda file: load_label_space(str(file))):
        with pytest.raises(ConfigError, match=r"x\.yaml") as caught:
            load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["out=[", "a.b={", "d=2024-13-45"])
def test_an_override_that_is_no_yaml_is_refused_in_one_line(override: str):
    with pytest.raises(ConfigError, match="is not YAML") as caught:
        parse_overrides([override])
    assert override in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: No such file or directory: give the path of a YAML file"):
        load_yaml(tmp_path / "nothing.yaml")


def test_overrides_are_yaml_values_at_dotted_keys():
    found = parse_overrides(["a.b=1", "a.c=true", "d=[1, x]", "e=", "f=a=b"])
    assert found == {"a": {"b": 1, "c": True}, "d": [1, "x"], "e": None, "f": "a=b"}


def test_the_later_override_wins():
    assert parse_overrides(["a.b=1", "a.b=2"]) == {"a": {"b": 2}}


@pytest.mark.parametrize("override", ["a.b", "=1", ""])
def test_an_override_without_key_or_value_is_refused(override: str):
    with pytest.raises(ConfigError, match="is not of the form key=value"):
        parse_overrides([override])


def test_merge_goes_into_mappings_and_replaces_all_else():
    assert merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}
    assert merge({"a": 1}, {"a": {"b": 1}}) == {"a": {"b": 1}}


@given(base=MAPPINGS, changes=MAPPINGS)
def test_merge_holds_the_changes_and_leaves_its_arguments_alone(base: dict, changes: dict):
    before = repr(base), repr(changes)
    merged = merge(base, changes)
    assert (repr(base), repr(changes)) == before
    assert merge(merged, changes) == merged
    assert set(merged) == set(base) | set(changes)


def test_naming_one_key_of_the_scoring_engine_keeps_its_own_default_of_the_others():
    settings = AdaptationSettings.model_validate({"engine": {"backend": "torch"}})
    assert settings.engine.threads == AdaptationSettings().engine.threads == 1


@pytest.mark.parametrize(("policy", "needed"), [("strict", 8), ("manual", 8), ("lenient", 2)])
def test_no_round_starts_that_the_gate_could_not_judge(policy: str, needed: int):
    settings = AdaptationSettings.model_validate({"gate": {"policy": policy}})
    cycle = settings.judgeable_cycle()
    assert cycle.min_audit_labels == needed
    # Every fourth query is an audit frame: the default budget must be able to reach them.
    assert cycle.budget // settings.acquisition.audit_every >= needed
    given = AdaptationSettings.model_validate({"cycle": {"min_audit_labels": 3}})
    assert given.judgeable_cycle().min_audit_labels == 3
