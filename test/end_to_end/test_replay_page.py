"""The page of a replay in a real browser: clean, complete, and its sliders work by mouse and keyboard."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from bag_fixtures import whole_bag
from replay_fixtures import models, replay


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on a drive of 12 s."""
    root = tmp_path_factory.mktemp("replay")
    replay(whole_bag(root / "bag", 60), root / "out", models(root / "registry", 2))
    return root / "out"


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (400, 860)])
def test_the_page_is_clean_complete_and_as_wide_as_the_screen(watched_page, results: Path, width: int, height: int):
    opened = watched_page(viewport={"width": width, "height": height})
    page = opened.page
    page.goto(f"file://{results / 'report.html'}")
    words = page.locator("main").inner_text()
    report = json.loads((results / "report.json").read_text())
    for series in report["series"]:
        assert f"{series['miou']:.1f}" in words
        for value in series["iou"].values():
            assert value is None or f"{value:.1f}" in words
    (comparison,) = report["comparisons"]
    assert comparison["words"] in words
    for text in (str(report["recording"]["frames"]), report["command"], "IoU per class", "Nothing in it was broken"):
        assert text in words, text
    for chart in ("live mIoU, %", "confidence, %", "uncertainty, %", "latency, ms"):
        assert page.get_by_text(chart).filter(visible=True).count() == 1, chart
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length")
    assert broken == 0
    opened.assert_clean()


def cut(slider) -> float:
    return float(slider.evaluate("(element) => parseFloat(getComputedStyle(element).getPropertyValue('--cut'))"))


def test_sliders_work_by_mouse_and_by_keyboard(watched_page, results: Path):
    opened = watched_page()
    page = opened.page
    page.goto(f"file://{results / 'report.html'}")
    slider, handle = page.locator(".slider").first, page.locator("input[type=range]").first
    handle.scroll_into_view_if_needed()
    assert cut(slider) == 50
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.5 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], middle, steps=4)
    page.mouse.up()
    assert cut(slider) == pytest.approx(20, abs=1)
    page.mouse.move(box["x"] + 0.9 * box["width"], middle)
    assert cut(slider) == pytest.approx(20, abs=1), "the mouse was let go"
    track = handle.bounding_box()
    page.mouse.click(track["x"] + 0.75 * track["width"], track["y"] + track["height"] / 2)
    assert cut(slider) == pytest.approx(75, abs=3)
    handle.focus()
    before = cut(slider)
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert cut(slider) == before - 5
    page.keyboard.press("Home")
    assert cut(slider) == 0
    shown = slider.locator(".over").evaluate("(element) => getComputedStyle(element).clipPath")
    assert "0%" in shown or shown == "inset(0px)"
    opened.assert_clean()


def test_the_page_prints(watched_page, results: Path):
    opened = watched_page()
    opened.page.goto(f"file://{results / 'report.html'}")
    opened.page.emulate_media(media="print")
    assert opened.page.locator("input[type=range]").first.is_hidden()
    assert len(opened.page.pdf()) > 20_000
    opened.assert_clean()
