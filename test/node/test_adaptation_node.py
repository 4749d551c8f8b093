"""The adaptation node in process: every transition and every service, repeated, out of order and failing."""

from __future__ import annotations

import errno
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress

import numpy as np
import psutil
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from ros_fixtures import SIZE, Bench, footprint, make_registry, newest, night, values_of
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from ssada_core.data.encodings import encode_png
from ssada_core.errors import BackendError
from ssada_core.labels import CAMVID
from ssada_core.store.files import DiskFullError
from ssada_core.store.pool import FramePool, PoolSettings
from ssada_core.store.registry import ModelRegistry
from ssada_ros import qos
from ssada_ros.adaptation_node import AdaptationNode
from ssada_ros.conversions import fill_image, make_header

pytestmark = pytest.mark.ros

OK, FAILURE, ERROR = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.ERROR
STAMP = 1_700_000_000_123_456_789
SERVICES = ("adapt", "rollback", "confirm", "refuse")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_registry(tmp_path_factory.mktemp("registry"), seeds=(0, 1))


@pytest.fixture
def bench(ros_domain, template, tmp_path):
    made = []
    shutil.copytree(template.root, tmp_path / "registry", dirs_exist_ok=True)

    def make(**parameters):
        given = {
            "registry_dir": tmp_path / "registry",
            "pool_dir": tmp_path / "pool",
            "rounds_dir": tmp_path / "rounds",
            "engine__backend": "torch",
            "engine__threads": 1,
            "nice": 0,
            "pool__rate": 100.0,
            "pool__duplicate_threshold": 0.0,
            "pool__standstill_threshold": 0.0,
            "pool__keep_free_share": 0.0,
            "cycle__budget": 4,
            "cycle__batch": 4,
            "cycle__max_open": 4,
            "cycle__min_frames": 6,
            "cycle__new_labels": 100,
            "acquisition__audit_every": 2,
            **parameters,
        }
        made.append(Bench(AdaptationNode, **given))
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


def started(b):
    assert b.node.trigger_configure() == OK
    assert b.node.trigger_activate() == OK
    return b


class Drive:
    """Publishes simulated night frames with growing stamps, ten a second."""

    def __init__(self, b, topic="camera/image"):
        self.publisher = b.watcher.create_publisher(Image, topic, qos.camera_publisher_profile())
        self.sent = 0
        self.last = 0.0

    def __call__(self):
        if time.monotonic() - self.last > 0.1:
            self.last = time.monotonic()
            header = make_header(STAMP + self.sent * 500_000_000, "front")
            self.publisher.publish(fill_image(Image(), night(self.sent)[0], "bgr8", header))
            self.sent += 1


class Human:
    """Sees queries and results, sends labels."""

    def __init__(self, b):
        self.queries = b.watch(Image, "ssada/query", qos.query_profile(depth=20))
        self.results = b.watch(String, "ssada/annotation_result", qos.reliable_profile(depth=20))
        self.annotation = b.watcher.create_publisher(Image, "ssada/annotation", qos.reliable_profile(depth=20))

    def ready(self):
        return self.annotation.get_subscription_count() > 0

    def answer(self, query, label, encoding="mono8"):
        self.annotation.publish(fill_image(Image(), label, encoding, query.header))

    def verdicts(self):
        return {one["query_id"]: one for one in map(json.loads, (message.data for message in self.results))}


def truth_of(query):
    stamp_ns = query.header.stamp.sec * 10**9 + query.header.stamp.nanosec
    index, rest = divmod(stamp_ns - STAMP, 500_000_000)
    assert rest == 0  # the stamp is the frame's, to the nanosecond
    return night(index)


def asked(b):
    """Drive until a batch of queries is out."""
    human, drive = Human(b), Drive(b)
    b.until(lambda: len(human.queries) >= 4 and human.ready(), every=drive)
    return human


# -- transitions ---------------------------------------------------------------------------------


def test_every_transition_gives_back_what_it_took_again_and_again(bench):
    b = bench()
    unconfigured = footprint(b.node)
    inactive = active = None
    for _ in range(2):
        assert b.node.trigger_configure() == OK
        inactive = inactive or footprint(b.node)
        for _ in range(2):
            assert footprint(b.node) == inactive
            assert b.node.trigger_activate() == OK
            active = active or footprint(b.node)
            assert footprint(b.node) == active
            b.spin(0.3)
            assert b.node.trigger_deactivate() == OK
        assert footprint(b.node) == inactive
        assert b.node.trigger_cleanup() == OK
        assert footprint(b.node) == unconfigured
    assert active["threads"] == ["adaptation"]
    assert b.node.trigger_shutdown() == OK


