"""The operator as users see it: a real App in a real browser, from the form to masks on the picture."""

from __future__ import annotations

import io
import re
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from tests.app_server import AppServer
from tests.browser import CONFIG, SCREENSHOTS, SECONDS, open_dataset, open_form, save

DRAWING = 500  # milliseconds; nothing tells when the App has drawn
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
    open_sample(page)
    for field in ("ground_truth", "glus_tiny"):
        masklets = fields.read_masklets(demo.first(), field)
        mask = np.any([masklet.union(FRAME) for masklet in masklets if FRAME in masklet.frames], axis=0)
        assert_drawn(page, field, mask)
    show_only(page, "frames.ground_truth", "frames.glus_tiny")
    save(page, tmp_path, "masks_in_app.png", documented=True)


def open_sample(page) -> None:
    """Opens the first sample of the grid."""
    page.locator('[data-cy="looker"]').first.click()
    page.locator('[data-cy="modal"] [data-cy="checkbox-frames.glus_tiny"]').wait_for()
    page.locator('[data-cy="modal"] [canvas-loaded="true"]').wait_for()


def show_frame(page, frame: int) -> None:
    """Steps forward to the frame with this index."""
    time = f"0:00.{100 * frame // CONFIG.frame_rate:02d} /"
    controls = page.get_by_test_id("timeline-controls-root")
    for _ in range(frame + 1):
        before = controls.inner_text()
        if before.startswith(time):
            break
        page.get_by_label("Step forward").click()
        controls.filter(has_not_text=before).wait_for()
    assert controls.inner_text().startswith(time)
    page.wait_for_timeout(DRAWING)


def show_only(page, *names: str) -> None:
    """Ticks these label fields of the open sample in the sidebar, and no others."""
    for name in ("expressions", "frames.ground_truth", "frames.glus_tiny"):
        box = page.locator(f'[data-cy="modal"] [data-cy="checkbox-{name}"] input')
        box.set_checked(name in names)
    page.wait_for_timeout(DRAWING)
    show_frame(page, FRAME)  # FiftyOne goes back to the first frame when the fields of frames change


def picture(page, size: tuple[int, int]) -> NDArray[np.int64]:
    """The video of the open sample as it is shown, `(H, W, 3)` at the given (H, W)."""
    box = page.locator('[data-cy="modal"] canvas').first.bounding_box()
    scale = min(box["width"] / size[1], box["height"] / size[0])  # the video is fitted into the middle
    width, height = size[1] * scale, size[0] * scale
    clip = {
        "x": box["x"] + (box["width"] - width) / 2,
        "y": box["y"] + (box["height"] - height) / 2,
        "width": width,
        "height": height,
    }
    shown = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    return np.asarray(shown.resize((size[1], size[0]), Image.Resampling.NEAREST), dtype=int)


def assert_drawn(page, field: str, mask: NDArray[np.bool_]) -> None:
    """Compares what a label field adds to the picture with its masks in this frame, `(H, W)`."""
    assert 0 < mask.mean() < 1, f"the masks of {field} cannot be told from the picture"
    show_only(page)
    without = picture(page, mask.shape)
    show_only(page, f"frames.{field}")
    changed = (np.abs(picture(page, mask.shape) - without) > 8).any(axis=2)
    assert changed[mask].mean() > 0.95
    assert changed[~mask].mean() < 0.25  # boxes and texts are drawn, too
