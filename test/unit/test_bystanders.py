"""Drift score, watch, shadow drive, clips and offers only look on: whatever becomes of them, the work goes on."""

from __future__ import annotations

import shutil
from contextlib import closing

import numpy as np
import pytest
import torch
from adaptation_fixtures import DRIVE, ENGINE, SECOND, adaptation_settings, make_registry, manifest
from test_adapter import Vehicle
from test_vigilance import WATCH, expectations, see, shadowed

from ssada_core.adaptation.actions import AskAudit, AskLabels, StartRound
from ssada_core.adaptation.bystander import MOST_IN_A_ROW, Bystander
from ssada_core.adaptation.components import Component, Reference, describe
from ssada_core.adaptation.cycle import CycleSettings, CycleState, Facts, advance
from ssada_core.adaptation.domains import DOMAINS_FILE
from ssada_core.adaptation.drift import DriftSettings
from ssada_core.adaptation.expectations import EXPECTATIONS_FILE, compare
from ssada_core.adaptation.following import REFERENCES
from ssada_core.adaptation.roads import REFERENCE_FILE, describe_roads
from ssada_core.adaptation.scorer import Live
from ssada_core.adaptation.watch import WATCH_FILE
from ssada_core.data.simulated_drive import SimulatedSamples
from ssada_core.data.source_pack import create_pack
from ssada_core.errors import DataError, EngineError, ModelError, StoreError
from ssada_core.inference.engine import Prediction
from ssada_core.inference.load import load_engine
from ssada_core.labels import CAMVID
from ssada_core.store.files import read_json
from ssada_core.store.manifest import WEIGHTS_FILE
from ssada_core.store.pool import Choice

DRIFT = DriftSettings(calibration_frames=16, window=4)


def fail(error: Exception):
    raise error


# -- the boundary -----------------------------------------------------------------------------------


def test_what_works_again_is_no_trouble_any_more():
    said: list[str] = []
    guard = Bystander("watch", said.append)
    for _ in range(3 * MOST_IN_A_ROW):  # a disk may be full for an hour
        assert guard.attempt(lambda: fail(StoreError("the disk is full")), 7) == 7
        assert guard.attempt(lambda: fail(DataError("half a picture")), 7) == 7
    assert not guard.off
    assert guard.trouble == "half a picture"
    assert guard.attempt(lambda: 1, 7) == 1
    assert guard.trouble == ""
    guard.attempt(lambda: fail(StoreError("the disk is full")), 7)
    guard.attempt(lambda: fail(StoreError("the disk is full")), 7)
    assert said[-1] == "watch: the disk is full"
    assert said[-2] != said[-1], "said once, not with every frame"


def test_a_model_that_fails_again_and_again_is_given_up_and_what_nobody_foresaw_at_once():
    guard_number = 4
    guard = Bystander("watch", lambda _: None)
    for _ in range(MOST_IN_A_ROW - 1):
        guard.attempt(lambda: fail(EngineError("the engine is closed")), None)
    guard.attempt(lambda: None, None)
    for number in range(MOST_IN_A_ROW):
        assert not guard.off, number
        guard.attempt(lambda: fail(EngineError("the engine is closed")), None)
    assert guard.off
    assert guard.trouble == "switched off: the engine is closed"
    assert guard.attempt(lambda: fail(AssertionError("nothing is attempted any more")), 3) == 3
    guard.switch_on()
    assert guard.attempt(lambda: 1, 0) == 1
    guard.attempt(lambda: list[int]()[guard_number], None)
    assert guard.off
    assert guard.trouble.startswith("switched off: IndexError: list index out of range (test_bystanders.py:")


# -- the road ---------------------------------------------------------------------------------------


@pytest.fixture
def vehicle(tmp_path):
    make_registry(tmp_path / "registry", versions=2)
    made = Vehicle(tmp_path, drift=DRIFT, watch=WATCH)
    yield made
    made.stop()


def pack(vehicle, frames):
    path = vehicle.root / "pack.zip"
    create_pack(SimulatedSamples(DRIVE, "day", range(40)), CAMVID, path, frames=frames, seed=0)
    vehicle.settings = adaptation_settings(vehicle.root, drift=DRIFT, watch=WATCH, source_pack=str(path))
    return path


def settle(vehicle):
    """Until there is nothing to do at once."""
    for _ in range(200):
        vehicle.now_s += 0.01
        if not vehicle.adapter.tick(vehicle.now_s):
            return vehicle.adapter.status()
    raise AssertionError("there is always something to do")


def test_a_source_pack_that_describes_a_road_is_described_once(vehicle):
    pack(vehicle, 24)
    vehicle.start()
    assert settle(vehicle)["road"]["calibrated"]
    assert any("v0001 was made for roads like 'source': described by 24 frames" in words for words in vehicle.said)
    vehicle.said.clear()
    vehicle.start()
    assert settle(vehicle)["road"]["calibrated"]
    assert not any("described by" in words for words in vehicle.said), "known from the last time"


