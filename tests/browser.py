"""Debian's Chromium without a window, driven by playwright; what a page fetches from elsewhere fails the test."""

import os
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 60  # that anything on a page may take; the machine may be busy
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def page_at(address, size=WIDE):
    """An open page; afterwards there was no error in its scripts, and nothing was asked of another machine.

    The name of the folder of screenshots, for people to look at, is in the variable `NEURAL_CLIP_SCREENSHOTS`.
    """
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; `make browser` installs it")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    faults, elsewhere = [], []
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            page = browser.new_page(viewport=size)
            page.set_default_timeout(1000 * SECONDS)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("request", lambda request: elsewhere.append(request.url) if _is_elsewhere(request.url) else None)
            page.route(_is_elsewhere, lambda route: route.abort())
            page.goto(address)
            yield page
        finally:
            browser.close()
    assert not faults and not elsewhere


def _is_elsewhere(address):
    parts = urlsplit(address)
    return parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1"


def fits(page):
    """Whether nothing reaches beyond the right edge of the window."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def photograph(page, name):
    """Keep a screenshot where the variable names a folder for them."""
    if folder := os.environ.get("NEURAL_CLIP_SCREENSHOTS"):
        page.screenshot(path=os.path.join(folder, name), full_page=True)
