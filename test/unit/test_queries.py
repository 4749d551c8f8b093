from __future__ import annotations

import numpy as np
import pytest
from adaptation_fixtures import fill_pool, open_pool

from ssada_core.adaptation.queries import choose, statistics
from ssada_core.learning.settings import AcquisitionSettings
from ssada_core.store.pool import FrameScores


def scores(version: str, place: float, uncertainty: float = 0.5) -> FrameScores:
    """Features on the unit circle, where ``place`` is the angle in tenths of a radian."""
    features = np.array([np.cos(place / 10), np.sin(place / 10)], np.float32)
    return FrameScores(version, uncertainty, 0.5, [1] * 11, features)


@pytest.fixture
def pool(tmp_path):
    fill_pool(tmp_path / "pool", frames=10, labelled=1, audit=0)
    with open_pool(tmp_path / "pool") as opened:
        yield opened


def ask(pool, **changes):
    settings = AcquisitionSettings(strategy="entropy", audit_every=0, top_share=1.0)
    values = {"version": "v2", "count": 1, "iou": None, "settings": settings, "seed": 0, **changes}
    return choose(pool, pool.frames(states=["buffered"]), **values)


def test_frames_of_another_version_are_neither_asked_for_nor_kept_away_from(pool):
    (asked,) = pool.frames(states=["labelled"])
    buffered = pool.frames(states=["buffered"])
    pool.set_scores(asked.id, scores("v1", 0.0))
    pool.set_scores(buffered[0].id, scores("v1", 9.0, uncertainty=1.0))
    for place, record in enumerate(buffered[1:], start=1):
        pool.set_scores(record.id, scores("v2", float(place)))
    assert [frame.frame_id for frame in statistics(pool, [asked, *buffered], version="v2")] == [
        str(record.id) for record in buffered[1:]
    ]
    assert statistics(pool, [asked], version="v2") == []
    (chosen,) = ask(pool)
    assert chosen.id != buffered[0].id


@pytest.mark.parametrize(("asked_by", "chosen_place"), [("v2", 1), ("v1", 0)])
def test_a_choice_keeps_away_from_what_this_model_finds_alike(pool, asked_by, chosen_place):
    (asked,) = pool.frames(states=["labelled"])
    buffered = pool.frames(states=["buffered"])
    pool.set_scores(asked.id, scores(asked_by, 0.0))
    for place, record in enumerate(buffered):
        # The most uncertain one is a copy of what was asked before.
        pool.set_scores(record.id, scores("v2", 5.0 * (place > 0) + place, uncertainty=0.9 - place / 100))
    (chosen,) = ask(pool)
    assert chosen.id == buffered[chosen_place].id


def test_every_fourth_ever_asked_is_an_audit_frame(pool):
    for place, record in enumerate(pool.frames(states=["buffered"])):
        pool.set_scores(record.id, scores("v2", float(place)))
    settings = AcquisitionSettings(audit_every=4)
    batches = [ask(pool, count=count, settings=settings) for count in (2, 1, 4)]
    assert [record.audit for batch in batches for record in batch] == [False, False, True, False, False, False, True]
    assert all(record.state == "queried" for batch in batches for record in batch)
