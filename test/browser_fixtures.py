"""A real Chromium for tests of pages, and a page that remembers what a user would not forgive.

The fixtures ``browser`` and ``watched_page`` are there for every test (``conftest.py``). The browser is Debian's
(``apt-get install chromium``), driven by Playwright; where either is missing the tests are skipped and say why.
``SSADA_TEST_CHROMIUM`` names another executable.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
OWN_SCHEMES = {"file", "data", "blob", "about"}
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]


def chromium() -> Path:
    """Path of the browser, or a skip that says how to get it."""
    named = os.environ.get("SSADA_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install --no-install-recommends chromium")
    return Path(found)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless browser; the thread's asyncio loop is Playwright's until it is closed."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")
    executable = chromium()
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(executable), args=ARGUMENTS, timeout=120_000)
        try:
            yield opened
        finally:
            opened.close()


class WatchedPage:
    """A page, and what went wrong in it.

    Attributes:
        page: Playwright's.
        errors: messages of the console (errors and warnings) and uncaught exceptions.
        outside: addresses asked for that are neither files nor on ``origin``.
    """

    def __init__(self, page: Page, origin: str | None = None) -> None:
        self.page = page
        self.errors: list[str] = []
        self.outside: list[str] = []
        self._origin = origin
        page.set_default_timeout(60_000)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._on_request)

    def _on_console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        own = parts.scheme in OWN_SCHEMES or f"{parts.scheme}://{parts.netloc}" == self._origin
        if not own:
            self.outside.append(request.url)

    def assert_clean(self) -> None:
        """Nothing on the console, nothing asked of the outside."""
        assert self.errors == [], self.errors
        assert self.outside == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a file."""
    with open_browser() as opened:
        yield opened


@pytest.fixture
def watched_page(browser: Browser) -> Iterator[Callable[..., WatchedPage]]:
    """Opens pages in contexts of their own: ``watched_page(origin=None, **context options)``; closed after the test.

    ``origin`` (``http://127.0.0.1:8123``) is the only server the page may talk to; for a file give none.
    """
    with ExitStack() as undo:

        def open_page(origin: str | None = None, **options: Any) -> WatchedPage:
            context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
            undo.callback(context.close)
            return WatchedPage(context.new_page(), origin)

        yield open_page
