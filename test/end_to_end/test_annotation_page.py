"""The annotation page in a real browser, on a real server and a real pool: what is drawn is what arrives."""

from __future__ import annotations

import signal
from contextlib import closing

import cv2
import numpy as np
import pytest
from annotate_fixtures import SIZE, Person, capsule, connected, fill_pool, open_pool, serving

from ssada_core.annotation.desk import Desk, Who
from ssada_core.annotation.segments import superpixels

RADIUS = 8
CONFLICT = "error: Failed to load resource: the server responded with a status of 409 (Conflict)"


class Expected:
    """The label that a sequence of acts makes, computed without the page."""

    def __init__(self, root, query_id):
        with open_pool(root) as pool:
            record = pool.by_query(query_id)
            prediction, self.confidence = pool.prediction(record)
            levels = superpixels(pool.image(record))
            self.patches, self.largest = levels[2], levels[4]
        self.prediction, self.label = prediction, prediction.copy()
        self.touched = np.zeros(SIZE, np.bool_)

    def paint(self, where, value):
        self.label[where] = value
        self.touched |= where

    def erase(self, where):
        self.label[where] = self.prediction[where]
        self.touched &= ~where

    def patch(self, x, y):
        return self.patches == self.patches[y, x]

    def patches_between(self, start, end):
        """Patches on the straight way from one pixel to another."""
        (x0, y0), (x1, y1) = start, end
        steps = max(abs(x1 - x0), abs(y1 - y0))
        numbers = {
            self.patches[int(y0 + (y1 - y0) * k / steps + 0.5), int(x0 + (x1 - x0) * k / steps + 0.5)]
            for k in range(steps + 1)
        }
        return np.isin(self.patches, list(numbers))

    def submitted(self, least=0.0):
        return np.where(self.touched | (self.confidence >= least * 255), self.label, 255)


def inside(corners):
    """Pixels whose centre lies inside a polygon: drawn sixteen times as large by OpenCV, looked up at the centres."""
    height, width = SIZE
    canvas = np.zeros((16 * height, 16 * width), np.uint8)
    cv2.fillPoly(canvas, [np.array(corners) * 16], 1)
    return canvas[8::16, 8::16] > 0


def stored(root, query_id):
    with open_pool(root) as pool:
        record = pool.by_query(query_id)
        return record, pool.label(record), pool.label_history(query_id)


def differing(expected, found):
    return int(np.count_nonzero(expected != found))


@pytest.fixture
def pool_root(tmp_path):
    return tmp_path / "pool"


def test_a_frame_is_corrected_by_mouse_pixel_by_pixel(pool_root, watched_page):
    first, second, _ = fill_pool(pool_root)
    expected = Expected(pool_root, first)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        page.wait_for_selector(".card")
        assert page.locator(".card").count() == 3
        assert "0 of 3 frames labelled" in page.inner_text("#progress-words")
        person.open(first)
        _correct(person, page, expected)
        page.click("input[name=rule][value=above]")
        page.fill("#share", "60")
        page.click("#submit")
        person.toast("Label stored")
        person.wait_for(second)  # the next one opens by itself
        person.watched.assert_clean()
    record, label, history = stored(pool_root, first)
    assert (record.state, record.annotator, len(history)) == ("labelled", "Ada", 1)
    assert differing(expected.submitted(0.6), label) == 0
    assert 0.02 < np.mean(label == 255) < 0.9
    with open_pool(pool_root) as pool:
        assert pool.verify() == []


def _correct(person, page, expected):
    """Every tool once, with an undo for good measure."""
    person.press("4")  # the class by its number; one fast drag leaves no patch on its way out
    person.drag((60, 30), (150, 40))
    expected.paint(expected.patches_between((60, 30), (150, 40)), 3)

    page.click(".tool[data-tool=region]")
    page.click(".class:has-text('sidewalk')")
    region = connected(expected.prediction, 10, 130) & connected(expected.label, 10, 130)
    person.click(10, 130)
    expected.paint(region, 4)

    page.click(".tool[data-tool=brush]")
    person.press("9")
    person.drag((100, 60), (140, 90), (100, 110))
    expected.paint(capsule(SIZE, (100, 60), (140, 90), RADIUS) | capsule(SIZE, (140, 90), (100, 110), RADIUS), 8)

    page.click(".tool[data-tool=fill]")
    person.press("3")
    person.click(120, 3)
    page.click("#undo")  # the fill is taken back
    person.press("2")
    person.click(200, 130)
    expected.paint(connected(expected.label, 200, 130), 1)

    page.click(".tool[data-tool=polygon]")
    person.press("u")
    for x, y in ((20, 20), (70, 25), (40, 70)):
        person.click(x + 0.25, y + 0.25)
    person.press("Enter")
    expected.paint(inside([(21, 21), (71, 26), (41, 71)]), 255)
    person.press("z")
    person.press("y")

    page.click(".tool[data-tool=eraser]")
    person.drag((110, 66), (118, 74))
    expected.erase(capsule(SIZE, (110, 66), (118, 74), RADIUS))


