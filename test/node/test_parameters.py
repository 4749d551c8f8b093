"""Parameters declared from settings, on a real node with a real params file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from pydantic import Field
from rclpy.parameter import Parameter

from ssada_core.errors import ConfigError
from ssada_core.settings import Settings
from ssada_ros.parameters import check_overrides, declare_settings, follow_settings, write_parameters_file

pytestmark = pytest.mark.ros


class Inner(Settings):
    depth: int = Field(3, ge=1, lt=9, description="How deep.")
    ratio: float = Field(0.5, gt=0.0, description="A share.")


class Outer(Settings):
    rate: float = Field(2.0, ge=0.5, le=60.0, description="In Hz.")
    mode: Literal["fast", "slow"] = Field("fast", description="How.")
    names: list[str] = Field(default_factory=lambda: ["a"], description="Names.")
    none_yet: list[str] = Field(default_factory=list, description="Empty by default.")
    weights: list[float] = Field(default_factory=list, description="Empty numbers.")
    switch: bool = Field(True, description="On or off.")
    folder: Path = Field(Path("data"), description="Where.")
    inner: Inner = Field(default_factory=Inner)


@pytest.fixture
def make_node(ros_domain):
    nodes = []

    def make(*arguments, name="tested", namespace=""):
        rclpy.init(args=["--ros-args", *map(str, arguments)])
        nodes.append(rclpy.create_node(name, namespace=namespace))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


def values(node):
    return {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}


def test_defaults_come_from_the_settings_with_type_range_and_choices(make_node):
    node = make_node()
    assert declare_settings(node, Outer) == Outer()
    found = values(node)
    assert found["inner.depth"] == 3
    assert found["folder"] == "data"
    assert found["none_yet"] == []
    kinds = {name: node.describe_parameter(name).type for name in ("rate", "none_yet", "weights", "switch", "folder")}
    expected = (Parameter.Type.DOUBLE, Parameter.Type.STRING_ARRAY, Parameter.Type.DOUBLE_ARRAY, Parameter.Type.BOOL)
    assert list(kinds.values()) == [kind.value for kind in (*expected, Parameter.Type.STRING)]
    (limits,) = node.describe_parameter("rate").floating_point_range
    assert (limits.from_value, limits.to_value) == (0.5, 60.0)
    (limits,) = node.describe_parameter("inner.depth").integer_range
    assert (limits.from_value, limits.to_value) == (1, 8)
    (limits,) = node.describe_parameter("inner.ratio").floating_point_range
    assert 0.0 < limits.from_value < 1e-300
    assert node.describe_parameter("mode").additional_constraints == "one of: fast, slow"
    assert node.describe_parameter("mode").description == "How."


def test_values_come_from_file_and_command_line(make_node, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    switch: false\n"
        "/robot/tested:\n  ros__parameters:\n    rate: 5\n    weights: [1, 2]\n    inner: {depth: 8}\n    names: []\n"
    )
    node = make_node("--params-file", file, "-p", "mode:=slow", namespace="/robot")
    settings = declare_settings(node, Outer)
    check_overrides(node)
    assert settings == Outer(
        switch=False, rate=5.0, weights=[1.0, 2.0], mode="slow", inner=Inner(depth=8), names=[], none_yet=[]
    )
    assert values(node)["names"] == []
    assert values(node)["rate"] == 5.0


def test_a_prefix_goes_before_every_name(make_node):
    node = make_node("-p", "engine.depth:=5")
    assert declare_settings(node, Inner, prefix="engine") == Inner(depth=5)
    assert {"engine.depth", "engine.ratio"} <= values(node).keys()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("rate:=0.1", ["'rate' is 0.1", "greater than or equal to 0.5"]),
        ("mode:=medium", ["'mode' is 'medium'", "'fast' or 'slow'"]),
        ("names:=[on, off]", ["names.0", "True", "string"]),
        ("inner.depth:=9", ["'inner.depth' is 9", "less than 9"]),
        ("switch:=maybe", ["'switch' is 'maybe'"]),
    ],
)
def test_a_wrong_value_is_named_before_anything_is_declared(make_node, argument, words):
    node = make_node("-p", argument)
    with pytest.raises(ConfigError) as caught:
        declare_settings(node, Outer)
    assert all(word in str(caught.value) for word in ["/tested", *words])
    assert not node.has_parameter("mode")


@pytest.mark.parametrize(
    ("argument", "nearest"), [("ratte:=3.0", "rate"), ("inner.dept:=2", "inner.depth"), ("modes:=fast", "mode")]
)
def test_an_unknown_key_names_the_nearest(make_node, argument, nearest):
    node = make_node("-p", argument)
    declare_settings(node, Outer)
    with pytest.raises(ConfigError, match=f"did you mean '{nearest}'"):
        check_overrides(node)


def test_what_ros_itself_and_qos_overrides_use_is_not_unknown(make_node):
    node = make_node("-p", "use_sim_time:=false", "-p", "qos_overrides./tf.publisher.depth:=3")
    declare_settings(node, Outer)
    check_overrides(node)


def test_only_dynamic_parameters_change_and_only_as_a_whole_that_fits(make_node):
    node = make_node()
    applied = []

    def apply(settings):
        if settings.rate > 50:
            raise ConfigError("rate: the source cannot do that")
        applied.append(settings)

    dynamic = {"rate", "inner.ratio", "weights", "names"}
    settings = declare_settings(node, Outer, dynamic=dynamic)
    follow_settings(node, settings, apply, dynamic=dynamic)

    def set_one(name, value):
        (result,) = node.set_parameters([Parameter(name, value=value)])
        return result

    assert set_one("rate", 4.0).successful
    assert set_one("inner.ratio", 0.25).successful
    assert applied[-1] == Outer(rate=4.0, inner=Inner(ratio=0.25))
    assert not set_one("switch", False).successful
    assert not set_one("rate", 1000.0).successful
    assert "cannot do that" in set_one("rate", 55.0).reason
    assert values(node)["rate"] == 4.0
    assert set_one("weights", [1.0, 2.5]).successful
    assert set_one("names", ["b", "c"]).successful
    assert (applied[-1].weights, applied[-1].names) == ([1.0, 2.5], ["b", "c"])
    assert len(applied) == 4


def test_a_written_file_is_read_by_ros_as_it_was_meant(make_node, tmp_path):
    file = tmp_path / "params.yaml"
    meant = Outer(
        names=["y", "n", "on", "off", "1", "", "ü: #"],
        weights=[1.0, 1e-5, 1e300],
        rate=3.0,
        folder=Path("/a b/c"),
        inner=Inner(ratio=1e-05),
    )
    write_parameters_file(file, {"tested": meant})
    node = make_node("--params-file", file, namespace="/deep/down")
    assert declare_settings(node, Outer) == meant
    check_overrides(node)


def test_a_file_takes_mappings_and_full_names_and_refuses_null(make_node, tmp_path):
    file = tmp_path / "params.yaml"
    write_parameters_file(file, {"/tested": {"inner.depth": 4, "inner": {"ratio": 0.75}}})
    assert declare_settings(make_node("--params-file", file), Outer).inner == Inner(depth=4, ratio=0.75)
    with pytest.raises(ConfigError, match="'rate' of tested is None"):
        write_parameters_file(file, {"tested": {"rate": None}})


def test_a_type_that_ros_does_not_have_is_named(make_node):
    class Wrong(Settings):
        table: dict[str, int] = Field(default_factory=dict, description="No ROS type.")

    with pytest.raises(ConfigError, match="dict"):
        declare_settings(make_node(), Wrong)


def test_a_list_that_two_nodes_share_is_written_twice(make_node, tmp_path):
    """A YAML alias would be the shorter form, and rcl refuses the whole file for it."""
    file = tmp_path / "params.yaml"
    names = ["front", "rear"]
    write_parameters_file(file, {"tested": {"names": names}, "other": {"names": names}})
    node = make_node("--params-file", file)
    assert declare_settings(node, Outer).names == names
