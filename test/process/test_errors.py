"""What real processes answer when something is wrong: one line that says what to do, and the right exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_fixtures import SIZE, make_registry, newest, night, ros_arguments
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ssada_core.data.bags import START_NS, BagFrame, write_bag
from ssada_ros import qos
from ssada_ros.conversions import fill_image, make_header

pytestmark = pytest.mark.ros

FAILED, WRONG_USE = 1, 2


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return make_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "drive"
    write_bag(path, (BagFrame(START_NS + i * 10**8, "front", night(i)[0]) for i in range(3)), compressed=False)
    return path


@pytest.fixture
def run(ros_domain):
    """Start a node as a process of its own."""
    started = []

    def start(node, *extra, **parameters):
        dotted = {name.replace("__", "."): value for name, value in parameters.items()}
        command = [sys.executable, "-m", f"ssada_ros.{node}", *ros_arguments(dotted), *map(str, extra)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def watcher(ros_domain):
    rclpy.init(args=[])
    node = rclpy.create_node("watcher")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def keep(node, kind, topic, profile):
    kept = []
    node.create_subscription(kind, topic, kept.append, profile)
    return kept


def until(node, condition, seconds=60.0, every=None):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        if every is not None:
            every()
        rclpy.spin_once(node, timeout_sec=0.05)


def complaints(said):
    return [line for line in said.splitlines() if "[ERROR]" in line or "[FATAL]" in line]


def segmentation(registry, **parameters):
    return {"model": registry.root, "engine__backend": "torch", "engine__threads": 1, **parameters}


def adaptation(registry, folder, **parameters):
    return {
        "registry_dir": registry.root,
        "pool_dir": folder / "pool",
        "rounds_dir": folder / "rounds",
        "engine__backend": "torch",
        "engine__threads": 1,
        **parameters,
    }


@pytest.mark.parametrize(
    ("node", "parameters", "status", "words"),
    [
        ("segmentation_node", {"model": "/nowhere/registry"}, FAILED, "no model '/nowhere/registry': give a model dir"),
        ("segmentation_node", {"cameras": "['']"}, WRONG_USE, "'' is no topic name"),
        ("segmentation_node", {"silence_s": -1.0}, WRONG_USE, "'silence_s' is -1.0"),
        (
            "segmentation_node",
            {"regions": "[0.0, 0.5, 1.0, 1.0, 0.0]"},
            WRONG_USE,
            "regions has 5 numbers for 1 camera",
        ),
        ("adaptation_node", {"regions": "[0.0, 0.5, 1.0, 0.5]"}, WRONG_USE, "0, 0.5, 1, 0.5 is no part of a frame"),
        ("segmentation_node", {"mask_reliability": "most"}, WRONG_USE, "'mask_reliability' is 'most'"),
        ("adaptation_node", {"registry_dir": "EMPTY"}, FAILED, "has no current model: promote"),
        ("adaptation_node", {"cycle__buget": 3}, WRONG_USE, "'cycle.buget' (did you mean 'cycle.budget'?)"),
        ("camera_node", {"source": "bagg:/x"}, WRONG_USE, "'bagg"),
        ("camera_node", {"source": "bag:/nowhere"}, FAILED, "/nowhere"),
        ("camera_node", {"source": "video:/nowhere.mp4"}, FAILED, "/nowhere.mp4"),
        ("oracle_node", {"answer": 3}, WRONG_USE, "'answer' (did you mean 'answers'?)"),
    ],
)
def test_one_line_and_the_right_status(run, tmp_path, registry, node, parameters, status, words):
    here = {"registry_dir": tmp_path / "registry", "pool_dir": tmp_path / "p", "rounds_dir": tmp_path / "r"}
    given = {name: here["registry_dir"] if value == "EMPTY" else value for name, value in parameters.items()}
    if node == "segmentation_node":
        given = {"model": registry.root, **given}
    process = run(node, **given)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == status, said
    assert len(complaints(said)) == 1, said
    assert words in complaints(said)[0]
    assert "Traceback" not in said


def test_stored_files_of_another_release_are_no_wrong_parameters(run, registry, tmp_path):
    (tmp_path / "rounds").mkdir()
    (tmp_path / "rounds" / "cycle.json").write_text('{"phase": "dreaming"}')
    process = run("adaptation_node", **adaptation(registry, tmp_path))
    said, _ = process.communicate(timeout=240)
    assert process.returncode == FAILED, said
    assert "stored cycle state has phase 'dreaming'" in complaints(said)[0]


def test_a_bag_without_the_topic_says_which_it_has(run, bag):
    process = run("camera_node", source=f"bag:{bag}", topic="/front/image")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == FAILED, said
    (line,) = complaints(said)
    assert "/front/image" in line
    assert "/camera/image" in line


@pytest.mark.parametrize("node", ["segmentation_node", "adaptation_node"])
def test_a_misspelt_key_in_a_params_file_is_named_with_the_nearest(run, tmp_path, node):
    file = tmp_path / "params.yaml"
    file.write_text(f"/**/{node}:\n  ros__parameters:\n    camera_relability: reliable\n")
    process = run(node, "--params-file", file)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == WRONG_USE, said
    (line,) = complaints(said)
    assert "unknown parameter 'camera_relability' (did you mean 'camera_reliability'?)" in line


def test_a_camera_that_does_not_come_is_reported_in_log_and_diagnostics(run, watcher, registry):
    arrays = keep(watcher, DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    other = watcher.create_publisher(Image, "front/image_raw", qos.latest_profile(reliability="best_effort"))
    process = run("segmentation_node", camera_reliability="reliable", **segmentation(registry))
    until(watcher, lambda: newest(arrays, ": camera"))
    since = time.monotonic()

    def reported():
        return newest(arrays, ": camera").level == DiagnosticStatus.ERROR

    until(watcher, reported)
    assert time.monotonic() - since < 8.0  # within 5 s, and what a busy machine adds
    message = newest(arrays, ": camera").message
    assert "/camera/image (reliable): these image topics exist" in message
    assert "/front/image_raw [Image, best effort, volatile]" in message
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert f"[WARN]{said.partition('[WARN]')[2].splitlines()[0]}".endswith(message)
    watcher.destroy_publisher(other)


def test_incompatible_qos_is_said_with_the_parameter_to_set(run, watcher, registry):
    camera = watcher.create_publisher(Image, "camera/image", qos.latest_profile(reliability="best_effort"))
    process = run("segmentation_node", camera_reliability="reliable", **segmentation(registry))
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "less reliability" in line:
            break
    assert "set the parameter 'camera_reliability' to best_effort" in lines[-1], lines
    watcher.destroy_publisher(camera)


def test_a_label_of_another_size_is_refused_with_the_reason(run, watcher, registry, tmp_path):
    process = run(
        "adaptation_node",
        **adaptation(
            registry,
            tmp_path,
            pool__rate=100.0,
            pool__duplicate_threshold=0.0,
            pool__standstill_threshold=0.0,
            pool__keep_free_share=0.0,
            cycle__budget=2,
            cycle__batch=2,
            cycle__max_open=2,
            cycle__min_frames=4,
        ),
    )
    queries = keep(watcher, Image, "ssada/query", qos.query_profile(depth=10))
    results = keep(watcher, String, "ssada/annotation_result", qos.reliable_profile(depth=10))
    camera = watcher.create_publisher(Image, "camera/image", qos.camera_publisher_profile())
    labels = watcher.create_publisher(Image, "ssada/annotation", qos.reliable_profile(depth=10))
    sent = [0]

    def drive():
        header = make_header(START_NS + sent[0] * 10**9, "front")
        camera.publish(fill_image(Image(), night(sent[0])[0], "bgr8", header))
        sent[0] += 1

    until(watcher, lambda: queries and labels.get_subscription_count(), every=drive)
    half = np.zeros((SIZE[0] // 2, SIZE[1] // 2), np.uint8)
    labels.publish(fill_image(Image(), half, "mono8", queries[0].header))
    until(watcher, lambda: results)
    result = json.loads(results[0].data)
    assert (result["query_id"], result["status"]) == (queries[0].header.frame_id, "refused")
    assert str(SIZE[1]) in result["why"]
    assert str(SIZE[1] // 2) in result["why"]
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert f"label for {queries[0].header.frame_id} refused" in said
