from __future__ import annotations

import numpy as np
import pytest
from adaptation_fixtures import DRIVE, ENGINE, SECOND, fill_pool, make_registry, open_pool

from ssada_core.adaptation.scorer import PoolScorer
from ssada_core.errors import EngineError
from ssada_core.evaluation.metrics import confusion, iou


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return make_registry(tmp_path_factory.mktemp("models") / "registry", versions=2)


@pytest.fixture
def pool(tmp_path):
    fill_pool(tmp_path / "pool", frames=6, labelled=1, audit=1)
    with open_pool(tmp_path / "pool") as opened:
        yield opened


@pytest.fixture
def scorer(pool, registry):
    made = PoolScorer(pool, registry, ENGINE, lambda _: None)
    yield made
    made.close()


def score_all(scorer):
    count = 0
    while scorer.score_next():
        count += 1
    return count


def test_every_frame_is_scored_by_the_version_in_use_asked_ones_first(pool, scorer):
    scorer.use("v0001")
    assert scorer.candidates() == []
    scorer.score_next()
    scorer.score_next()
    assert scorer.candidates() == [], "the two frames that were asked for came first"
    scorer.score_next()
    newest = pool.frames(states=["buffered"])[-1]
    assert [record.id for record in scorer.candidates()] == [newest.id]
    assert score_all(scorer) == 3
    assert len(scorer.candidates()) == 4

    scorer.use("v0002")
    assert scorer.candidates() == []
    assert score_all(scorer) == 6
    assert {score.model_version for score in pool.scores().values()} == {"v0002"}
    assert len(scorer.candidates()) == 4
    first = pool.frames(states=["buffered"])[0]
    assert scorer.count_candidates(after_id=first.id, at_most=99) == 3
    assert scorer.count_candidates(after_id=first.id, at_most=2) == 2
    scorer.use("v0002")
    assert score_all(scorer) == 0


def test_scores_are_the_engines_and_a_new_frame_comes_next(pool, scorer):
    scorer.use("v0001")
    record = pool.add(DRIVE.frame(40, "day")[0], camera="front", stamp_ns=500 * SECOND).record
    scorer.enqueue(record)
    scorer.score_next()
    kept = pool.scores([record.id])[record.id]
    said = scorer.predict(pool.image(record))
    assert kept.uncertainty == pytest.approx(said.uncertainty)
    assert kept.confidence == pytest.approx(said.confidence.mean() / 255)
    assert kept.histogram == np.bincount(said.label.ravel(), minlength=11).tolist()
    np.testing.assert_allclose(kept.features, said.features, rtol=1e-5)


def test_evicted_frames_are_passed_over(pool, scorer):
    scorer.use("v0001")
    pool.purge([record.id for record in pool.frames(states=["buffered"])[-2:]])
    assert score_all(scorer) == 6
    assert len(scorer.candidates()) == 2


def test_iou_is_of_audit_frames_only(pool, scorer):
    scorer.use("v0001")
    (record,) = pool.frames(states=["labelled"], audit=True)
    expected = iou(confusion(scorer.predict(pool.image(record)).label, pool.label(record), 11))
    np.testing.assert_array_equal(scorer.audit_iou(), expected)
    scorer.keep_predictions([record])
    np.testing.assert_array_equal(pool.prediction(record)[0], scorer.predict(pool.image(record)).label)


def test_without_a_version_there_is_nothing_to_predict_with(scorer):
    with pytest.raises(EngineError, match="promote a version first"):
        scorer.predict(np.zeros((64, 96, 3), np.uint8))
