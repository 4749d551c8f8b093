"""Rates and latencies, compared with values worked out by hand."""

from __future__ import annotations

import math

import pytest

from ssada_ros.statistics import WINDOW, StampWatch, Timing, TimingWindow

MS = 1_000_000
S = 1_000_000_000


def test_before_the_first_frame():
    assert TimingWindow().summary(5 * S) == Timing(0, 0.0, 0.0, 0.0, 0.0, 0.0, math.inf)


def test_rate_latency_and_age():
    window = TimingWindow()
    for index in range(11):  # every 100 ms from 0 to 1 s; latencies 10, 20, ... 110 ms
        done = index * 100 * MS
        window.add(done - (index + 1) * 10 * MS, done)
    timing = window.summary(S + 250 * MS)
    assert timing.frames == 11
    assert timing.rate_hz == pytest.approx(10 / 1.25)
    assert timing.p50_ms == pytest.approx(60.0)
    assert timing.p99_ms == pytest.approx(109.0)  # linear between the 10th and 11th of 11 values
    assert timing.age_s == pytest.approx(0.25)
    window.add(S, S + 300 * MS)  # the eleventh interval is three times as long
    timing = window.summary(S + 300 * MS)
    assert timing.interval_p50_ms == pytest.approx(100.0)
    assert timing.interval_p99_ms == pytest.approx(280.0)  # linear between 100 and 300, at 9.9 of 0 to 10
    assert timing.interval_max_ms == pytest.approx(300.0)


def test_a_camera_that_stops_does_not_keep_its_rate():
    window = TimingWindow()
    for index in range(50):
        window.add(0, index * 200 * MS)
    last = 49 * 200 * MS
    rates = [window.summary(last + pause * S).rate_hz for pause in (0, 2, 4, 11)]
    assert rates[0] == pytest.approx(5.0)
    assert rates[0] > rates[1] > rates[2] > rates[3] == 0.0


def test_only_the_window_is_remembered_but_all_frames_are_counted():
    window = TimingWindow()
    for index in range(WINDOW + 50):
        latency = 1000 * MS if index < 50 else 5 * MS
        window.add(index * MS, index * MS + latency)
    timing = window.summary((WINDOW + 50) * MS + S)
    assert timing.frames == WINDOW + 50
    assert (timing.p50_ms, timing.p99_ms) == (5.0, 5.0)


def test_the_recent_p99_forgets_what_is_older_than_the_horizon():
    window = TimingWindow()
    for index in range(60):
        done = index * 500 * MS
        window.add(done - (900 if index < 30 else 40) * MS, done)
    end = 59 * 500 * MS
    assert window.summary(end, horizon_s=10.0).recent_p99_ms == pytest.approx(40.0)
    assert window.summary(end, horizon_s=30.0).recent_p99_ms == pytest.approx(900.0)
    assert window.summary(end + 40 * S, horizon_s=10.0).recent_p99_ms == 0.0


def test_one_frame_has_no_rate():
    window = TimingWindow()
    window.add(0, 5 * MS, 3 * MS)
    timing = window.summary(10 * MS)
    assert (timing.rate_hz, timing.p50_ms, timing.p99_ms) == (0.0, 5.0, 5.0)
    assert (timing.engine_p50_ms, timing.overhead_p50_ms) == (3.0, 2.0)


def test_stamps_that_do_not_go_on_are_counted():
    watch = StampWatch()
    for step in range(5):
        watch.add(step * 200 * MS, step * 200 * MS)
    assert (watch.jumps, watch.words) == (0, "")
    watch.add(900 * MS, S)  # a little late, but on
    watch.add(900 * MS, S + 200 * MS)
    assert (watch.jumps, watch.words) == (1, "stamps stand still")
    watch.add(400 * MS, S + 400 * MS)
    assert (watch.jumps, watch.words) == (2, "stamps jumped by -0.500 s")
    watch.add(60 * S, 2 * S)
    assert (watch.jumps, watch.words) == (3, "stamps jumped by +59.600 s")
    watch.add(69 * S, 3 * S)  # a replay at nine times the speed
    watch.add(200 * S, 134 * S)  # a camera that was away
    assert watch.jumps == 3
