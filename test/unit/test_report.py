from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from ssada_core.errors import StoreError
from ssada_core.evaluation.report import (
    CheckShown,
    DriveReport,
    GateShown,
    Mark,
    ModelShown,
    PairShown,
    QueryShown,
    Span,
    Tile,
    Timeline,
    flatten,
    render_report,
    write_report,
)
from ssada_core.evaluation.report_figures import thin
from ssada_core.labels import CAMVID, LabelSpace

HOSTILE = "<script>alert('x')</script>&\"$\\frac{$ 'quoted' {{ 7*7 }} ü"
VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects what tests ask about."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.text, self.sources, self.ids, self.scripts = [], [], [], [], 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "action", "data", "poster"}:
                self.sources.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def picture(seed, height=48, width=80):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def label(seed, height=48, width=80):
    return np.random.default_rng(seed).integers(0, 11, (height, width)).astype(np.uint8)


def full_report():
    before = [91.23, 61.2, 12.3, 88.4, 55.2, 40.1, 9.8, math.nan, 47.0, 18.2, 6.0]
    after = [95.5, 78.7, 31.3, 94.0, 73.2, 69.1, 33.8, math.nan, 77.0, 17.1, 36.0]
    timeline = Timeline(
        latency=[(i / 10, 40 + i % 7) for i in range(3000)],
        miou=[(float(i), 38.0 + i / 10) for i in range(300)],
        spans=[Span(0, 60, "day"), Span(60, 300, "night"), Span(100, 160, "round 1", "training")],
        marks=[Mark(70, "query"), Mark(75, "label"), Mark(161, "swap", "v2")],
    )
    return DriveReport(
        title="Night drive",
        subtitle="vehicle 7",
        label_space=CAMVID,
        tiles=[Tile("training", "58 s", "400 iterations")],
        before=ModelShown("v0001", 43.14, before, 120),
        after=ModelShown("v0002", 60.61, after, 121),
        timeline=timeline,
        queries=[
            QueryShown("q-1", picture(1), label(1), note="uncertainty 0.61"),
            QueryShown("q-2", picture(2), None, audit=True),
        ],
        pairs=[PairShown("frame 12", picture(3), label(3), label(4), "38.1 to 71.9 %")],
        gates=[
            GateShown(
                "v0002",
                "promote",
                "Promoted. Target mIoU 43.1 to 60.6 %.",
                [
                    CheckShown("latency", True, "latency 41.0 ms is 1.02 times"),
                    CheckShown("safety:road", False, "IoU of 'road' falls by 4.4"),
                    CheckShown("source", True, "source-free", judged=False),
                ],
            )
        ],
        settings={"cycle": {"budget": 12}, "training": {"crop": [256, 512]}},
        system={"machine": "2 cores"},
        versions={"torch": "2.4.0"},
        command="ssada demo --seconds 240",
        notes=["Ground truth is simulated."],
    )


@pytest.fixture(scope="module")
def full_page():
    return render_report(full_report())


def test_every_given_figure_and_word_is_on_the_page(tmp_path):
    path = tmp_path / "report.html"
    report = full_report()
    write_report(path, report)
    words = Page(path.read_text(encoding="utf-8")).words
    for model in (report.before, report.after):
        for value in (model.miou, *model.iou):
            assert math.isnan(value) or f"{value:.1f}" in words
        assert f"on {model.frames} frames" in words
    expected = [
        "Night drive", "vehicle 7", "58 s", "400 iterations", "+17.5 points", "−1.1", "+29.0", "v0001", "v0002",
        "promoted", "Promoted. Target mIoU 43.1 to 60.6 %.", "1.02 times", "falls by 4.4", "not judged", "failed",
        "q-1", "uncertainty 0.61", "audit", "no label", "frame 12", "38.1 to 71.9 %", "cycle.budget", "12",
        "training.crop", "[256, 512]", "2 cores", "2.4.0", "ssada demo --seconds 240", "Ground truth is simulated.",
        "live mIoU, %", "latency, ms", "day", "night", "query", "swap", "training",
    ]  # fmt: skip
    for text in expected:
        assert text in words, text
    assert " fence " in words  # in the legend
    assert "nan" not in words.lower()


def test_the_page_needs_nothing_from_elsewhere(full_page):
    text, page = full_page, Page(full_page)
    assert "://" not in text
    assert "@import" not in text
    assert "url(http" not in text
    assert page.sources
    for source in page.sources:
        assert source.startswith(("data:image/jpeg;base64,", "#")), source[:60]
    assert len(page.ids) == len(set(page.ids))
    for reference in (source[1:] for source in page.sources if source.startswith("#")):
        assert reference in page.ids
    for reference in re.findall(r"url\(#([^)]+)\)", text):
        assert reference in page.ids