def test_transitions_out_of_order_are_refused_and_change_nothing(bench):
    b = bench()
    before = footprint(b.node)
    for name in ("trigger_activate", "trigger_deactivate", "trigger_cleanup"):
        assert getattr(b.node, name)() == ERROR
    assert (b.where, footprint(b.node)) == ("unconfigured", before)
    started(b)
    before = footprint(b.node)
    for name in ("trigger_configure", "trigger_activate", "trigger_cleanup"):
        assert getattr(b.node, name)() == ERROR
    assert (b.where, footprint(b.node)) == ("active", before)


def test_a_failing_configure_leaves_nothing_and_can_be_tried_again(bench, tmp_path):
    current = tmp_path / "registry" / "current"
    content = current.read_bytes()
    current.unlink()
    b = bench()
    before = footprint(b.node)
    for _ in range(2):
        assert b.node.trigger_configure() == FAILURE
        assert "has no current model" in str(b.node.failure)
        assert (b.where, footprint(b.node)) == ("unconfigured", before)
    current.write_bytes(content)
    assert b.node.trigger_configure() == OK


def test_a_pool_that_was_opened_is_closed_if_the_rest_fails(bench, tmp_path):
    b = bench(queries_dir=tmp_path / "queries")
    before = footprint(b.node)
    assert b.node.trigger_configure() == FAILURE
    assert "queries_dir and labels_dir belong together" in str(b.node.failure)
    assert footprint(b.node) == before
    with FramePool(tmp_path / "pool", PoolSettings(), label_space=CAMVID) as pool:
        assert pool.frames() == []


# -- services ------------------------------------------------------------------------------------


def call(b, name):
    response = b.call(Trigger, f"/adaptation_node/{name}")
    return response.success, response.message


def test_services_say_why_not(bench):
    b = bench()
    b.node.trigger_configure()
    for name in SERVICES:
        success, words = call(b, name)
        assert not success
        assert "is not active: run its activate transition first" in words
    b.node.trigger_activate()
    expected = {
        "adapt": "no frame is labelled",
        "rollback": "nothing to roll back to",
        "confirm": "no version waits",
        "refuse": "no version waits",
    }
    for _ in range(2):
        for name, words in expected.items():
            success, said = call(b, name)
            assert not success
            assert words in said
    b.node.trigger_deactivate()
    assert not call(b, "adapt")[0]


def test_rollback_announces_the_version_and_works_once(bench, tmp_path):
    ModelRegistry(tmp_path / "registry").promote("v0002")
    b = bench()
    promoted = b.watch(String, "ssada/promoted", qos.latched_profile())
    started(b)
    b.until(lambda: promoted)
    assert json.loads(promoted[-1].data) == {"version": "v0002", "reason": "in use at the start"}
    assert call(b, "rollback") == (True, "v0001")
    b.until(lambda: len(promoted) == 2)
    assert json.loads(promoted[-1].data)["version"] == "v0001"
    assert ModelRegistry(tmp_path / "registry").current() == "v0001"
    assert not call(b, "rollback")[0]


def test_paused_nothing_is_stored_and_running_it_is(bench):
    b = started(bench(start_paused="true"))
    statuses = b.watch(String, "/adaptation_node/status", qos.latched_profile())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=20))
    drive = Drive(b)

    def stored():
        return json.loads(statuses[-1].data)["pool"]["buffered"] if statuses else 0

    b.until(lambda: drive.sent > 15 and statuses, every=drive)
    assert stored() == 0
    assert newest(arrays, ": work").message == "paused"
    pool = values_of(newest(arrays, ": pool"))
    assert 0 < float(pool["disk_free_percent"]) < 100
    assert (float(pool["fill_percent"]), pool["queries_open"]) == (0.0, "0")
    response = b.call(SetBool, "/adaptation_node/pause", SetBool.Request(data=False))
    assert (response.success, response.message) == (True, "running")
    b.until(lambda: stored() > 2, every=drive)
    for _ in range(2):
        response = b.call(SetBool, "/adaptation_node/pause", SetBool.Request(data=True))
        assert (response.success, response.message) == (True, "paused")
    assert json.loads(statuses[-1].data)["phase"] == "collecting"


# -- queries and labels --------------------------------------------------------------------------


