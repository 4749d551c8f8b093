"""The example annotator: questions become files, files become answers, today or days later."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from rclpy.lifecycle import TransitionCallbackReturn
from ros_fixtures import Bench, assert_same, footprint, night
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ssada_core.data.encodings import decode_compressed, encode_png
from ssada_ros import qos
from ssada_ros.annotator_node import AnnotatorNode
from ssada_ros.conversions import fill_image, make_header

pytestmark = pytest.mark.ros
STAMP = 1_700_000_000_123_456_789


@pytest.fixture
def desk(ros_domain, tmp_path):
    made = []

    def make():
        b = Bench(AnnotatorNode, folder=tmp_path / "desk", period_s=0.1)
        made.append(b)
        b.node.trigger_configure()
        b.node.trigger_activate()
        b.folder = tmp_path / "desk"
        b.queries = b.watcher.create_publisher(Image, "ssada/query", qos.query_profile(depth=20))
        b.results = b.watcher.create_publisher(String, "ssada/annotation_result", qos.reliable_profile(depth=16))
        b.answers = b.watch(Image, "ssada/annotation", qos.reliable_profile(depth=50))
        b.until(b.queries.get_subscription_count)
        b.until(b.results.get_subscription_count)
        b.until(b.node.answers.publisher.get_subscription_count)
        return b

    yield make
    for one in made:
        one.__exit__()


def ask(b, name, index=0):
    b.queries.publish(fill_image(Image(), night(index)[0], "bgr8", make_header(STAMP + index, name)))
    b.until((b.folder / f"{name}.json").exists)


def result(b, **values):
    b.results.publish(String(data=json.dumps(values)))


def test_a_question_is_put_down_and_its_answer_goes_back_with_its_header_until_it_is_heard(desk, monkeypatch):
    monkeypatch.setattr("ssada_ros.answering.AGAIN_S", 0.3)
    b = desk()
    ask(b, "abcdef-000001", 1)
    frame = decode_compressed((b.folder / "abcdef-000001.jpg").read_bytes())
    assert np.abs(frame.astype(int) - night(1)[0]).mean() < 6
    (b.folder / "abcdef-000001.png").write_bytes(encode_png(night(1)[1]))
    b.until(lambda: len(b.answers) > 1)
    for answer in b.answers:
        assert answer.header == make_header(STAMP + 1, "abcdef-000001")
        assert_same(answer, night(1)[1])
    result(b, query_id="abcdef-000001", status="held", why="look again")
    b.until((b.folder / "held" / "abcdef-000001.png").exists)
    b.until((b.folder / "held" / "abcdef-000001.txt").exists)
    assert (b.folder / "held" / "abcdef-000001.txt").read_text() == "look again\n"
    b.spin(0.3)  # what was on its way
    given = len(b.answers)
    b.spin(0.7)
    assert len(b.answers) == given


def test_an_answer_days_later_needs_no_question_again(desk):
    b = desk()
    b.folder.mkdir(exist_ok=True)
    # What an earlier run of the node left, and what somebody drew since.
    (b.folder / "abcdef-000007.json").write_text(json.dumps({"stamp_ns": STAMP}))
    (b.folder / "abcdef-000007.png").write_bytes(encode_png(night(0)[1]))
    b.until(lambda: b.answers)
    assert b.answers[0].header == make_header(STAMP, "abcdef-000007")
    result(b, query_id="abcdef-000007", status="accepted", why="")
    b.until((b.folder / "accepted" / "abcdef-000007.png").exists)


def test_what_is_no_answer_waits_and_names_never_leave_the_folder(desk):
    b = desk()
    for name in ("../outside", "a/b", "", "x" * 65):
        b.queries.publish(fill_image(Image(), night(0)[0], "bgr8", make_header(STAMP, name)))
    ask(b, "abcdef-000001")
    (b.folder / "abcdef-000001.png").write_bytes(encode_png(night(0)[1])[:100])  # still being written
    (b.folder / "stranger.png").write_bytes(encode_png(night(0)[1]))
    result(b, query_id="../../x", status="accepted", why="")
    b.results.publish(String(data="nonsense"))
    b.spin(0.5)
    assert b.answers == []
    assert sorted(path.name for path in b.folder.parent.rglob("*.jp*g")) == ["abcdef-000001.jpg"]
    (b.folder / "abcdef-000001.png").write_bytes(encode_png(night(0)[1]))
    b.until(lambda: b.answers)


def test_transitions_again_and_again(desk):
    b = desk()
    active = footprint(b.node)
    for _ in range(2):
        assert b.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert footprint(b.node)["subscriptions"] == []
        assert b.node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert b.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert b.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert footprint(b.node) == active