def test_the_draft_is_there_after_a_reload_and_after_the_server_was_killed(pool_root, watched_page):
    first, *_ = fill_pool(pool_root)
    expected = Expected(pool_root, first)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        person.open(first)
        person.press("4")
        person.click(60, 30)
        expected.paint(expected.patch(60, 30), 3)
        person.saved()
        page.reload()
        person.wait_for(first)
        person.toast("Your draft is back")
        person.press("9")
        person.click(150, 40)
        expected.paint(expected.patch(150, 40), 8)
        person.saved()
        server.stop(signal.SIGKILL)
        server.start()
        page.reload()
        person.wait_for(first)
        person.press("Control+Enter")
        person.toast("Label stored")
        person.watched.assert_clean()
    assert differing(expected.submitted(), stored(pool_root, first)[1]) == 0


def test_what_a_label_left_open_stays_open_in_the_draft_of_its_correction(pool_root, watched_page):
    first, *_ = fill_pool(pool_root)
    expected = Expected(pool_root, first)
    partial = expected.prediction.copy()
    partial[: SIZE[0] // 2] = 3
    partial[SIZE[0] // 2 :] = 255
    with open_pool(pool_root) as pool:
        pool.accept_label(first, partial, "Bob")
    expected.label = partial.copy()
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        page.click("#tabs button:has-text('Labelled')")
        person.open(first)
        figures = "#figures:has-text('50 % by you · 50 % left unlabelled')"
        page.wait_for_selector(figures)
        person.press("9")
        person.click(60, 30)
        person.press("z")
        person.saved()
        page.reload()
        person.toast("Your draft is back")
        person.wait_for(first)
        page.wait_for_selector(figures)
        person.press("9")
        person.click(60, 30)
        expected.paint(expected.patch(60, 30), 8)
        person.saved()
        page.reload()
        person.wait_for(first)
        person.press("Control+Enter")
        person.toast("Label stored")
        person.watched.assert_clean()
    assert differing(expected.label, stored(pool_root, first)[1]) == 0


def _held_up(page, pattern, act):
    """Act, and leave early: answers what it asked of the server (once called) to a page that has gone elsewhere."""
    held = []

    def hold(route):
        held.append(route)

    page.route(pattern, hold, times=1)
    act()
    while not held:
        page.wait_for_timeout(20)

    def answer():
        with page.expect_response(pattern):
            held[0].continue_()
        page.wait_for_timeout(500)  # what must not happen has no end to wait for

    return answer


@pytest.mark.parametrize("slow", ["open*", "image"])
def test_a_frame_that_was_left_while_it_was_loading_does_not_come_back(pool_root, watched_page, slow):
    first, second, _ = fill_pool(pool_root)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        answer = _held_up(page, f"**/api/queries/{first}/{slow}", lambda: page.click(f".card[data-id='{first}']"))
        page.go_back()
        page.wait_for_selector("#list:not([hidden])")
        person.open(second)
        answer()
        assert page.get_attribute("body", "data-ready") == second
        with closing(Desk(pool_root, 45.0)) as desk:
            assert set(desk.leases()) == {second}, "the other one was given back"
        person.press("4")
        person.click(60, 30)
        person.press("Control+Enter")
        person.toast("Label stored")
        person.wait_for(first)  # the next one: opened as ever
        person.watched.assert_clean()
    with open_pool(pool_root) as pool:
        assert [pool.by_query(name).state for name in (first, second)] == ["queried", "labelled"]


def test_a_label_that_is_stored_late_does_not_take_the_next_frame_away(pool_root, watched_page):
    first, second, _ = fill_pool(pool_root)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        person.open(first)
        person.press("4")
        person.click(60, 30)
        answer = _held_up(page, f"**/api/queries/{first}/label*", lambda: person.press("Control+Enter"))
        page.go_back()
        person.open(second)
        answer()
        person.toast("Label stored")
        assert page.url.endswith(second)
        assert page.get_attribute("body", "data-ready") == second
        person.press("4")
        person.click(60, 30)
        person.saved()
        person.watched.assert_clean()
    assert stored(pool_root, first)[0].state == "labelled"


def test_the_keyboard_alone_is_enough(pool_root, watched_page):
    first, second, third = fill_pool(pool_root)
    expected = Expected(pool_root, first)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        page.wait_for_selector(".card")
        while page.evaluate("document.activeElement.dataset.id") != first:
            person.press("Tab")
        person.press("Enter")
        person.wait_for(first)
        x, y = SIZE[1] // 2, SIZE[0] // 2
        person.press("5", "Shift+ArrowLeft", "Shift+ArrowLeft", "ArrowUp", "Space")
        x, y = x - 20, y - 1
        expected.paint(expected.patch(x, y), 4)
        person.press("b", "[", "9", "Shift+ArrowDown")
        y += 10
        page.keyboard.down("Space")
        person.press("Shift+ArrowRight", "ArrowDown")
        page.keyboard.up("Space")
        strokes = [((x, y), (x + 10, y)), ((x + 10, y), (x + 10, y + 1))]
        expected.paint(sum(capsule(SIZE, *ends, 6) for ends in strokes) > 0, 8)
        person.press("n", "f", "1", "Enter", "Control+z", "Control+Enter")
        person.toast("Label stored")
        person.wait_for(second)
        person.press("k")
        page.keyboard.type("nothing new")
        person.press("Enter")
        person.wait_for(third)
        person.press("Delete")
        page.keyboard.type("a face")
        person.press("Enter")
        page.wait_for_selector("#list:not([hidden])")
        person.watched.assert_clean()
    assert differing(expected.submitted(), stored(pool_root, first)[1]) == 0
    with open_pool(pool_root) as pool:
        assert [(pool.by_query(name).state, pool.by_query(name).reason) for name in (second, third)] == [
            ("skipped", "nothing new"),
            ("rejected", "a face"),
        ]
        assert not list((pool_root / "images").rglob(f"*{third.partition('-')[2]}*"))


def test_nothing_is_asked_about_a_frame_that_is_being_deleted(pool_root, watched_page):
    first, second, _ = fill_pool(pool_root)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        _held_up(page, f"**/{first}/superpixels/0", lambda: person.open(first))
        person.press("Delete")
        page.keyboard.type("a face")
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        answer = _held_up(page, f"**/{first}/reject", lambda: person.press("Enter"))
        page.wait_for_timeout(300)  # what must not be asked has no end to wait for
        answer()
        person.wait_for(second)
        person.watched.assert_clean()
    about_it = [url.split(f"{first}/")[1] for url in asked if first in url]
    assert about_it == ["reject", "close"]


def test_a_frame_that_could_not_be_deleted_is_worked_on_as_before(pool_root, watched_page):
    first, second, _ = fill_pool(pool_root)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        _held_up(page, f"**/{first}/superpixels/0", lambda: person.open(first))
        page.route(f"**/{first}/reject", lambda route: route.abort(), times=1)
        person.press("Delete")
        page.keyboard.type("a face")
        with page.expect_response(f"**/{first}/superpixels/0"):  # the rest is loaded after all
            person.press("Enter")
        person.toast("the server does not answer")
        person.press("4")
        person.click(60, 30)
        person.press("Control+Enter")
        person.toast("Label stored")
        person.wait_for(second)
    assert stored(pool_root, first)[0].state == "labelled"


def test_two_people_do_not_overwrite_each_other(pool_root, watched_page):
    first, second, _ = fill_pool(pool_root)
    with serving(pool_root, lease_s=600) as server:
        ada = Person(watched_page(server.origin), server.address)
        bob = Person(watched_page(server.origin), server.address, "Bob")
        ada.open(first)
        bob.page.reload()
        bob.page.wait_for_selector(f".card[data-id='{first}'] .taken")
        assert bob.page.inner_text(f".card[data-id='{first}'] .taken") == "Ada is on it"
        bob.page.click(f".card[data-id='{first}']")
        bob.page.wait_for_selector("dialog:has-text('being edited by Ada')")
        bob.press("Enter")
        ada.press("4")
        ada.click(60, 30)
        ada.press("Control+Enter")
        ada.toast("Label stored")
        ada.wait_for(second)
        bob.page.click("#tabs button:has-text('Labelled')")
        bob.open(first)  # a correction: the label that is there is where it begins
        bob.press("9")
        bob.click(150, 40)
        bob.press("Control+Enter")
        bob.toast("Label stored")
        assert "error: Failed to load resource" in bob.watched.errors[0]  # the browser's own word for the refusal
        ada.watched.assert_clean()
    expected = Expected(pool_root, first)
    expected.paint(expected.patch(60, 30), 3)
    one = expected.label.copy()
    expected.paint(expected.patch(150, 40), 8)
    _, label, history = stored(pool_root, first)
    assert differing(expected.label, label) == 0
    assert [(entry.version, entry.annotator) for entry in history] == [(1, "Ada"), (2, "Bob")]
    with open_pool(pool_root) as pool:
        assert differing(one, pool.read_label(history[0])) == 0


def test_a_draft_does_not_replace_the_label_that_came_after_it(pool_root, watched_page):
    first, *_ = fill_pool(pool_root)
    with serving(pool_root, lease_s=600) as server:
        bob = Person(watched_page(server.origin), server.address, "Bob")
        bob.open(first)
        bob.press("9")
        bob.click(150, 40)
        bob.saved()
        with bob.page.expect_response(f"**/api/queries/{first}/close"):
            bob.page.go_back()
        with open_pool(pool_root) as pool:  # over another way
            expected = Expected(pool_root, first)
            expected.paint(expected.patch(60, 30), 3)
            pool.accept_label(first, expected.label, "Ada")
        cem = Person(watched_page(server.origin), server.address, "Cem")
        cem.page.click("#tabs button:has-text('Labelled')")
        assert cem.page.locator(".card .draft").count() == 0
        bob.page.reload()
        bob.page.click("#tabs button:has-text('Labelled')")
        bob.page.click(f".card[data-id='{first}']:has(.draft)")
        bob.toast("Your draft is back; Ada answered meanwhile")
        bob.wait_for(first)
        bob.press("Control+Enter")
        bob.page.click("dialog:has-text('Ada answered') button:has-text('Keep theirs')")
        bob.page.wait_for_selector("#list:not([hidden])")
        bob.open(first)  # what Ada said, and no draft
        bob.press("2")
        bob.click(10, 130)
        bob.press("Control+Enter")
        bob.toast("Label stored")
        assert bob.watched.errors == [CONFLICT]
        cem.watched.assert_clean()
    expected.paint(expected.patch(10, 130), 1)
    _, label, history = stored(pool_root, first)
    assert differing(expected.label, label) == 0
    assert [entry.annotator for entry in history] == ["Ada", "Bob"]


def test_a_draft_may_replace_a_later_label_when_its_owner_says_so(pool_root, watched_page):
    first, *_ = fill_pool(pool_root)
    expected = Expected(pool_root, first)
    with serving(pool_root) as server:
        bob = Person(watched_page(server.origin), server.address, "Bob")
        bob.open(first)
        with open_pool(pool_root) as pool:
            pool.accept_label(first, np.full(SIZE, 3, np.uint8), "Ada")
        bob.press("9")
        bob.click(150, 40)
        expected.paint(expected.patch(150, 40), 8)
        bob.saved()  # after Ada's label, but without having seen it
        bob.page.reload()
        bob.toast("Your draft is back; Ada answered meanwhile")
        bob.wait_for(first)
        bob.press("Control+Enter")
        bob.page.click("dialog:has-text('Ada answered') button:has-text('Replace theirs by mine')")
        bob.toast("Label stored")
        assert bob.watched.errors == [CONFLICT]
    assert differing(expected.submitted(), stored(pool_root, first)[1]) == 0


def test_a_query_that_another_only_looks_at_costs_no_draft(pool_root, watched_page):
    first, *_ = fill_pool(pool_root)
    with serving(pool_root) as server, closing(Desk(pool_root, 45.0)) as desk:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        person.open(first)
        person.press("4")
        person.click(60, 30)
        person.saved()
        (holder,) = desk.leases().values()
        desk.release(first, holder.holder)  # as after a laptop's sleep
        desk.take(first, Who("tab", "ada", "Ada"))
        person.press("Control+Enter")
        person.toast("Your work is kept")
        assert page.locator("dialog[open]").count() == 0
        assert len(desk.drafts(page.evaluate("localStorage['ssada-person']"))) == 1
        desk.release(first, "tab")
        person.press("Control+Enter")
        person.toast("Label stored")
    assert stored(pool_root, first)[0].state == "labelled"


def test_a_suspicious_label_is_held_until_somebody_looks_again(pool_root, watched_page):
    first, *_ = fill_pool(pool_root, predictions=False)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        person.open(first)
        person.press("f", "4")
        person.click(100, 100)  # there is no prediction: all of it becomes road
        person.press("Control+Enter")
        person.page.wait_for_selector("dialog:has-text('It is held: all of it is')")
        assert stored(pool_root, first)[0].state == "held"
        person.page.click("dialog button:has-text('It is right')")
        person.toast("Label stored")
        person.watched.assert_clean()
    record, label, history = stored(pool_root, first)
    assert (record.state, set(np.unique(label)), len(history)) == ("labelled", {3}, 2)


def test_fingers_label_and_two_of_them_zoom_without_labelling(pool_root, watched_page):
    first, *_ = fill_pool(pool_root)
    expected = Expected(pool_root, first)
    with serving(pool_root) as server:
        watched = watched_page(server.origin, has_touch=True, viewport={"width": 800, "height": 1000})
        person = Person(watched, server.address)
        page = person.page
        page.tap(f".card[data-id='{first}']")
        person.wait_for(first)
        assert page.is_visible("#steps")  # somebody new is told what to do
        page.tap("#steps button")
        assert not page.is_visible("#steps")
        page.tap(".class:has-text('road')")
        page.touchscreen.tap(*person.place(60, 30))
        expected.paint(expected.patch(60, 30), 3)
        person.saved()
        before = page.locator("#overlay").bounding_box()["width"]
        _pinch(page, person.place(120, 72))
        assert page.locator("#overlay").bounding_box()["width"] > 1.5 * before
        page.tap("#fit")
        page.tap("#submit")
        person.toast("Label stored")
        person.watched.assert_clean()
    assert differing(expected.submitted(), stored(pool_root, first)[1]) == 0


def _pinch(page, middle):
    """Two fingers that part; the first one comes down a moment earlier, as it does."""
    session = page.context.new_cdp_session(page)
    x, y = middle

    def touch(kind, *offsets):
        points = [{"x": x + offset, "y": y, "id": number} for number, offset in enumerate(offsets)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", -20)
    touch("touchStart", -20, 20)
    for far in (40, 70, 100):
        touch("touchMove", -far, far)
    touch("touchEnd")


def test_unsure_places_are_shown_and_visited_and_only_the_clicked_class_changes(pool_root, watched_page):
    first, *_ = fill_pool(pool_root)
    expected = Expected(pool_root, first)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        page = person.page
        person.open(first)
        plain = page.evaluate("overlay.toDataURL()")
        person.press("h")
        assert page.evaluate("overlay.toDataURL()") != plain
        person.press("h")
        assert page.evaluate("overlay.toDataURL()") == plain
        person.press("n")
        page.wait_for_function("document.querySelector('#under').textContent.includes('sure')")
        person.press("d")
        assert not page.evaluate("overlay.getContext('2d').getImageData(0, 0, overlay.width, 60).data.some((v) => v)")
        person.press("d", "x", "9")
        person.press("]", "]")  # the largest patches, several classes in each
        x, y = 120, 70
        person.click(x, y)
        clicked = expected.largest == expected.largest[y, x]
        same = clicked & (expected.prediction == expected.prediction[y, x])
        assert 0 < same.sum() < clicked.sum()
        expected.paint(same, 8)
        person.press("v")
        assert page.is_visible("#raw")
        person.press("Control+Enter")
        person.toast("Label stored")
        person.watched.assert_clean()
    assert differing(expected.submitted(), stored(pool_root, first)[1]) == 0


def test_a_prediction_submitted_as_it_is_asks_whether_anybody_looked(pool_root, watched_page):
    first, *_ = fill_pool(pool_root)
    with serving(pool_root) as server:
        person = Person(watched_page(server.origin), server.address)
        person.open(first)
        person.press("Control+Enter")
        person.page.wait_for_selector("dialog:has-text('nothing in it differs from what the model predicts')")
        person.page.click("dialog button:has-text('It is right')")
        person.toast("Label stored")
        person.watched.assert_clean()
    assert stored(pool_root, first)[0].state == "labelled"