def test_queries_are_the_frames_and_labels_are_kept_held_or_refused_with_a_reason(bench, tmp_path):
    b = started(bench())
    human = asked(b)
    for query in human.queries[:4]:
        assert query.encoding == "bgr8"
        image = np.frombuffer(query.data, np.uint8).reshape(query.height, query.width, 3)
        difference = np.abs(image.astype(int) - truth_of(query)[0]).mean()
        assert difference < 6  # stored as JPEG
    first, second, third, fourth = human.queries[:4]
    human.answer(first, truth_of(first)[1])
    human.answer(second, np.zeros((48, 80), np.uint8))
    human.answer(third, np.full(SIZE, 255, np.uint8))
    human.answer(fourth, np.full(SIZE, 77, np.uint8))
    stranger = fill_image(Image(), truth_of(first)[1], "mono8", make_header(0, "nobody-asked"))
    human.annotation.publish(stranger)
    human.answer(first, np.zeros((*SIZE, 3), np.uint8), "bgr8")
    b.until(lambda: len(human.results) == 6)
    said = {}
    for message in human.results:
        one = json.loads(message.data)
        said.setdefault(one["query_id"], []).append(one)
    assert sorted(one["status"] for one in said[first.header.frame_id]) == ["accepted", "refused"]
    for query, words in ((second, "80"), (third, "labelled"), (fourth, "77")):
        (one,) = said[query.header.frame_id]
        assert one["status"] == "refused"
        assert words in one["why"]
    assert said["nobody-asked"][0]["status"] == "refused"
    assert "nobody-asked" in said["nobody-asked"][0]["why"]
    b.node.trigger_deactivate()
    b.node.trigger_cleanup()
    with FramePool(tmp_path / "pool", PoolSettings(), label_space=CAMVID) as pool:
        (record,) = pool.frames(states=["labelled"])
        np.testing.assert_array_equal(pool.label(record), truth_of(first)[1])
        assert len(pool.frames(states=["queried"])) == 3


def test_a_constant_label_is_held_and_seen_in_the_diagnostics(bench):
    b = started(bench())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=20))
    human = asked(b)
    human.answer(human.queries[0], np.full(SIZE, 3, np.uint8))
    b.until(lambda: human.results)
    assert json.loads(human.results[0].data)["status"] == "held"
    b.until(lambda: newest(arrays, ": pool") and newest(arrays, ": pool").level == DiagnosticStatus.WARN)
    assert "1 labels are held" in newest(arrays, ": pool").message


def test_open_queries_are_asked_again_after_a_restart(bench):
    b = started(bench())
    human = asked(b)
    human.answer(human.queries[0], truth_of(human.queries[0])[1])
    b.until(lambda: human.results)
    asked_first = {query.header.frame_id for query in human.queries}
    answered = human.queries[0].header.frame_id
    b.node.trigger_deactivate()
    b.node.trigger_cleanup()
    later = b.watch(Image, "ssada/query", qos.query_profile(depth=20))
    started(b)
    b.until(lambda: len(later) >= 3)
    b.spin(0.5)
    assert {query.header.frame_id for query in later} == asked_first - {answered}
    (before,) = (query for query in human.queries[:4] if query.header.frame_id == later[0].header.frame_id)
    assert later[0] == before


def test_a_damaged_image_of_an_open_query_costs_this_query_only(bench, capfd):
    b = started(bench())
    asked(b)
    b.node.trigger_deactivate()
    pool = b.node._adapter.pool
    damaged, *others = pool.frames(states=["queried"])
    path = pool.root / damaged.image_file
    path.write_bytes(path.read_bytes()[:-500])
    assert b.node.trigger_cleanup() == OK
    later = b.watch(Image, "ssada/query", qos.query_profile(depth=20))
    started(b)
    b.until(lambda: len(later) >= len(others))
    b.node.on_queries([damaged, *others])  # as while it runs
    b.until(lambda: len(later) >= 2 * len(others))
    assert {query.header.frame_id for query in later} == {record.query_id for record in others}
    assert capfd.readouterr().err.count(f"query {damaged.query_id} is not asked") == 1


def test_a_label_that_cannot_be_stored_is_refused_not_swallowed(bench, monkeypatch):
    b = started(bench())
    human = asked(b)

    def full(*_, **__):
        raise DiskFullError("cannot write labels/1.png: the disk is full: free some space")

    with monkeypatch.context() as patch:
        patch.setattr("ssada_core.store.pool.FramePool.accept_label", full)
        human.answer(human.queries[0], truth_of(human.queries[0])[1])
        b.until(lambda: human.results)
    one = json.loads(human.results[0].data)
    assert (one["status"], "the disk is full" in one["why"]) == ("refused", True)
    human.answer(human.queries[0], truth_of(human.queries[0])[1])
    b.until(lambda: len(human.results) == 2)
    assert json.loads(human.results[1].data)["status"] == "accepted"


# -- what goes wrong -----------------------------------------------------------------------------


