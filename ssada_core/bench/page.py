"""What the annotation page costs a person: opening a query, repainting after a click; in a real browser, by its clock.

Needs Playwright and Chromium (``pip install 'ssada_ros[test]'``, ``apt-get install chromium``).
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ssada_core.annotation.page_process import PageProcess
from ssada_core.annotation.serve import AnnotateJob
from ssada_core.annotation.settings import AnnotateSettings
from ssada_core.data.samples import Array
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.errors import SsadaError, require
from ssada_core.labels import CAMVID
from ssada_core.store.pool import Choice, FramePool, PoolSettings

OPEN_LIMIT_MS, CLICK_LIMIT_MS = 1000.0, 50.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_POOL = PoolSettings(keep_free_share=0.0, rate=1000.0, duplicate_threshold=0.0, standstill_threshold=0.0)
_START_S = 60.0

# From the click on a query until its frame can be edited, and has been painted.
_OPEN = """id => new Promise((done) => {
  const begin = performance.now();
  new MutationObserver((_, observer) => {
    if (document.body.dataset.ready !== id) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin)));
  }).observe(document.body, { attributes: true });
  document.querySelector(`.card[data-id="${id}"]`).click();
})"""
# From the press of the button until the next frame has been painted.
_WATCH_CLICKS = """() => {
  window.clicks = [];
  document.querySelector("#marks").addEventListener("pointerdown", (event) => {
    requestAnimationFrame(() => setTimeout(() => window.clicks.push(performance.now() - event.timeStamp)));
  }, { capture: true });
}"""


def run_page_bench(
    *, size: tuple[int, int] = (720, 1280), frames: int = 6, clicks: int = 20, log: Callable[[str], None]
) -> dict[str, Any]:
    """Open queries of a simulated night and click on patches.

    Args:
        size: height and width of the frames.
        frames: queries to open.
        clicks: patches to click in each of them.
        log: gets lines of progress.

    Raises:
        MissingExtraError: if Playwright or the server's packages are not installed.
        SsadaError: if there is no browser, or the page does not start.
    """
    playwright: Any = require("playwright.sync_api", extra="test", purpose="the page's benchmark")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SsadaError("there is no Chromium: apt-get install --no-install-recommends chromium")
    with tempfile.TemporaryDirectory() as folder, playwright.sync_playwright() as driver:
        queries = _fill(Path(folder) / "pool", size, frames)
        with _served(Path(folder) / "pool", log) as address:
            opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-dev-shm-usage"])
            try:
                opens, repaints = _measure(opened, address, queries, clicks)
            finally:
                opened.close()
    return {
        "size": f"{size[1]}x{size[0]}",
        "open_ms": _figures(opens, OPEN_LIMIT_MS),
        "click_ms": _figures(repaints, CLICK_LIMIT_MS),
    }


def _fill(root: Path, size: tuple[int, int], frames: int) -> list[str]:
    drive = SimulatedDrive(seed=3, size=size, rate=1.0)
    with FramePool(root, _POOL, label_space=CAMVID) as pool:
        labels = {}
        for index in range(frames):
            image, label = drive.frame(5 * index, "night")
            record = pool.add(image, camera="front", stamp_ns=index * 10**9).record
            if record is not None:
                labels[record.id] = label
        records = pool.query([Choice(number, 1.0 - 0.01 * number, False, "") for number in labels])
        for record in records:
            pool.set_prediction(record.id, *_prediction(labels[record.id]))
        return [str(record.query_id) for record in records]


def _prediction(label: Array) -> tuple[Array, Array]:
    """What a middling model would say: coarse, and unsure in places."""
    height, width = label.shape
    known = np.where(label < CAMVID.num_classes, label, 1).astype(np.uint8)
    coarse = cv2.resize(known, (width // 16, height // 16), interpolation=cv2.INTER_NEAREST)
    doubt = np.random.default_rng(0).integers(90, 255, (9, 16)).astype(np.uint8)
    planes = (cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST), cv2.resize(doubt, (width, height)))
    return np.asarray(planes[0], np.uint8), np.asarray(planes[1], np.uint8)


@contextmanager
def _served(root: Path, log: Callable[[str], None]) -> Iterator[str]:
    found: list[str] = []
    ready = threading.Event()

    def hear(words: str) -> None:
        log(words)
        if "http://" in words and not ready.is_set():
            found.append(words.partition("http://")[2].rstrip("/"))
            ready.set()

    job = AnnotateJob(
        pool_dir=str(root), label_space=CAMVID.to_dict(), pool=_POOL, annotate=AnnotateSettings(port=0, lease_s=3600)
    )
    page = PageProcess(job, hear)
    try:
        if not ready.wait(_START_S):
            raise SsadaError(f"the annotation page did not start in {_START_S:g} s")
        yield f"http://{found[0]}"
    finally:
        page.close()


def _measure(
    browser: Any,  # noqa: ANN401 (Playwright's)
    address: str,
    queries: list[str],
    clicks: int,
) -> tuple[list[float], list[float]]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.add_init_script("localStorage.setItem('ssada-name', 'bench')")
    opens, repaints = [], []
    rng = np.random.default_rng(1)
    for query in queries:
        page.goto(address)
        page.wait_for_selector(f".card[data-id='{query}']")
        opens.append(float(page.evaluate(_OPEN, query)))
        page.wait_for_selector("body[data-patches]")
        page.evaluate(_WATCH_CLICKS)
        box = page.locator("#overlay").bounding_box()
        for number in range(clicks):
            page.keyboard.press(str(1 + number % 9))
            x, y = rng.uniform(0.02, 0.98, 2)
            page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_function("clicks => window.clicks.length >= clicks", arg=clicks)
        repaints += [float(value) for value in page.evaluate("window.clicks")]
    return opens, repaints


def _figures(values: list[float], limit: float) -> dict[str, Any]:
    return {
        "median": round(float(np.median(values)), 1),
        "p90": round(float(np.percentile(values, 90)), 1),
        "most": round(max(values), 1),
        "limit": limit,
        "count": len(values),
    }
