"""Settings: strict keys, and errors that name the key, the value and the nearest right one."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Literal

import pytest
from pydantic import Field, ValidationError

import ssada_core
from ssada_core.errors import ConfigError
from ssada_core.settings import Settings, nearest, parse_settings


class Inner(Settings):
    iterations: int = Field(300, ge=1, description="Steps.")
    learning_rate: float = Field(0.003, gt=0, description="Rate.")


class Outer(Settings):
    name: str = Field("x", description="Name.")
    mode: Literal["fast", "exact"] = Field("fast", description="Mode.")
    sizes: list[int] = Field(default_factory=lambda: [1, 2], description="Sizes.")
    training: Inner = Field(default_factory=Inner, description="Inner.")


def message(values: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_settings(Outer, values, source="run.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_and_given_values_meet():
    settings = parse_settings(Outer, {"training": {"iterations": 5}}, source="run.yaml")
    assert settings == Outer(training=Inner(iterations=5, learning_rate=0.003))


def test_a_misspelt_key_names_the_nearest_right_one():
    assert message({"nam": "y"}) == "run.yaml: unknown key 'nam' (did you mean 'name'?)"


def test_a_misspelt_nested_key_is_looked_up_at_its_own_level():
    expected = "run.yaml: unknown key 'training.iteration' (did you mean 'iterations'?)"
    assert message({"training": {"iteration": 5}}) == expected


def test_a_key_that_resembles_nothing_lists_what_there_is():
    expected = "run.yaml: unknown key 'training.zzz' (there are: iterations, learning_rate)"
    assert message({"training": {"zzz": 5}}) == expected


def test_a_value_out_of_range_names_value_and_bound():
    expected = "run.yaml: 'training.iterations' is 0: input should be greater than or equal to 1"
    assert message({"training": {"iterations": 0}}) == expected


def test_a_wrong_choice_names_the_choices():
    assert message({"mode": "slow"}) == "run.yaml: 'mode' is 'slow': input should be 'fast' or 'exact'"


def test_an_element_of_a_list_is_named_by_its_place():
    assert message({"sizes": [1, "b"]}).startswith("run.yaml: 'sizes.1' is 'b': ")


def test_further_errors_are_counted():
    assert message({"nam": "y", "mode": "slow"}).endswith("; 1 more")


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Outer().name = "y"  # type: ignore[misc]


def test_a_default_that_breaks_its_own_bound_is_found():
    class Wrong(Settings):
        count: int = Field(0, ge=1, description="Wrong on purpose.")

    with pytest.raises(ValidationError):
        Wrong()


@pytest.mark.parametrize(
    ("word", "candidates", "expected"),
    [
        ("camvdi", ["camvid", "cityscapes"], " (did you mean 'camvid'?)"),
        ("qqq", ["b", "a"], " (there are: a, b)"),
        ("qqq", [], ""),
    ],
)
def test_nearest(word: str, candidates: list[str], expected: str):
    assert nearest(word, candidates) == expected


def settings_classes() -> list[type[Settings]]:
    for module in pkgutil.walk_packages(ssada_core.__path__, "ssada_core."):
        importlib.import_module(module.name)
    for name in ("adaptation_settings", "segmentation_settings", "camera_settings", "demo_settings"):
        importlib.import_module(f"ssada_ros.{name}")
    found, queue = [], [Settings]
    while queue:
        for kind in queue.pop().__subclasses__():
            queue.append(kind)
            if kind.__module__.startswith("ssada_"):
                found.append(kind)
    return sorted(set(found), key=lambda kind: kind.__qualname__)


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: kind.__name__)
def test_every_setting_of_the_product_is_described(kind: type[Settings]):
    undescribed = [
        name
        for name, field in kind.model_fields.items()
        if not field.description and not (isinstance(field.annotation, type) and issubclass(field.annotation, Settings))
    ]
    assert undescribed == []


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: kind.__name__)
def test_every_number_of_the_product_has_a_bound(kind: type[Settings]):
    unbounded = [
        name for name, field in kind.model_fields.items() if field.annotation in (int, float) and not field.metadata
    ]
    assert unbounded == []
