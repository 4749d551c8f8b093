"""The oracle in process: every query answered by the label of its stamp, and nothing that confuses it ends it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from rclpy.lifecycle import TransitionCallbackReturn
from ros_fixtures import Bench, assert_same, footprint, night
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ssada_ros import qos
from ssada_ros.conversions import fill_image, make_header
from ssada_ros.oracle_node import OracleNode

pytestmark = pytest.mark.ros

OK = TransitionCallbackReturn.SUCCESS
STAMP = 1_700_000_000_123_456_789


class Topics:
    """A camera's ground truth, and an adaptation that asks."""

    def __init__(self, bench):
        create = bench.watcher.create_publisher
        self.labels = create(Image, "camera/label", qos.reliable_profile(depth=16))
        self.queries = create(Image, "ssada/query", qos.query_profile(depth=20))
        self.results = create(String, "ssada/annotation_result", qos.reliable_profile(depth=16))
        self.answers = bench.watch(Image, "ssada/annotation", qos.reliable_profile(depth=50))

    def truth(self, index):
        self.labels.publish(fill_image(Image(), night(index)[1], "mono8", make_header(STAMP + index, "front")))

    def ask(self, index, name=None):
        self.queries.publish(
            fill_image(Image(), night(index)[0], "bgr8", make_header(STAMP + index, name or f"q{index}"))
        )


@pytest.fixture
def bench(ros_domain):
    made = []

    def make(**parameters):
        b = Bench(OracleNode, **parameters)
        made.append(b)
        b.node.trigger_configure()
        b.node.trigger_activate()
        b.topics = Topics(b)
        b.until(lambda: b.topics.labels.get_subscription_count() and b.topics.queries.get_subscription_count())
        b.until(b.node.answers.publisher.get_subscription_count)
        return b

    yield make
    for one in made:
        one.__exit__()


def known(b, *indices):
    for index in indices:
        b.topics.truth(index)
    b.until(lambda: all(STAMP + index in b.node._labels for index in indices))


def test_a_query_is_answered_by_the_label_of_its_stamp(bench):
    b = bench()
    known(b, 0, 1, 2)
    b.topics.ask(1)
    b.topics.ask(2)
    b.until(lambda: len(b.topics.answers) == 2)
    for index, answer in zip((1, 2), b.topics.answers, strict=True):
        assert answer.header == make_header(STAMP + index, f"q{index}")
        assert answer.encoding == "mono8"
        assert_same(answer, night(index)[1])


def test_a_query_published_again_is_answered_again_within_the_limit(bench):
    b = bench(answers=2)
    known(b, 0, 1, 2)
    for index in (0, 1, 2):
        b.topics.ask(index)
    b.until(lambda: len(b.topics.answers) == 2)
    b.topics.ask(1)  # its reader was killed before the label was stored
    b.until(lambda: len(b.topics.answers) == 3)
    b.spin(0.5)
    assert [answer.header.frame_id for answer in b.topics.answers] == ["q0", "q1", "q1"]


def test_an_answer_is_given_again_until_it_is_acknowledged(bench, monkeypatch):
    """The first one is lost where its reader was not yet discovered."""
    monkeypatch.setattr("ssada_ros.answering.AGAIN_S", 0.3)
    b = bench()
    known(b, 0)
    b.topics.ask(0)
    b.until(lambda: len(b.topics.answers) >= 3)
    assert {answer.header.frame_id for answer in b.topics.answers} == {"q0"}
    b.until(b.topics.results.get_subscription_count)
    b.topics.results.publish(String(data='{"query_id": "q0", "status": "accepted", "why": ""}'))
    b.until(lambda: not b.node._pending)
    b.spin(0.3)  # what was on its way
    given = len(b.topics.answers)
    b.spin(1.0)
    assert len(b.topics.answers) == given


def test_a_query_without_ground_truth_is_said_and_passed_over(bench, capfd):
    b = bench()
    known(b, 0)
    b.topics.ask(7)
    b.topics.ask(0)
    b.until(lambda: b.topics.answers)
    assert [answer.header.frame_id for answer in b.topics.answers] == ["q0"]
    assert "query q7: no ground truth with its stamp was seen" in capfd.readouterr().err


def test_only_so_many_labels_are_kept_the_oldest_go_first(bench):
    b = bench(memory=2)
    known(b, 0, 1)
    b.topics.truth(2)
    b.until(lambda: STAMP + 2 in b.node._labels)
    assert list(b.node._labels) == [STAMP + 1, STAMP + 2]


def test_what_is_no_label_and_no_json_does_not_end_it(bench, capfd):
    b = bench()
    colour = np.zeros((4, 4, 3), np.uint8)
    b.topics.labels.publish(fill_image(Image(), colour, "bgr8", make_header(STAMP, "front")))
    for text in ("nonsense", "[1]", '{"query_id": "q0", "status": "held", "why": "look again"}'):
        b.topics.results.publish(String(data=text))
    known(b, 0)
    b.topics.ask(0)
    b.until(lambda: b.topics.answers)
    said = capfd.readouterr().err
    assert "camera/label: " in said
    assert said.count("ssada/annotation_result: ") == 2
    assert "label q0: held look again" in said


def test_transitions_again_and_again_and_silent_while_inactive(bench):
    b = bench()
    active = footprint(b.node)
    known(b, 0)
    assert b.node.trigger_deactivate() == OK
    inactive = footprint(b.node)
    assert inactive["subscriptions"] == []
    b.topics.ask(0)
    b.spin(0.5)
    assert b.topics.answers == []
    assert b.node.trigger_activate() == OK
    assert footprint(b.node) == active
    b.until(lambda: b.topics.answers)  # queries are latched, and the label is still known
    b.node.trigger_deactivate()
    assert b.node.trigger_cleanup() == OK
    assert b.node._labels == {}
    for _ in range(2):
        assert b.node.trigger_configure() == OK
        assert footprint(b.node) == inactive
        assert b.node.trigger_activate() == OK
        assert footprint(b.node) == active
        assert b.node.trigger_deactivate() == OK
        assert b.node.trigger_cleanup() == OK
