"""The simulated drive: determinism, exact labels, and domains that differ in light but not in content."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssada_core.data.samples import Samples
from ssada_core.data.simulated_drive import DOMAINS, SimulatedDrive, SimulatedSamples
from ssada_core.data.simulated_scene import EYE, Camera, draw_sprite, draw_wall
from ssada_core.data.simulated_world import ROAD_EDGE, SPEED, Road, Thing, visible
from ssada_core.errors import ConfigError, DataError
from ssada_core.labels import CAMVID, IGNORE

SMALL = (96, 160)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def drive() -> SimulatedDrive:
    return SimulatedDrive(seed=7, size=SMALL)


def digest(image: np.ndarray, label: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("size", [(96, 160), (192, 320), (101, 163), (64, 333), (200, 97), (32, 32)])
def test_any_size_gives_bgr_and_label(domain: str, size: tuple[int, int]) -> None:
    image, label = SimulatedDrive(1, size).frame(12, domain)
    assert image.shape == (*size, 3)
    assert label.shape == size
    assert image.dtype == label.dtype == np.uint8
    assert image.flags.c_contiguous
    assert label.flags.c_contiguous
    assert {int(value) for value in np.unique(label)} <= {*range(CAMVID.num_classes), IGNORE}


@pytest.mark.parametrize("size", [(360, 720), (384, 1072), (540, 960), (720, 1280), (100, 1200)])
def test_wide_frames_have_no_pixel_that_nothing_was_drawn_on(size: tuple[int, int], monkeypatch) -> None:
    empty = np.empty
    drives = [SimulatedDrive(1, size) for _ in range(2)]
    for index in (0, 7, 19):
        found = []
        for drive, left_over in zip(drives, (17, 201), strict=True):

            def used_before(shape, dtype=float, left_over=left_over, **more):
                array = empty(shape, dtype, **more)
                if dtype == np.uint8:
                    array.fill(left_over)
                return array

            with monkeypatch.context() as patch:
                patch.setattr(np, "empty", used_before)
                found.append(digest(*drive.frame(index)))
        assert found[0] == found[1]


def test_frames_are_the_same_in_another_process_and_order(drive: SimulatedDrive) -> None:
    wanted = [(40, "rain"), (3, "night"), (3, "day"), (700, "night")]
    program = (
        "import hashlib\n"
        "from ssada_core.data.simulated_drive import SimulatedDrive\n"
        f"drive = SimulatedDrive(seed=7, size={SMALL})\n"
        f"for index, domain in {wanted[::-1]}:\n"
        "    image, label = drive.frame(index, domain)\n"
        "    print(hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.split() == [digest(*drive.frame(index, domain)) for index, domain in wanted[::-1]]


def test_a_frame_is_the_callers_own(drive: SimulatedDrive) -> None:
    image, label = drive.frame(5, "rain")
    before = digest(image, label)
    image[:] = 0
    label[:] = 0
    assert digest(*drive.frame(5, "rain")) == before


def test_the_rate_only_says_when_a_frame_is() -> None:
    slow, fast = SimulatedDrive(2, SMALL, rate=5.0), SimulatedDrive(2, SMALL, rate=10.0)
    assert np.array_equal(slow.frame(8)[1], fast.frame(16)[1])
    assert not np.array_equal(slow.frame(8)[1], fast.frame(8)[1])


def test_seeds_are_different_streets(drive: SimulatedDrive) -> None:
    other = SimulatedDrive(seed=8, size=SMALL)
    assert (drive.frame(0)[1] != other.frame(0)[1]).mean() > 0.05


@pytest.mark.parametrize("seed", [0, 7])
def test_every_class_appears_within_a_hundred_frames(seed: int) -> None:
    drive = SimulatedDrive(seed, (192, 320))
    seen = np.zeros(256, np.int64)
    for index in range(0, 100, 3):
        seen += np.bincount(drive.frame(index)[1].ravel(), minlength=256)
    assert (seen[: CAMVID.num_classes] > 100).all(), dict(zip(CAMVID.classes, seen.tolist(), strict=False))
    assert seen[CAMVID.num_classes :].sum() == 0


def test_labels_do_not_depend_on_the_domain(drive: SimulatedDrive) -> None:
    for index in (0, 33, 250):
        day, night, rain = (drive.frame(index, domain)[1] for domain in DOMAINS)
        assert np.array_equal(day, night)
        assert np.array_equal(day, rain)


def test_sky_is_above_the_horizon_and_the_ground_below(drive: SimulatedDrive) -> None:
    for index in range(0, 200, 17):
        label = drive.frame(index)[1]
        horizon = Camera(Road(7), index / 5.0, SMALL).horizon
        below = label[int(horizon) + 3 :]
        assert not (below == CAMVID.index("sky")).any()
        above = label[: int(horizon) - 1]
        for name in ("road", "sidewalk"):
            assert not (above == CAMVID.index(name)).any()


def test_the_road_is_where_its_geometry_puts_it() -> None:
    """The road's labelled edge against the pinhole projection of the kerb, computed by hand."""
    size, seed, index = (384, 640), 0, 20
    label = SimulatedDrive(seed, size).frame(index)[1]
    road = Road(seed)
    camera = Camera(road, index / 5.0, size)
    checked = 0
    for depth in np.arange(6.0, 14.0, 0.5):
        row = camera.horizon + 0.8 * 640 * EYE / depth
        if int(row) >= size[0]:
            continue
        z = road.travelled(index / 5.0) + depth
        middle = float(road.offset(z)) - float(road.offset(z - depth)) - camera.sideways - camera.heading * depth
        left = 320 + 0.8 * 640 * (middle - ROAD_EDGE) / depth
        column = int(left)
        if 3 <= column < size[1] - 3:
            pair = label[int(row), column - 3], label[int(row), column + 3]
            if set(pair) <= {CAMVID.index("road"), CAMVID.index("sidewalk")}:  # nothing parks there
                assert pair == (CAMVID.index("sidewalk"), CAMVID.index("road"))
                checked += 1
    assert checked >= 3


