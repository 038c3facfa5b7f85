"""The operator as users see it: a real App in a real browser, from the form to masks on the picture."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from tests.app_server import AppServer
from tests.browser import CONFIG, SCREENSHOTS, SECONDS, open_dataset, open_form, save
from tests.modal import Modal

FRAME = 4  # index from 0 of the frame to look at; one where all has moved


@pytest.fixture
def demo(fiftyone_home, tmp_path):
    name = "refvos-demo" if SCREENSHOTS else f"test-{uuid4().hex[:12]}"
    dataset = rv.demo.load(num_videos=6 if SCREENSHOTS else 1, config=CONFIG, folder=tmp_path, name=name)
    yield dataset
    dataset.delete()


@pytest.fixture
def server(demo, tmp_path):
    with AppServer(tmp_path / "server.log") as server:
        yield server


def test_from_the_form_to_masks_on_the_picture(page, server, demo, tmp_path):
    open_dataset(page, f"{server.url}/datasets/{demo.name}")
    prompt = demo.first().expressions.detections[0].label
    form = open_form(page, "segment_expressions", "Label field")
    form.locator("textarea:visible").fill(prompt)
    form.get_by_text("Prompt field").wait_for(state="hidden")  # the form has answered what was typed
    save(page, tmp_path, "operator_form.png", documented=True)
    maps = Path(f"/proc/{server.pid}/maps")  # Linux only
    assert not maps.exists() or "libtorch" not in maps.read_text(), "a form has to be cheap"

    form.get_by_role("button", name="Execute").click()
    page.get_by_text(re.compile(r"Loading glus-tiny|\d+/\d+ videos")).first.wait_for()
    report = page.get_by_role("dialog").filter(has_text="written into 'frames.glus_tiny'")
    report.wait_for(timeout=90 * SECONDS)
    save(page, tmp_path, "report.png")
    assert f"{len(demo)} masklets written" in report.inner_text()
    report.get_by_role("button", name="Done").click()
    page.get_by_role("dialog").wait_for(state="hidden")  # no progress bar is left over
    assert page.locator('[data-cy="checkbox-frames.glus_tiny"] input').is_checked()

    demo.reload()
    modal = Modal(page, ("expressions", "frames.ground_truth", "frames.glus_tiny"), FRAME, CONFIG.frame_rate)
    modal.open()
    for field in ("ground_truth", "glus_tiny"):
        masklets = fields.read_masklets(demo.first(), field)
        mask = np.any([masklet.union(FRAME) for masklet in masklets if FRAME in masklet.frames], axis=0)
        modal.drawn(f"frames.{field}", mask)
    modal.show_only("frames.ground_truth", "frames.glus_tiny")
    save(page, tmp_path, "masks_in_app.png", documented=True)
