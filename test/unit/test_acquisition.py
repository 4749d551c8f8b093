from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssada_core.errors import ConfigError
from ssada_core.learning.acquisition import (
    FrameStatistics,
    audit_positions,
    budget_count,
    scores,
    select,
    systematic_sample,
)
from ssada_core.learning.diversity import farthest_first, neighbour_distance


def frame(
    name: str, *, uncertainty: float = 0.5, confidence: float = 0.5, histogram=(1, 1), features=(1.0, 0.0)
) -> FrameStatistics:
    return FrameStatistics(name, uncertainty, confidence, np.array(histogram), np.array(features))


def ramp(count: int) -> list[FrameStatistics]:
    """Uncertainty rises with the index; every scene looks different."""
    angles = np.linspace(0, np.pi / 2, count)
    return [
        frame(f"{index:03d}", uncertainty=index / count, features=(np.cos(angle), np.sin(angle)))
        for index, angle in enumerate(angles)
    ]


FRAMES = [
    frame("a", uncertainty=0.2, confidence=0.9, histogram=(30, 10, 0)),
    frame("b", uncertainty=0.6, confidence=0.4, histogram=(0, 0, 40)),
]
IOU = np.array([0.8, 0.4, np.nan])  # unknown class: 0.6


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("entropy", [0.2, 0.6]),
        ("confidence", [0.1, 0.6]),
        ("iou_score", [(30 * 0.2 + 10 * 0.6) / 40, 0.4]),
        ("eis", [0.2 + 0.3, 0.6 + 0.4]),
    ],
)
def test_scores_by_hand(strategy: str, expected: list[float]):
    np.testing.assert_allclose(scores(FRAMES, strategy=strategy, iou=IOU), expected)


def test_the_histogram_form_equals_the_mean_over_a_pixel_map():
    rng = np.random.default_rng(3)
    prediction = rng.integers(0, 5, (40, 60))
    iou = rng.random(5)
    statistics = frame("x", histogram=np.bincount(prediction.ravel(), minlength=5))
    (value,) = scores([statistics], strategy="iou_score", iou=iou)
    assert value == pytest.approx((1 - iou[prediction]).mean())


def test_eis_without_any_iou_orders_as_entropy():
    frames = ramp(9)
    assert (np.argsort(scores(frames, strategy="eis")) == np.argsort(scores(frames, strategy="entropy"))).all()


def test_an_unknown_strategy_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'entropy'"):
        scores(FRAMES, strategy="entropie")


def test_iou_of_another_number_of_classes_is_refused():
    with pytest.raises(ConfigError, match="IoU of 2 classes for frames scored with 3"):
        scores(FRAMES, strategy="eis", iou=np.array([0.5, 0.5]))


@pytest.mark.parametrize(
    ("share", "total", "expected"),
    [(0.125, 62, 8), (0.25, 62, 16), (0.5, 62, 31), (1.0, 62, 62), (0.145, 100, 15), (0.0, 62, 0), (0.01, 49, 0)],
)
def test_budgets_round_half_up(share: float, total: int, expected: int):
    assert budget_count(share, total) == expected


def test_plain_top_k_is_the_highest_scores():
    chosen = select(ramp(20), strategy="entropy", count=5, audit_every=0, diverse=False)
    assert [choice.frame_id for choice in chosen] == ["019", "018", "017", "016", "015"]
    assert not any(choice.audit for choice in chosen)
    assert chosen[0].reason == "entropy 0.950, rank 1 of 20"


@settings(max_examples=50, deadline=None)
@given(batches=st.lists(st.integers(0, 9), min_size=1, max_size=8), every=st.integers(1, 6))
def test_the_audit_share_holds_over_successive_batches(batches: list[int], every: int):
    asked = audits = 0
    for count in batches:
        audits += len(audit_positions(count, every=every, asked_before=asked))
        asked += count
        assert audits == asked // every


def test_every_fourth_choice_is_an_audit_frame_and_no_frame_comes_twice():
    chosen = select(ramp(62), strategy="entropy", count=16, seed=5)
    assert [index for index, choice in enumerate(chosen) if choice.audit] == [3, 7, 11, 15]
    assert len({choice.frame_id for choice in chosen}) == 16


def test_a_batch_continues_the_count_of_those_before():
    chosen = select(ramp(62), strategy="entropy", count=3, asked_before=6)
    assert [choice.audit for choice in chosen] == [False, True, False]


