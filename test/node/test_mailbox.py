"""The mailbox: latest frame only, cameras in turn, every loss counted."""

from __future__ import annotations

import threading
import time

import pytest

from ssada_ros.mailbox import CameraCounts, Delivery, FrameMailbox

NOW = 0.0


def frame(camera, number):
    return Delivery(camera, bytes([number]), number)


def test_a_newer_frame_replaces_the_one_that_waits_and_the_loss_is_counted():
    mailbox = FrameMailbox(["a"])
    for number in (1, 2, 3):
        mailbox.put(frame("a", number))
    assert mailbox.take(NOW) == frame("a", 3)
    assert mailbox.take(NOW) is None
    assert mailbox.counts("a") == CameraCounts(received=3, dropped=2, last_ns=3)
    mailbox.put(frame("a", 4))
    assert mailbox.take(NOW) == frame("a", 4)
    assert mailbox.counts("a") == CameraCounts(received=4, dropped=2, last_ns=4)


def test_a_fast_camera_does_not_starve_the_others():
    mailbox = FrameMailbox(["a", "b", "c"])
    served = []
    for number in range(12):
        mailbox.put(frame("a", number))
        if number < 2:
            mailbox.put(frame("b", number))
            mailbox.put(frame("c", number))
        served.append(mailbox.take(NOW).camera)
    assert served[:6] == ["a", "b", "c", "a", "a", "a"]
    assert mailbox.counts("c") == CameraCounts(received=2, dropped=1, last_ns=1)


def test_the_turn_goes_on_after_the_camera_served_last():
    mailbox = FrameMailbox(["a", "b"])
    mailbox.put(frame("b", 1))
    assert mailbox.take(NOW).camera == "b"
    mailbox.put(frame("b", 2))
    mailbox.put(frame("a", 2))
    assert [mailbox.take(NOW).camera for _ in range(2)] == ["a", "b"]


def served_while_all_wait(mailbox, cameras, count):
    """Who is served when every camera always has a frame waiting."""
    served = []
    for number in range(count):
        for camera in cameras:
            mailbox.put(frame(camera, number % 256))
        served.append(mailbox.take(NOW).camera)
    return served


def test_a_camera_is_served_by_its_weight():
    mailbox = FrameMailbox(["a", "b", "c"])
    mailbox.set_weights({"a": 3.0, "b": 2.0, "c": 1.0})
    served = served_while_all_wait(mailbox, "abc", 600)
    assert [served.count(camera) for camera in "abc"] == [300, 200, 100]
    # and not in bursts: in any 12 turns each has about its share
    assert all(1 <= served[start : start + 12].count("c") <= 3 for start in range(588))
    mailbox.set_weights({"a": 1.0, "b": 1.0, "c": 1.0})
    served = served_while_all_wait(mailbox, "abc", 300)
    assert [served.count(camera) for camera in "abc"] == [pytest.approx(100, abs=2)] * 3


def test_who_was_away_does_not_catch_up():
    mailbox = FrameMailbox(["a", "b"])
    served_while_all_wait(mailbox, "a", 100)
    served = served_while_all_wait(mailbox, "ab", 20)
    assert [served.count(camera) for camera in "ab"] == [pytest.approx(10, abs=1)] * 2


def test_the_rate_is_held_by_each_camera_whatever_it_sends():
    mailbox = FrameMailbox(["fast", "slow"])
    mailbox.set_rate(5.0)
    for tick in range(1000):  # ten seconds
        mailbox.put(Delivery("fast", b"", tick * 10_000_000))  # 100 Hz
        if tick % 20 == 0:  # 5 Hz, 30 ms early and late in turn
            mailbox.put(Delivery("slow", b"", (tick * 10 + (30 if tick % 40 else -30)) * 1_000_000))
        mailbox.take(NOW)
        mailbox.take(NOW)
    fast, slow = mailbox.counts("fast"), mailbox.counts("slow")
    assert fast.received - fast.limited == pytest.approx(50, abs=1)
    assert (slow.received, slow.limited, slow.dropped) == (50, 0, 0)
    mailbox.set_rate(0.0)
    mailbox.put(Delivery("fast", b"", 10_000_000_001))
    mailbox.put(Delivery("fast", b"", 10_000_000_002))
    assert mailbox.counts("fast").limited == fast.limited


def test_who_waits_is_woken_by_a_frame():
    mailbox = FrameMailbox(["a"])
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(mailbox.take(30.0)))
    waiting.start()
    time.sleep(0.05)
    mailbox.put(frame("a", 1))
    waiting.join(timeout=10)
    assert taken == [frame("a", 1)]


def test_who_waits_is_woken_by_the_end_and_nothing_comes_after_it():
    mailbox = FrameMailbox(["a"])
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(mailbox.take(30.0)))
    waiting.start()
    time.sleep(0.05)
    mailbox.close()
    waiting.join(timeout=10)
    assert taken == [None]
    mailbox.put(frame("a", 1))
    assert mailbox.take(NOW) is None
    assert mailbox.counts("a").received == 0


def test_nothing_is_lost_or_counted_twice_between_threads():
    mailbox = FrameMailbox(["a", "b"])
    served = []

    def serve():
        while (delivery := mailbox.take(0.2)) is not None:
            served.append(delivery)

    server = threading.Thread(target=serve)
    server.start()
    putters = [
        threading.Thread(target=lambda c=camera: [mailbox.put(frame(c, number % 256)) for number in range(2000)])
        for camera in ("a", "b")
    ]
    for putter in putters:
        putter.start()
    for thread in (*putters, server):
        thread.join(timeout=30)
    for camera in ("a", "b"):
        counts = mailbox.counts(camera)
        assert counts.received == 2000
        assert counts.dropped + sum(delivery.camera == camera for delivery in served) == 2000


def test_an_unknown_camera_is_an_error():
    with pytest.raises(KeyError):
        FrameMailbox(["a"]).put(frame("b", 1))
