"""Measuring in the App: a real browser, from the forms to the tables and the views they lead to."""

from __future__ import annotations

import pytest

import fiftyone_refvos as rv
from tests.app_server import AppServer
from tests.browser import CONFIG, SCREENSHOTS, SECONDS, open_dataset, open_form, save
from tests.measured import measured_demo

NUM_VIDEOS = 6 if SCREENSHOTS else 3
DRAWING = 1000  # milliseconds; nothing tells when the App has drawn


@pytest.fixture
def demo(fiftyone_home, tmp_path):
    dataset = measured_demo(tmp_path, CONFIG, name="refvos-demo" if SCREENSHOTS else None, num_videos=NUM_VIDEOS)
    yield dataset
    dataset.delete()


@pytest.fixture
def server(demo, tmp_path):
    with AppServer(tmp_path / "server.log") as server:
        yield server


def test_from_the_form_to_the_numbers_and_the_worst_videos(page, server, demo, tmp_path):
    open_dataset(page, f"{server.url}/datasets/{demo.name}")
    form = open_form(page, "evaluate_masklets", "Protocol")
    save(page, tmp_path, "evaluation_form.png")
    form.get_by_role("button", name="Execute").click()
    report = wait_for_report(page, "videos evaluated")
    demo.reload()
    for value in demo.load_evaluation_results("model_eval").metrics().values():
        assert f"{value:.4f}" in report.inner_text()
    report.get_by_role("button", name="Show the worst videos first").click()
    worst = demo.sort_by("model_eval_JF")
    wait_for_grid(page, worst)
    save(page, tmp_path, "evaluation_in_app.png", documented=True)
    close(page, report)

    form = open_form(page, "find_failures", "Failures to show")
    assert "'model' against 'ground_truth' by mevis" in form.inner_text()
    form.get_by_role("button", name="Execute").click()
    report = wait_for_report(page, "Kind of failure")
    demo.reload()
    failures = rv.show_failures(demo.load_saved_view("model_eval: worst first"), "model_eval")  # the grid's view
    assert 0 < len(failures) < len(demo)
    for kind, number in demo.count_values("expressions.detections.model_eval_failure").items():
        line = f"Expressions without failure: {number}" if kind == "none" else f"{kind} {number}"
        assert line in " ".join(report.inner_text().split())
    wait_for_grid(page, failures)  # right away
    save(page, tmp_path, "failures_report.png")
    report.get_by_role("button", name="Back to the former view").click()
    wait_for_grid(page, worst)
    close(page, report)

    page.locator('[data-cy="saved-views-selection"]').click()
    page.get_by_text("model_eval: failures").click()
    wait_for_grid(page, failures)
    save(page, tmp_path, "failures_in_app.png", documented=True)


def wait_for_report(page, text: str):
    """The dialog with this text, which has taken the place of the progress bar."""
    report = page.get_by_role("dialog").filter(has_text=text)
    report.wait_for(timeout=60 * SECONDS)
    assert page.get_by_role("progressbar").count() == 0
    return report


def close(page, report) -> None:
    report.get_by_role("button", name="Done").click()
    page.get_by_role("dialog").wait_for(state="hidden")


def wait_for_grid(page, view) -> None:
    """Waits until the grid shows the samples of a view in its order."""
    cells = page.locator('[data-cy="looker"]')
    for position, labels in enumerate(view.values("expressions.detections.label")):
        cells.nth(position).filter(has_text=labels[0]).wait_for()
    cells.nth(len(view)).wait_for(state="detached")
    page.wait_for_timeout(DRAWING)