def test_frames_that_cannot_be_used_are_said_once_and_shown_and_labels_still_taken(bench, capfd):
    b = started(bench())
    human = asked(b)
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=20))
    publisher = b.watcher.create_publisher(Image, "camera/image", qos.camera_publisher_profile())
    strange = fill_image(Image(), night(0)[0], "bgr8", make_header(STAMP, "front"))
    strange.encoding = "octarine8"

    def warned():
        status = newest(arrays, ": work")
        return status is not None and status.level == DiagnosticStatus.WARN and "octarine8" in status.message

    b.until(warned, every=lambda: publisher.publish(strange))
    human.answer(human.queries[0], truth_of(human.queries[0])[1])
    b.until(lambda: human.results, every=lambda: publisher.publish(strange))
    assert json.loads(human.results[0].data)["status"] == "accepted"
    assert capfd.readouterr().err.count("octarine8") == 1


def test_a_dead_working_thread_ends_the_process_and_says_so(bench, monkeypatch):
    b = started(bench())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=20))
    b.until(lambda: arrays)

    def broken(*_, **__):
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr("ssada_core.adaptation.adapter.Adapter.tick", broken)
    with pytest.raises(ZeroDivisionError, match="nobody foresaw this"):
        b.until(lambda: False, seconds=20)
    b.until(lambda: newest(arrays, ": work").level == DiagnosticStatus.ERROR)
    assert "no more adaptation, the process ends: ZeroDivisionError" in newest(arrays, ": work").message
    assert b.node.trigger_deactivate() == OK
    assert b.node.trigger_cleanup() == OK


def test_a_backend_that_is_gone_ends_the_process_and_frames_wait_for_the_next(bench):
    b = started(bench())
    arrays = b.watch(DiagnosticArray, "/diagnostics", qos.reliable_profile(depth=50))
    drive = Drive(b)
    scorer = b.node._adapter._scorer
    b.until(scorer.candidates, every=drive)
    scorer._engine._graph.to("meta")  # as with a GPU that was lost, torch has no memory to compute on
    with pytest.raises(BackendError, match="torch cannot run the network"):
        b.until(lambda: False, every=drive, seconds=30)
    b.until(lambda: newest(arrays, ": work") and newest(arrays, ": work").level == DiagnosticStatus.ERROR)
    assert "no more adaptation, the process ends: BackendError" in newest(arrays, ": work").message
    assert b.node.trigger_deactivate() == OK
    assert b.node.trigger_cleanup() == OK


# -- the annotation page -------------------------------------------------------------------------


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def pages():
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # one that has just ended has no command line any more
            found += [child] if "ssada_core.annotation.serve" in child.cmdline() else []
    return found


def test_the_page_serves_the_pool_beside_the_node_comes_back_when_killed_and_goes_with_it(bench):
    port = free_port()
    b = started(bench(annotate__enabled=True, annotate__port=port))
    human = asked(b)
    address = f"http://127.0.0.1:{port}/api"

    def fetch(path, data=None):
        request = urllib.request.Request(f"{address}/{path}", data)
        with suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())
        return None

    b.until(lambda: (fetch("state") or {}).get("queries"))
    state = fetch("state")
    assert state["progress"]["budget"] == 4
    assert {query["id"] for query in state["queries"]} == {query.header.frame_id for query in human.queries}
    (before,) = pages()
    before.kill()
    b.until(lambda: before not in pages() and fetch("state"))
    first = human.queries[0]
    answer = fetch(f"queries/{first.header.frame_id}/label", encode_png(truth_of(first)[1]))
    assert answer["status"] == "accepted"
    assert b.node._adapter.status()["labels"] == 1  # as good as one over the topic
    b.node.trigger_deactivate()
    assert fetch("state")  # labels are given while nothing drives, too
    b.node.trigger_cleanup()
    assert pages() == []
    assert fetch("state") is None


def test_a_page_that_others_could_reach_without_a_token_is_refused(bench):
    b = bench(annotate__enabled=True, annotate__host="0.0.0.0")
    b.node.trigger_configure()
    assert b.where == "unconfigured"
    assert "there is no token" in str(b.node.failure)
    assert pages() == []


def test_a_page_that_cannot_be_started_for_the_moment_is_tried_again(bench, monkeypatch, capfd):
    port = free_port()
    start, refused = subprocess.Popen, []

    def short_of_memory(command, *rest, **options):
        if "ssada_core.annotation.serve" in command and not refused:
            refused.append(command)
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return start(command, *rest, **options)

    monkeypatch.setattr("ssada_core.annotation.page_process.subprocess.Popen", short_of_memory)
    b = started(bench(annotate__enabled=True, annotate__port=port))
    b.until(lambda: refused and pages())
    assert "it could not be started" in capfd.readouterr().err
    b.node.trigger_deactivate()
    b.node.trigger_cleanup()
    assert pages() == []
