"""Images in the App: a real browser, from the form to masks on the picture and the published numbers of images."""

from __future__ import annotations

import numpy as np
import pytest

from fiftyone_refvos.fields import read_masklets
from tests.app_server import AppServer
from tests.browser import SECONDS, open_dataset, open_form, save
from tests.modal import ImageModal, best_shift
from tests.referred_images import CASE, add_published_case
from tests.small_mllmseg import checkpoint_of

PATH = "input:not([aria-hidden='true'])"  # the first input of the form


@pytest.fixture
def images(dataset, tmp_path):
    return add_published_case(dataset, turned_into=tmp_path)


@pytest.fixture
def server(images, tmp_path):
    with AppServer(tmp_path / "server.log") as server:
        yield server


def test_from_the_form_to_masks_on_turned_pictures_and_their_evaluation(server, page, images, tmp_path):
    # the page comes after the server, so that it never asks one that is gone
    open_dataset(page, f"{server.url}/datasets/{images.name}")
    form = open_form(page, "segment_expressions", "Label field")
    form.get_by_role("combobox").first.click()
    page.get_by_role("option", name="mllmseg-8b-res").click()
    form.locator(PATH).first.fill(str(checkpoint_of(CASE)))
    form.get_by_text("The first run downloads").wait_for(state="hidden")  # the form has answered what was typed
    save(page, tmp_path, "image_form.png")
    form.get_by_role("button", name="Execute").click()
    report = page.get_by_role("dialog").filter(has_text="6 masklets written into 'mllmseg_8b_res'")
    report.wait_for(timeout=120 * SECONDS)
    assert "Images segmented: 2" in " ".join(report.inner_text().split())
    save(page, tmp_path, "image_report.png")
    report.get_by_role("button", name="Done").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    assert page.locator('[data-cy="checkbox-mllmseg_8b_res"] input').is_checked()

    images.reload()
    modal = ImageModal(page, ("expressions", "ground_truth", "mllmseg_8b_res"))
    modal.open()
    for field in ("ground_truth", "mllmseg_8b_res"):
        masklets = read_masklets(images.first(), field, exact=True)
        mask = np.any([masklet.union(0) for masklet in masklets], axis=0)
        changed = modal.drawn(field, mask)
        assert best_shift(changed, mask) == (0, 0)
    save(page, tmp_path, "images_in_app.png")
    modal.close()

    form = open_form(page, "evaluate_masklets", "Protocol")
    form.get_by_role("button", name="Execute").click()
    report = page.get_by_role("dialog").filter(has_text="6 expressions of 2 images evaluated")
    report.wait_for(timeout=60 * SECONDS)
    told = report.inner_text()
    images.reload()
    for name, value in images.load_evaluation_results("mllmseg_8b_res_eval").metrics().items():
        assert name in told
        assert f"{value:.2f}" in told
    save(page, tmp_path, "image_evaluation.png")