def test_colours_change_where_labels_do() -> None:
    """By day, each class's edge with the sky is an edge of the picture, so labels are not shifted."""
    image, label = SimulatedDrive(0, (384, 640)).frame(30)
    sky = (label == CAMVID.index("sky")).astype(np.uint8)
    edge = cv2.morphologyEx(sky, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(bool)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    steep = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    moved = np.roll(edge, (9, 13), (0, 1))
    assert steep[edge].mean() > 2.0 * steep[moved].mean()


def test_domains_differ_in_light(drive: SimulatedDrive) -> None:
    images = {domain: np.stack([drive.frame(i, domain)[0] for i in (0, 40, 80)]) for domain in DOMAINS}
    mean = {domain: float(image.mean()) for domain, image in images.items()}
    colourful = {domain: float((image.max(axis=-1) - image.min(axis=-1)).mean()) for domain, image in images.items()}
    assert mean["night"] < 0.5 * mean["day"]
    assert mean["night"] > 15  # somebody can still label it
    assert mean["night"] < 0.7 * mean["rain"] < 0.7 * mean["day"]
    assert colourful["rain"] < 0.6 * colourful["day"]


def test_night_keeps_signal() -> None:
    """Classes next to each other differ in brightness at night by more than the noise of their means."""
    image, label = SimulatedDrive(0, (192, 320)).frame(10, "night")
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    road, sky = (gray[label == CAMVID.index(name)] for name in ("road", "sky"))
    assert road.mean() > sky.mean() + 8
    assert (gray > 200).sum() > 20  # lamps and windows


def test_consecutive_frames_differ_and_resemble_each_other(drive: SimulatedDrive) -> None:
    first, second, far = (drive.frame(index)[0].astype(np.float64).ravel() for index in (50, 51, 400))
    assert not np.array_equal(first, second)
    near = np.corrcoef(first, second)[0, 1]
    assert near > 0.6
    assert near > np.corrcoef(first, far)[0, 1]
    labels = [drive.frame(index)[1] for index in (50, 51, 400)]
    assert 0.005 < (labels[0] != labels[1]).mean() < (labels[0] != labels[2]).mean()


def test_the_camera_goes_forward() -> None:
    road = Road(3)
    places = np.array([road.travelled(time / 10) for time in range(3000)])
    assert (np.diff(places) > 0.5).all()
    assert (places[-1] - places[0]) / 299.9 == pytest.approx(SPEED, abs=0.05)


def test_moving_things_move_with_their_speed() -> None:
    road = Road(0)
    before, after = (
        {
            (thing.variant, thing.u): thing.z
            for thing in visible(0, road, time)[1]
            if thing.u == pytest.approx(-1.7, abs=0.3)
        }
        for time in (20.0, 20.5)
    )
    same = before.keys() & after.keys()
    assert same
    for key in same:
        assert after[key] - before[key] == pytest.approx(-4.5)


def test_far_things_come_first() -> None:
    for things in visible(5, Road(5), 33.0)[1:]:
        assert [thing.z for thing in things] == sorted((thing.z for thing in things), reverse=True)


def test_samples_are_frames_of_the_drive(drive: SimulatedDrive) -> None:
    samples: Samples = SimulatedSamples(drive, "night", range(120, 130))
    assert len(samples) == 10
    assert samples.name(3) == "night-000123"
    image, label = drive.frame(123, "night")
    assert np.array_equal(samples.image(3), image)
    assert np.array_equal(samples.label(3), label)


def test_wrong_arguments_are_named(drive: SimulatedDrive) -> None:
    with pytest.raises(ConfigError, match=r"'nigth'.*did you mean 'night'"):
        drive.frame(0, "nigth")
    with pytest.raises(ConfigError, match="did you mean 'rain'"):
        SimulatedSamples(drive, "rainy", [0])
    with pytest.raises(ConfigError, match=r"8x640.*32x32"):
        SimulatedDrive(size=(8, 640))
    with pytest.raises(ConfigError, match="rate is 0"):
        SimulatedDrive(rate=0.0)
    with pytest.raises(DataError, match="frame -1"):
        drive.frame(-1)


def test_negative_seeds_are_streets_of_their_own() -> None:
    assert not np.array_equal(SimulatedDrive(-3, SMALL).frame(0)[1], SimulatedDrive(3, SMALL).frame(0)[1])


def test_walls_and_sprites_outside_the_frame_draw_nothing() -> None:
    canvas = np.zeros((64, 96, 4), np.uint8)
    camera = Camera(Road(0), 0.0, (64, 96))
    texture = (np.full((32, 32, 4), 255, np.uint8),)
    table = np.full((1, 256, 4), 200, np.uint8)
    draw_sprite(canvas, texture, (100.0, 10.0, 140.0, 50.0), table)
    draw_wall(canvas, camera, texture, Thing("fence", camera.place - 9.0, 9.0, 5.0), 1.0, table)
    assert not canvas.any()


@pytest.mark.parametrize("domain", DOMAINS)
def test_frames_come_at_camera_rate_on_one_core(domain: str) -> None:
    """Thirty frames a second of processor time at the default size."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        drive = SimulatedDrive()
        drive.frame(0, domain)
        spent = []
        for index in range(1, 60, 4):
            begin = time.process_time()
            drive.frame(index, domain)
            spent.append(time.process_time() - begin)
    finally:
        cv2.setNumThreads(threads)
    assert np.median(spent) < 1 / 30