def test_too_small_a_source_pack_leaves_the_road_at_the_start_to_go_by(vehicle):
    pack(vehicle, 6)
    adapter = vehicle.start()
    assert not settle(vehicle)["road"]["calibrated"]
    assert any("by the road at the start: the source pack has 6 frames" in words for words in vehicle.said)
    see(vehicle, 24, domain="day")
    status = settle(vehicle)
    assert status["road"]["calibrated"]
    assert status["road"]["domain"] == "domain-1"
    assert status["troubles"] == {}
    assert adapter.pool.count(states=["buffered", "queried"]) == 24


def test_a_source_pack_that_goes_away_leaves_the_road_at_the_start_to_go_by(vehicle):
    path = pack(vehicle, 24)
    adapter = vehicle.start()
    vehicle.step()
    adapter._follower._pack = BrokenFrom(adapter._follower._pack, 5)
    assert not settle(vehicle)["road"]["calibrated"]
    assert any("by the road at the start: half a picture" in words for words in vehicle.said)
    path.unlink()
    vehicle.start()
    assert not settle(vehicle)["road"]["calibrated"]


class BrokenFrom:
    """A pack on a disk that lost its later frames."""

    def __init__(self, samples, first):
        self.samples, self.first = samples, first

    def __len__(self):
        return len(self.samples)

    def image(self, index):
        return self.samples.image(index) if index < self.first else fail(DataError("half a picture"))


def test_a_disk_that_refuses_costs_no_description(vehicle):
    pack(vehicle, 24)
    (vehicle.root / "rounds").mkdir()
    (vehicle.root / "rounds" / REFERENCES).write_text("a file where a folder should be")
    vehicle.start()
    status = settle(vehicle)
    assert status["road"]["calibrated"]
    assert REFERENCES in status["troubles"]["drift score"]
    see(vehicle, 3)
    assert settle(vehicle)["troubles"] == {}


def test_a_description_of_another_model_is_not_gone_by(vehicle):
    folder = vehicle.root / "rounds" / REFERENCES
    folder.mkdir(parents=True)
    adapter = vehicle.start()
    weights = adapter.registry.manifest("v0001").files[WEIGHTS_FILE]
    rng = np.random.default_rng(0)
    Reference({"moon": Component.fit(rng.normal(size=(20, 5)))}).save(folder / f"v0001-{weights[:12]}.npz")
    vehicle.start()
    assert settle(vehicle)["road"]["calibrated"]
    see(vehicle, 20, domain="day")
    status = settle(vehicle)
    assert status["troubles"] == {}
    assert any("v0001 was made for roads like 'domain-1'" in words for words in vehicle.said)


@pytest.mark.parametrize("damage", ["cut", "shape", "no numbers"])
def test_a_damaged_description_is_made_anew(vehicle, damage):
    pack(vehicle, 24)
    vehicle.start()
    settle(vehicle)
    (path,) = (vehicle.root / "rounds" / REFERENCES).glob("v0001-*.npz")
    with np.load(path) as arrays:
        kept = dict(arrays)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        kept["0.centre"] = kept["0.centre"][:-1] if damage == "shape" else kept["0.centre"] * np.nan
        np.savez(path, **kept)
    with pytest.raises(ModelError, match="delete it"):
        Reference.load(path)
    vehicle.start()
    assert settle(vehicle)["road"]["calibrated"]
    Reference.load(path)


@pytest.mark.parametrize("damage", ["half of", '{"source": [[1, 2]]}', '{"source": [3]}'])
def test_a_damaged_book_of_roads_switches_the_score_off_and_stays_as_it_is(vehicle, damage):
    path = vehicle.root / "rounds" / DOMAINS_FILE
    path.parent.mkdir()
    path.write_text(damage)
    adapter = vehicle.start()
    see(vehicle, 24, domain="day")
    status = vehicle.step()
    assert status["troubles"]["drift score"].startswith("switched off: ")
    assert "delete it" in status["troubles"]["drift score"]
    assert not status["road"]["drifted"]
    assert len(vehicle.heard.queries) == 6
    assert path.read_text() == damage
    adapter.registry.promote("v0002")
    assert vehicle.step()["version"] == "v0002"


def live(index, vector, stamp_s):
    image = DRIVE.frame(index, "day")[0]
    plane = np.zeros(image.shape[:2], np.uint8)
    return Live(image, Prediction(plane, plane, 0.5, np.asarray(vector, np.float32)), "front", stamp_s * SECOND, None)


