"""Nodes among hostile neighbours: no topic and no parameter makes them read or write elsewhere, or end."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_fixtures import Bench, make_registry, night
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ssada_ros import qos
from ssada_ros.adaptation_node import AdaptationNode
from ssada_ros.conversions import fill_image, make_header
from ssada_ros.segmentation_node import SegmentationNode

pytestmark = pytest.mark.ros

OK = TransitionCallbackReturn.SUCCESS
STAMP = 1_700_000_000_123_456_789
EVIL_VERSIONS = ["../outside", "/etc", "..", ".", "", "v0001/../../outside", "v0001/.", "x" * 100_000]
EVIL_MESSAGES = ["", "{", "null", "[]", '"v0002"', '{"version": 3}', '{"version": null}', "[" * 100_000, "9" * 5_000]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_registry(tmp_path_factory.mktemp("registry"), seeds=(0, 1))


@pytest.fixture
def place(tmp_path, template):
    """A vehicle's folder with a model, and beside it another model that nobody configured."""
    shutil.copytree(template.root, tmp_path / "vehicle" / "registry")
    shutil.copytree(template.root / "v0002", tmp_path / "vehicle" / "outside")
    return tmp_path / "vehicle"


@pytest.fixture
def segmentation(ros_domain, place):
    with Bench(SegmentationNode, model=place / "registry", engine__backend="torch", engine__threads=1) as b:
        assert b.node.trigger_configure() == OK
        assert b.node.trigger_activate() == OK
        yield b


@pytest.fixture
def adaptation(ros_domain, place):
    folders = {name: place / name.removesuffix("_dir") for name in ("registry_dir", "pool_dir", "rounds_dir")}
    with Bench(AdaptationNode, **folders, engine__backend="torch", engine__threads=1, nice=0) as b:
        assert b.node.trigger_configure() == OK
        assert b.node.trigger_activate() == OK
        yield b


def files(folder):
    """Everything below a folder that matters: databases change by being open."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "sqlite" not in path.name)


def test_only_versions_of_its_own_registry_are_loaded(segmentation, place):
    b, before = segmentation, files(place)
    latched = b.watcher.create_publisher(String, "ssada/promoted", qos.latched_profile())
    b.until(latched.get_subscription_count)
    for text in EVIL_MESSAGES:
        latched.publish(String(data=text))
        b.spin(0.05)
    for version in EVIL_VERSIONS:
        b.node._slot.last_error = ""
        latched.publish(String(data=json.dumps({"version": version})))
        b.until(lambda: b.node._slot.last_error)
        assert "no model version" in b.node._slot.last_error
        assert b.node._slot.version == "v0001"
    assert files(place) == before
    latched.publish(String(data=json.dumps({"version": "v0002"})))  # an honest one is still heard
    b.until(lambda: b.node._slot._ready is not None and b.node._slot._ready.version == "v0002")


@pytest.mark.parametrize(
    "query_id", ["", "../outside", "/etc/passwd", "q000001/../../x", "'; DROP TABLE frames; --", "x" * 10_000]
)
def test_a_label_for_a_query_that_never_was_is_refused_and_leaves_nothing(adaptation, place, query_id):
    b, before = adaptation, files(place)
    results = b.watch(String, "ssada/annotation_result", qos.reliable_profile(depth=20))
    answers = b.watcher.create_publisher(Image, "ssada/annotation", qos.reliable_profile(depth=20))
    b.until(lambda: answers.get_subscription_count() and b.node._results.get_subscription_count())
    answers.publish(fill_image(Image(), night(0)[1], "mono8", make_header(STAMP, query_id)))
    b.until(lambda: results)
    result = json.loads(results[0].data)
    assert (result["status"], result["query_id"]) == ("refused", query_id)
    assert files(place) == before
    assert b.where == "active"


def test_a_label_that_lies_about_its_size_is_refused(adaptation):
    b = adaptation
    results = b.watch(String, "ssada/annotation_result", qos.reliable_profile(depth=20))
    answers = b.watcher.create_publisher(Image, "ssada/annotation", qos.reliable_profile(depth=20))
    b.until(lambda: answers.get_subscription_count() and b.node._results.get_subscription_count())
    message = fill_image(Image(), np.zeros((4, 4), np.uint8), "mono8", make_header(STAMP, "q1"))
    for height, width, step in [(2**32 - 1, 2**32 - 1, 2**32 - 1), (0, 0, 0), (4, 4, 0), (60_000, 60_000, 60_000)]:
        message.height, message.width, message.step = height, width, step
        answers.publish(message)
    b.until(lambda: len(results) == 4)
    assert {json.loads(result.data)["status"] for result in results} == {"refused"}
    assert b.where == "active"


@pytest.mark.parametrize("name", ["registry_dir", "pool_dir", "rounds_dir", "queries_dir", "labels_dir", "source_pack"])
def test_no_neighbour_can_send_the_adaptation_to_another_folder(adaptation, place, name):
    b, before = adaptation, files(place.parent)
    answer = set_parameter(b, "adaptation_node", name, str(place.parent / "elsewhere"))
    assert not answer.successful
    assert answer.reason
    assert b.node.get_parameter(name).value == str(getattr(b.node.settings, name))
    assert files(place.parent) == before


@pytest.mark.parametrize(("name", "value"), [("model", "outside"), ("cameras", ["/other"]), ("engine.backend", "onnx")])
def test_no_neighbour_can_give_the_segmentation_another_model(segmentation, name, value):
    b = segmentation
    assert not set_parameter(b, "segmentation_node", name, value).successful
    assert b.node._slot.version == "v0001"


def set_parameter(b, node, name, value):
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return b.call(SetParameters, f"{node}/set_parameters", request).results[0]
