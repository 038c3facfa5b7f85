"""Voting in the App: from the form to the clips of what the members dispute."""

from __future__ import annotations

import fiftyone_refvos as rv
from tests.app_server import AppServer
from tests.browser import CONFIG, open_dataset, open_form, save
from tests.measured import FLAWS, measured_demo, spoil


def test_from_the_form_to_the_most_disputed_expressions(page, fiftyone_home, tmp_path):
    demo = measured_demo(tmp_path, CONFIG)
    for field, flaws in (("second", FLAWS[:1] * 3), ("third", reversed(FLAWS))):
        for sample, flaw in zip(demo, flaws, strict=True):
            spoil(sample, field, flaw)
    try:
        with AppServer(tmp_path / "server.log") as server:
            open_dataset(page, f"{server.url}/datasets/{demo.name}")
            form = open_form(page, "vote", "Fields that vote")
            save(page, tmp_path, "vote_form.png", documented=True)
            form.get_by_role("button", name="Execute").click()
            report = page.get_by_role("dialog").filter(has_text="Most disputed")
            report.wait_for()
            demo.reload()
            disputed = rv.most_disputed(demo, "voted")
            assert f"{disputed.first().expressions.voted_agreement:.4f}" in report.inner_text()
            save(page, tmp_path, "vote_report.png")
            report.get_by_role("button", name="Show the most disputed first").click()
            cells = page.locator('[data-cy="looker"]')
            cells.nth(3).wait_for()  # a cell per expression; the grid of the videos has three
            cells.nth(0).filter(has_text=disputed.first().expressions.label).wait_for()
            page.wait_for_timeout(1000)  # nothing tells when the App has drawn
            save(page, tmp_path, "disputed_in_app.png", documented=True)
    finally:
        demo.delete()