def test_figures_that_are_no_numbers_switch_the_score_off(vehicle):
    adapter = vehicle.start()
    rng = np.random.default_rng(0)
    for index in range(20):
        adapter._follower.observe(live(index, rng.normal(5, 1, 8), index))
    assert adapter._follower.status()["calibrated"]
    for index in range(MOST_IN_A_ROW):
        adapter._follower.observe(live(index, [np.nan] * 8, 20 + index))
    assert "not finite" in vehicle.step()["troubles"]["drift score"]
    assert not adapter._follower.drifted
    adapter.registry.promote("v0002")
    assert vehicle.step()["troubles"] == {}, "another model, another chance"


@pytest.mark.parametrize("domain", ["domain-1", ""])
def test_a_description_of_frames_without_a_road_leaves_the_road_what_it_is(vehicle, domain):
    """A round that was trained before its road had a name made the road flip with every window, for ever."""
    adapter, rng = vehicle.start(), np.random.default_rng(0)
    seen = [live(index, rng.normal(5, 1, 8), index) for index in range(64)]
    unnamed = Component.fit(np.stack([describe(each.prediction) for each in seen[:24]]))
    Reference({"": unnamed}).save(adapter.registry.path("v0002") / REFERENCE_FILE)
    follower = adapter._follower
    follower.domain = domain
    follower.use("v0002")
    for each in seen[24:]:
        follower.observe(each)
    assert (follower.guard.trouble, follower.status()["calibrated"]) == ("", True)
    assert (follower.domain, follower.entered) == ("domain-1", 0 if domain else 1)
    assert list(read_json(vehicle.root / "rounds" / DOMAINS_FILE)) == ["domain-1"]


def test_frames_without_a_road_are_no_road_that_a_version_is_made_for(vehicle):
    adapter = vehicle.start()
    road = [SimulatedSamples(DRIVE, "day", range(16))]
    with closing(load_engine(adapter.registry.path("v0001"), ENGINE)) as engine:
        assert list(describe_roads(engine, {"": road, "night": road}, 16).components) == ["night"]


def test_frames_from_before_a_clock_was_set_back_do_not_name_the_road_after_it(vehicle):
    adapter = vehicle.start()
    see(vehicle, 24, first=1000, domain="day")
    early = [record.id for record in adapter.pool.frames()]
    assert settle(vehicle)["road"]["domain"] == "domain-1"
    see(vehicle, 12, first=100, domain="night")  # 15 minutes earlier
    assert settle(vehicle)["road"]["domain"] == "domain-2"
    named = {record.id: record.domain for record in adapter.pool.frames()}
    assert {named[frame] for frame in early} == {"domain-1"}
    assert "domain-2" in named.values()


# -- who drives along ---------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    """Two models that answer nearly alike."""
    registry = make_registry(tmp_path / "registry")
    rng = torch.Generator().manual_seed(5)
    near = {
        name: weight * (1 + 0.02 * torch.randn(weight.shape, generator=rng)) if weight.is_floating_point() else weight
        for name, weight in registry.load_weights("v0001").items()
    }
    registry.add(near, manifest(parent="v0001"))
    made = Vehicle(tmp_path, watch=WATCH, drift=DriftSettings(enabled=False))
    yield made
    made.stop()


def promoted(vehicle, disagreement=0.99):
    vehicle.decided_round("promote", "judging")
    expectations(vehicle, disagreement=disagreement)
    adapter = vehicle.start()
    vehicle.step()
    assert vehicle.step()["watch"]["version"] == "v0002"
    return adapter


def test_a_watch_whose_model_fails_ends_and_is_said_to(pair):
    adapter = promoted(pair)
    adapter._companions._engines["watch"].close()
    see(pair, MOST_IN_A_ROW + 2)
    status = pair.step()
    assert "engine is closed" in status["troubles"]["watch"]
    assert (status["watch"], status["version"]) == (None, "v0002")
    assert adapter.pool.count(states=["buffered"]) == MOST_IN_A_ROW + 2


def test_what_nobody_foresaw_ends_the_watch_and_not_the_node(pair):
    adapter = promoted(pair)
    del adapter._companions._engines["watch"]
    see(pair, 3)
    status = pair.step()
    assert status["troubles"]["watch"].startswith("switched off: KeyError: 'watch' (companions.py:")
    assert (status["watch"], status["version"]) == (None, "v0002")
    adapter.registry.rollback("by hand")
    pair.step()
    adapter.registry.promote("v0002")
    assert pair.step()["watch"]["version"] == "v0002", "another watch, another chance"


def test_a_shadow_drive_that_fails_refuses_its_challenger(pair):
    shadowed(pair, frames=10)
    pair.decided_round("promote", "judging")
    expectations(pair, disagreement=0.99)
    adapter = pair.start()
    assert pair.step()["phase"] == "shadowing"
    del adapter._companions._engines["shadow"]
    see(pair, 2)
    assert pair.step()["phase"] == "collecting"
    assert adapter.registry.current() == "v0001"
    assert any("its shadow drive raised an alarm: switched off: KeyError" in words for words in pair.said)