def test_audit_frames_are_an_unbiased_draw_over_all_candidates():
    # 4 of 18, not a divisor: every frame, easy or hard, must be drawn equally often (binomial bound: 5 sigma).
    frames = ramp(18)
    counts = np.zeros(18)
    runs = 3000
    for seed in range(runs):
        for choice in select(frames, strategy="entropy", count=16, diverse=False, seed=seed):
            if choice.audit:
                counts[int(choice.frame_id)] += 1
    share = 4 / 18
    assert np.abs(counts / runs - share).max() < 5 * np.sqrt(share * (1 - share) / runs)


@given(total=st.integers(1, 200), data=st.data(), seed=st.integers(0, 2**32))
def test_systematic_samples_are_distinct_and_evenly_spread(total: int, data: st.DataObject, seed: int):
    count = data.draw(st.integers(0, total))
    drawn = systematic_sample(total, count, np.random.default_rng(seed))
    assert len(set(drawn)) == count
    assert all(0 <= index < total for index in drawn)
    assert all(abs(gap - total / count) < 1 for gap in np.diff(drawn))


def test_selection_follows_from_the_seed():
    frames = ramp(40)
    first = select(frames, strategy="random", count=12, seed=1)
    assert first == select(frames, strategy="random", count=12, seed=1)
    assert first != select(frames, strategy="random", count=12, seed=2)


def test_asking_for_more_than_there_is_returns_all():
    chosen = select(ramp(5), strategy="eis", count=9)
    assert sorted(choice.frame_id for choice in chosen) == ["000", "001", "002", "003", "004"]


def test_no_candidates_no_choices():
    assert select([], strategy="eis", count=4) == []
    assert select([], strategy="random", count=4) == []


# Four scenes at right angles to one another, each filmed in three near-identical frames.
SCENES = np.repeat(np.eye(4), 3, axis=0) + np.tile([[0.0], [0.01], [0.02]], (4, 4))


def scene_frames() -> list[FrameStatistics]:
    """Scene 3 scores highest, its copies side by side; scene 0 lowest."""
    return [frame(f"{index}", uncertainty=0.1 + 0.07 * index, features=SCENES[index]) for index in range(len(SCENES))]


def test_diverse_picks_are_different_scenes_where_top_k_is_one():
    plain = select(scene_frames(), strategy="entropy", count=3, audit_every=0, diverse=False)
    assert {int(choice.frame_id) // 3 for choice in plain} == {3}
    diverse = select(scene_frames(), strategy="entropy", count=3, audit_every=0, top_share=1.0)
    assert diverse[0].frame_id == "11"
    assert len({int(choice.frame_id) // 3 for choice in diverse}) == 3


def test_the_top_share_bounds_how_far_the_score_may_fall():
    # The better half is scenes 2 and 3: both come before the score falls further.
    diverse = select(scene_frames(), strategy="entropy", count=2, audit_every=0, top_share=0.5)
    assert [int(choice.frame_id) // 3 for choice in diverse] == [3, 2]


def test_neighbours_of_frames_asked_before_are_left_out():
    diverse = select(scene_frames(), strategy="entropy", count=3, audit_every=0, top_share=0.5, already=[SCENES[9]])
    assert {int(choice.frame_id) // 3 for choice in diverse} == {0, 1, 2}


def test_score_picks_keep_away_from_audit_frames():
    for seed in range(20):
        chosen = select(scene_frames(), strategy="entropy", count=4, top_share=1.0, seed=seed)
        assert len({int(choice.frame_id) // 3 for choice in chosen}) == 4


def test_with_only_neighbours_left_the_count_is_still_reached():
    diverse = select(scene_frames(), strategy="entropy", count=12, audit_every=0)
    assert len({choice.frame_id for choice in diverse}) == 12


def test_farthest_first_by_hand_on_a_quarter_circle():
    # Angles 0, 10, 40, 90 degrees, ranked in that order: start at 0, farthest 90, then 40, then 10.
    angles = np.radians([0, 10, 40, 90])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 7  # length must not matter
    assert farthest_first(features, np.arange(4), 4, top=4, neighbour_ratio=0.0) == [0, 3, 2, 1]


def test_the_neighbour_distance_is_relative_to_the_spread():
    features = np.eye(6)  # every pair is sqrt(2) apart
    assert neighbour_distance(features, 0.25) == pytest.approx(0.25 * np.sqrt(2))
    assert neighbour_distance(features[:1], 0.25) == 0.0
