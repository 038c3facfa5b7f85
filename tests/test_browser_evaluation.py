"""Measuring in the App: a real browser, from the forms to the tables and the views they lead to."""

from __future__ import annotations

import pytest

from tests.app_server import AppServer
from tests.browser import CONFIG, SCREENSHOTS, SECONDS, open_dataset, open_form
from tests.measured import measured_demo


@pytest.fixture
def demo(fiftyone_home, tmp_path):
    dataset = measured_demo(tmp_path, CONFIG, name="refvos-demo" if SCREENSHOTS else None)
    yield dataset
    dataset.delete()


@pytest.fixture
def server(demo, tmp_path):
    with AppServer(tmp_path / "server.log") as server:
        yield server


def test_look(page, server, demo, tmp_path):
    open_dataset(page, f"{server.url}/datasets/{demo.name}")
    form = open_form(page, "evaluate_masklets", "Protocol")
    page.wait_for_timeout(1000)
    page.screenshot(path="/tmp/ops3/form.png")
    form.get_by_role("button", name="Execute").click()
    page.wait_for_timeout(800)
    page.screenshot(path="/tmp/ops3/progress.png")
    report = page.get_by_role("dialog").filter(has_text="videos evaluated")
    report.wait_for(timeout=60 * SECONDS)
    page.wait_for_timeout(1000)
    page.screenshot(path="/tmp/ops3/report.png")
    report.get_by_role("button", name="Show the worst").click()
    page.wait_for_timeout(3000)
    page.screenshot(path="/tmp/ops3/after.png")
    report.get_by_role("button", name="Done").click()
    page.wait_for_timeout(1500)
    page.screenshot(path="/tmp/ops3/grid.png")
    print([t.inner_text() for t in page.locator('[data-cy="looker"]').all()])
    form = open_form(page, "find_failures", "Failures to show")
    page.wait_for_timeout(1000)
    page.screenshot(path="/tmp/ops3/f_form.png")
    form.get_by_role("button", name="Execute").click()
    report = page.get_by_role("dialog").filter(has_text="Kind of failure")
    report.wait_for(timeout=60 * SECONDS)
    page.wait_for_timeout(2000)
    page.screenshot(path="/tmp/ops3/f_report.png")
    report.get_by_role("button", name="Done").click()
    page.wait_for_timeout(1500)
    page.screenshot(path="/tmp/ops3/f_grid.png")