def test_a_version_that_cannot_be_taken_back_yet_is_tried_again_and_nothing_waits_for_it(pair):
    adapter = promoted(pair, disagreement=1e-6)
    weights = adapter.registry.path("v0001") / WEIGHTS_FILE
    shutil.copy(weights, pair.root / "kept")
    weights.write_bytes(b"damaged")
    see(pair, 24)
    status = pair.step()
    assert status["version"] == "v0002"
    assert "v0002 cannot be taken back yet: " in status["troubles"]["watch"]
    assert len(pair.heard.queries) == 6, "questions go on"
    assert adapter._work.facts(pair.now_s).resting
    shutil.copy(pair.root / "kept", weights)
    assert pair.step()["version"] == "v0001"
    assert pair.step()["troubles"] == {}


@pytest.mark.parametrize("file", [WATCH_FILE, f"round-0001/{EXPECTATIONS_FILE}"])
@pytest.mark.parametrize("content", ["half of", '{"version": 3, "seen": "x"}', "[]"])
def test_damaged_notes_of_a_watch_do_not_keep_the_adaptation_from_starting(pair, file, content):
    promoted(pair)
    pair.stop()
    (pair.root / "rounds" / file).write_text(content)
    pair.start()
    see(pair, 4)
    status = pair.step()
    assert status["version"] == "v0002"
    assert status["watch"]["version"] == "v0002"
    assert any(file.rpartition("/")[2] in words for words in pair.said)


def test_models_of_two_sizes_are_compared_at_the_candidates():
    fine = np.zeros((8, 12), np.uint8)
    fine[:, 6:] = 1
    coarse = np.zeros((4, 6), np.uint8)
    coarse[:, 3:] = 1
    one, other = (Prediction(label, label, 0.1, None) for label in (fine, coarse))
    for candidate, before in ((one, other), (other, one)):
        found = compare(candidate, before, CAMVID.num_classes)
        assert (found.disagreement, found.shift) == (0.0, 0.0)


# -- flags, and what a new road may ask for -------------------------------------------------------------


def test_a_clip_without_a_frame_to_ask_about_holds_nothing_up(pair):
    pair.settings = adaptation_settings(pair.root, drift=DriftSettings(enabled=False), cycle=CycleSettings(budget=0))
    adapter = pair.start()
    see(pair, 10)
    pool = adapter.pool
    trained = pool.frames()[-2]
    pool.query([Choice(trained.id, 1.0, audit=False, reason="asked before anybody flagged it")])
    adapter.flag()
    assert [clip.id for clip in pool.unasked_clips()] == [1]
    pair.step()
    assert pool.unasked_clips() == [], "asked now"
    second, _ = adapter._recorder.flag()
    other = pool.flag(5 * SECOND)
    assert other.id not in [clip.id for clip in pool.unasked_clips()], "nothing was seen then"
    assert second.id not in [clip.id for clip in pool.unasked_clips()], "its frames are of the first clip"
    assert adapter._work.facts(pair.now_s).flagged == 0


def test_clips_that_cannot_be_kept_cost_no_frame(pair):
    adapter = pair.start()
    see(pair, 2)
    adapter._recorder._open = None
    see(pair, 3, first=110)
    status = pair.step()
    assert status["troubles"]["clips"].startswith("switched off: TypeError")
    assert adapter.pool.count(states=["buffered"]) == 5


def test_a_new_road_asks_within_the_budget_and_trains_on_half_a_batch():
    settings = CycleSettings(budget=20, batch=8, max_open=8, new_labels=32, min_audit_labels=4)
    ready = {"now_s": 1e6, "buffered_new": 500, "labelled_train": 12, "labelled_audit": 4, "drifted": True}

    def actions(**facts):
        return advance(CycleState(), Facts(**{**ready, **facts}), settings)[1]

    assert actions(asked=16, open=0, labels_since_round=4) == [StartRound("the road changed, 4 new labels")]
    assert actions(asked=16, open=0, labels_since_round=3) == [AskLabels(4)]
    assert actions(asked=16, open=3, labels_since_round=8) == [AskLabels(4)]
    assert actions(asked=20, open=1, labels_since_round=3) == []
    assert actions(asked=19, open=0, labels_since_round=3, audit_wanted=9) == [AskAudit(1)]
    assert actions(asked=16, open=0, labels_since_round=4, resting=True) == [AskLabels(4)]
    assert actions(asked=16, open=0, labels_since_round=4, labelled_audit=3) == [AskLabels(4)]
    assert actions(asked=16, open=0, labels_since_round=4, paused=True) == []