def test_pictures_are_embedded_shrunk_and_unlabelled_pixels_stay_bare():
    given = np.full((400, 1600, 3), 200, np.uint8)
    bare = np.full((400, 1600), 255, np.uint8)
    report = DriveReport("x", CAMVID, queries=[QueryShown("q", given, bare)])
    (source,) = Page(render_report(report, picture_width=320)).sources
    data = np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8)
    shown = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert shown.shape == (80, 320, 3)
    assert abs(float(shown.mean()) - 200) < 2


def test_hostile_text_is_shown_and_never_run(full_page):
    space = LabelSpace(name="h", classes=(HOSTILE,), colors=((1, 2, 3),), safety=(HOSTILE,))
    zeros = np.zeros((8, 8), np.uint8)
    shot = np.zeros((8, 8, 3), np.uint8)
    model = ModelShown(HOSTILE, 50.0, [50.0], 3)
    report = DriveReport(
        title=HOSTILE,
        label_space=space,
        subtitle=HOSTILE,
        tiles=[Tile(HOSTILE, HOSTILE, HOSTILE)],
        before=model,
        after=model,
        timeline=Timeline(miou=[(0, 1)], spans=[Span(0, 9, HOSTILE)], marks=[Mark(1, HOSTILE, HOSTILE)]),
        queries=[QueryShown(HOSTILE, shot, zeros, note=HOSTILE)],
        pairs=[PairShown(HOSTILE, shot, zeros, zeros, HOSTILE)],
        gates=[GateShown(HOSTILE, HOSTILE, HOSTILE, [CheckShown(HOSTILE, True, HOSTILE)])],
        settings={HOSTILE: {HOSTILE: HOSTILE}},
        system={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        command=HOSTILE,
        notes=[HOSTILE],
    )
    text = render_report(report)
    page = Page(text)
    clean = Page(full_page)
    assert page.scripts == clean.scripts == 1
    assert "<script>alert" not in text
    assert "49" not in page.words.replace(HOSTILE, "")
    assert page.words.count("alert('x')") >= 20


def test_every_part_may_be_absent():
    words = Page(render_report(DriveReport("Nothing yet", CAMVID))).words
    assert words.strip().startswith("Nothing yet")
    for heading in ("IoU per class", "The drive", "Gate", "Before and after", "Frames asked", "Command", "How it was"):
        assert heading not in words
    only = Page(render_report(DriveReport("x", CAMVID, after=ModelShown("v1", 51.2, [10.0] * 11, 4)))).words
    assert "51.2 %" in only
    assert "before" not in only
    marks = Page(render_report(DriveReport("x", CAMVID, timeline=Timeline(marks=[Mark(3, "rollback")])))).words
    assert "rollback" in marks


def test_the_same_report_is_the_same_page(full_page):
    assert render_report(full_report()) == full_page


def test_long_curves_are_thinned_without_losing_their_extremes():
    rng = np.random.default_rng(0)
    points = np.stack([np.arange(5000.0), rng.normal(40, 5, 5000)], axis=1)
    points[1234, 1] = 500.0
    times, low, middle, high = thin(points[rng.permutation(5000)], 400)
    assert len(times) == 400
    assert (np.diff(times) > 0).all()
    assert high.max() == 500.0
    assert low.min() == points[:, 1].min()
    assert ((low <= middle) & (middle <= high)).all()
    assert len(thin(points[:3], 400)[0]) == 3


def test_a_stored_decision_is_shown_as_it_is():
    decision = {
        "verdict": "wait_for_human",
        "words": "Because of 3.",
        "checks": [{"name": "finite", "passed": True, "words": "all finite", "figures": {"finite": 1}}],
    }
    words = Page(render_report(DriveReport("x", CAMVID, gates=[GateShown.of("v9", decision)]))).words
    for text in ("v9", "waits for a human", "Because of 3.", "all finite", "passed"):
        assert text in words


def test_settings_are_flattened_to_dotted_keys():
    rows = flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "text", "f": None, "g": True})
    assert rows == [("a.b", "1"), ("a.c.d", "[1, 2]"), ("e", "text"), ("f", "null"), ("g", "true")]


def test_a_folder_that_is_missing_is_an_error_that_says_so(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        write_report(tmp_path / "none" / "report.html", DriveReport("x", CAMVID))
