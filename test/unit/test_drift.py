"""The drift score and the book of roads: calibrated on synthetic streams, and on the simulated drive."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from ssada_core.adaptation.calibration import Gamma, independent_in
from ssada_core.adaptation.components import Component, Reference, describe
from ssada_core.adaptation.domains import DomainBook, picture
from ssada_core.adaptation.drift import DriftSettings, DriftTracker, Frame
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.errors import ModelError, StoreError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.load import load_engine
from ssada_core.store.models import resolve_model

SECOND = 10**9
DIMENSIONS = 24


def road(seed: int, frames: int, *, centre: float = 0.0, memory: float = 0.8) -> np.ndarray:
    """Frames of one road: correlated directions, and neighbours that look alike."""
    mixing = np.random.default_rng(7).normal(0, 1, (DIMENSIONS, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    rng = np.random.default_rng([seed, 1])
    values = np.zeros((frames, DIMENSIONS))
    state = rng.normal(0, 1, DIMENSIONS)
    for index in range(frames):
        state = memory * state + np.sqrt(1 - memory**2) * rng.normal(0, 1, DIMENSIONS)
        values[index] = state @ mixing + centre
    return values


def follow(tracker: DriftTracker, frames: np.ndarray, start: int = 0) -> list[tuple[int, object]]:
    found = []
    for index, vector in enumerate(frames):
        change = tracker.observe(Frame(vector, (start + index) * SECOND))
        if change is not None:
            found.append((index, change))
    return found


def test_the_bound_of_a_mean_is_passed_as_often_as_asked():
    rng = np.random.default_rng(0)
    gamma = Gamma(2.0, 0.8, 10**9)
    for independent in (1, 2, 5):
        shape = (gamma.mean / gamma.deviation) ** 2
        means = rng.gamma(shape, gamma.mean / shape, (200_000, independent)).mean(axis=1)
        bound = gamma.upper(rate=0.001, independent=independent)
        assert 0.0006 < np.mean(means > bound) < 0.0015
    assert Gamma(2.0, 0.8, 10).upper(rate=0.01) > Gamma(2.0, 0.8, 1000).upper(rate=0.01)
    assert independent_in(9.0, 10) == pytest.approx(1.8)
    assert independent_in(0.5, 10) == 1.0
    assert independent_in(1e6, 10) == 10.0


def test_a_component_scores_its_own_road_about_one_and_learns_how_other_frames_lie():
    component = Component.fit(road(1, 96))
    assert component.score(road(1, 96)).mean() == pytest.approx(1.0, abs=0.35)
    other = component.score(road(2, 400))
    assert component.scores.mean == pytest.approx(other.mean(), rel=0.35)
    assert component.score(road(3, 50, centre=4.0)).mean() > 5 * component.scores.mean
    with pytest.raises(ModelError, match="at least 16"):
        Component.fit(road(1, 15))
    broken = road(1, 20)
    broken[3, 3] = np.nan
    with pytest.raises(ModelError):
        Component.fit(broken)


def test_a_reference_survives_the_disk(tmp_path: Path):
    reference = Reference({"source": Component.fit(road(1, 40)), "domain-1": Component.fit(road(2, 40, centre=2.0))})
    reference.save(tmp_path / "reference.npz")
    loaded = Reference.load(tmp_path / "reference.npz")
    assert list(loaded.components) == ["source", "domain-1"]
    frames = road(5, 30)
    for name, component in reference.components.items():
        np.testing.assert_array_equal(component.score(frames), loaded.components[name].score(frames))
        assert loaded.components[name].scores == component.scores
    whole = (tmp_path / "reference.npz").read_bytes()
    for at in range(len(whole)):
        (tmp_path / "flipped.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with contextlib.suppress(ModelError):
            Reference.load(tmp_path / "flipped.npz")
    (tmp_path / "reference.npz").write_bytes(b"half of")
    with pytest.raises(ModelError, match="delete it"):
        Reference.load(tmp_path / "reference.npz")


def test_false_alarms_are_as_rare_as_asked_and_a_change_is_found():
    tracker = DriftTracker({"source": Component.fit(road(1, 96))}, DriftSettings(), domain="source")
    changes = []
    for seed in range(2, 12):
        changes += follow(tracker, road(seed, 500), start=1000 * seed)
    assert len(changes) <= 2, "5000 frames at 0.0005"
    found = follow(tracker, road(20, 40, centre=1.5), start=90_000)
    assert found[0][0] < 30
    assert found[0][1].before == "source"
    assert found[0][1].domain == ""
    assert abs(found[0][1].since_ns / SECOND - 90_000) <= 2


def test_a_road_that_was_met_is_known_again_and_one_spoilt_frame_is_no_road():
    known = {"source": Component.fit(road(1, 96)), "night": Component.fit(road(2, 96, centre=3.0))}
    tracker = DriftTracker(known, DriftSettings())
    ((_, first),) = follow(tracker, road(3, 40))
    assert (first.domain, first.since_ns) == ("source", 0)
    spoilt = road(3, 40)
    spoilt[20] = 50.0
    assert follow(tracker, spoilt, start=100) == []
    ((_, change),) = follow(tracker, road(4, 40, centre=3.0), start=200)
    assert (change.domain, change.before) == ("night", "source")
    assert not tracker.drifted, "a known road is no drift, though another one"
    (_, strange), *_ = follow(tracker, road(5, 30, centre=-4.0), start=300)
    assert strange.domain == ""
    tracker.name("fog")
    assert tracker.drifted
    assert tracker.score > 1
    follow(tracker, road(6, 80, centre=-4.0), start=400)  # fog is described by its own frames
    ((_, back),) = follow(tracker, road(7, 40), start=600)
    assert (back.domain, back.before) == ("source", "fog")
    assert not tracker.drifted
    assert tracker.score < 1
    ((_, again),) = follow(tracker, road(8, 40, centre=-4.0), start=700)
    assert again.domain == "fog"
    assert tracker.drifted


def test_a_clock_that_is_set_back_begins_anew():
    tracker = DriftTracker({"source": Component.fit(road(1, 96))}, DriftSettings(), domain="source")
    strange = road(2, 12, centre=5.0)
    assert follow(tracker, strange[:2], start=100) == []
    assert follow(tracker, strange[2:4], start=0) == []
    assert follow(tracker, road(3, 40), start=-50) == []


def test_the_book_knows_a_road_by_its_pictures(tmp_path: Path):
    drive = SimulatedDrive(seed=4, size=(96, 160), rate=0.5)
    pictures = {
        domain: [picture(drive.frame(index, domain)[0]) for index in range(44)] for domain in ("day", "night", "rain")
    }
    book = DomainBook(tmp_path / "domains.json")
    assert book.recognise(pictures["day"]) is None
    book.add("source", pictures["day"][:40])
    book.add(book.new_name(), pictures["night"][:40])
    other = SimulatedDrive(seed=8, size=(96, 160), rate=0.5)
    book = DomainBook(tmp_path / "domains.json")
    for domain, name in (("day", "source"), ("night", "domain-1"), ("rain", None)):
        assert book.recognise([picture(other.frame(index, domain)[0]) for index in range(10, 18)]) == name
    assert book.recognise(pictures["day"][:8], but="source") is None
    assert book.new_name() == "domain-2"
    for _ in range(10):
        book.add("source", pictures["day"])
    assert len(book.to_dict()["source"]) <= 120
    (tmp_path / "domains.json").write_text('{"source": 3}')
    with pytest.raises(StoreError, match="does not list roads"):
        DomainBook(tmp_path / "domains.json")


@pytest.mark.slow
def test_on_the_simulated_drive_alarms_are_rare_within_a_road_and_changes_are_found():
    """The acceptance: at most 1 false alarm in 1000 frames, a change found within 30."""
    engine = load_engine(resolve_model("sim-day"), EngineSettings(backend="torch", threads=1))

    def frames(seed: int, domain: str, count: int, rate: float = 1.0, first: int = 0) -> np.ndarray:
        drive = SimulatedDrive(seed=seed, size=(192, 320), rate=rate)
        images = (drive.frame(first + index, domain)[0] for index in range(count))
        return np.stack([describe(engine.infer([image], features=True)[0]) for image in images])

    day = Component.fit(frames(100, "day", 64, rate=0.2))
    tracker = DriftTracker({"source": day}, DriftSettings(), domain="source")
    alarms, total = 0, 0
    for seed in (1, 2, 3, 4):
        alarms += len(follow(tracker, frames(seed, "day", 500), start=10_000 * seed))
        total += 500
    assert alarms / total <= 0.001
    for number, domain in enumerate(("night", "rain")):
        found = follow(tracker, frames(5, domain, 30), start=100_000 + 1000 * number)
        assert found, f"{domain} was not found within 30 frames"
        tracker.name(domain)
        assert follow(tracker, frames(5, "day", 30), start=200_000 + 1000 * number)[-1][1].domain == "source"
