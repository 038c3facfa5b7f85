"""A browser on a running App: what all tests of the App begin with.

With REFVOS_SCREENSHOTS=<folder> the pictures of the documentation are written there, from larger videos:

    REFVOS_SCREENSHOTS=docs/images python -m pytest tests/test_browser*.py
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fiftyone_refvos.demo import DemoConfig

SCREENSHOTS = os.environ.get("REFVOS_SCREENSHOTS")
CONFIG = DemoConfig(height=360, width=640) if SCREENSHOTS else DemoConfig(height=96, width=160, num_frames=8)
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS = 1000  # in the milliseconds of Playwright


def _unavailable(what: str) -> None:
    """Skips the test, which on CI would hide that nobody looked."""
    reason = f"{what}: `bash scripts/browser.sh` installs what the tests of the App need"
    if os.environ.get("REFVOS_REQUIRE_SHARED"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def open_page(folder: Path) -> Iterator[Any]:
    """A tab of Chromium; JavaScript errors fail the test, and its end is kept in a picture in the folder."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        _unavailable("no executable named chromium on PATH")
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(30 * SECONDS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            yield page
        finally:
            page.screenshot(path=folder / "last.png")  # what there was to see when a test failed
            browser.close()
    assert errors == []


def open_dataset(page: Any, url: str) -> None:
    """Opens a dataset, and waits for its grid."""
    page.goto(url)
    page.locator('[data-cy="looker"]').first.wait_for()
    dismiss_promotion(page)


def dismiss_promotion(page: Any) -> None:
    """Takes away what covers a part of the page."""
    promotion = page.get_by_text("Dismiss")
    if promotion.count():
        promotion.first.evaluate("button => button.click()")


def browse_operators(page: Any, label: str, text: str) -> Any:
    """Opens an operator from the list of all, as where there is no dataset, and returns its form."""
    page.keyboard.press("Backquote")
    page.get_by_placeholder("Search operations by name").fill(label)
    page.get_by_text(label, exact=True).first.click()
    form = page.locator('[data-cy="operators-prompt-modal"]')
    form.get_by_text(text).first.wait_for()
    return form


def open_form(page: Any, operator: str, text: str) -> Any:
    """Opens an operator by its button above the grid, and returns its form once it shows a text."""
    page.locator(f'[data-item-id="@fiftyone-refvos/refvos/{operator}"]').click()
    form = page.locator('[data-cy="operators-prompt-modal"]')
    form.get_by_text(text).first.wait_for()
    return form


def save(page: Any, folder: Path, name: str, *, documented: bool = False) -> None:
    """Keeps what is to be seen, where it is documented for the documentation, too."""
    page.screenshot(path=folder / name)
    if SCREENSHOTS and documented:
        shutil.copy(folder / name, SCREENSHOTS)
