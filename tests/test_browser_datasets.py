"""Datasets in the App: a real browser, from a page without any dataset to imported masks and exported files."""

from __future__ import annotations

import re

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.fields import read_masklets
from tests.app_server import AppServer
from tests.browser import SCREENSHOTS, SECONDS, browse_operators, dismiss_promotion, save
from tests.mevis_folder import demo_mevis
from tests.modal import Modal, best_shift

# As large as the videos of MeViS; of odd sizes otherwise, so that the mp4 is padded.
CONFIG = DemoConfig(height=480, width=854) if SCREENSHOTS else DemoConfig(height=95, width=161, num_frames=8)
NUM_VIDEOS = 3 if SCREENSHOTS else 1
PATH = "input:not([aria-hidden='true'])"  # the first input of the forms
FRAME = 4


@pytest.fixture
def server(dataset, tmp_path):  # without any dataset there is a page of welcome alone
    with AppServer(tmp_path / "server.log") as server:
        yield server


def test_from_a_folder_to_masks_on_the_objects_and_back_to_files(page, server, tmp_path):
    root = demo_mevis(tmp_path / "mevis", CONFIG, NUM_VIDEOS)
    demo_mevis(root, CONFIG, 1, split="valid_u")
    page.goto(server.url)
    page.get_by_text("No dataset selected").wait_for()
    dismiss_promotion(page)
    form = browse_operators(page, "Import referring dataset", "Folder of the dataset")
    form.locator(PATH).first.fill(str(root))
    form.get_by_role("cell", name="valid_u").wait_for()
    form.get_by_title("Choose a directory").nth(1).wait_for()
    save(page, tmp_path, "import_form.png", documented=True)
    told = form.inner_text()
    assert re.search(rf"train\s+{NUM_VIDEOS}\s+{NUM_VIDEOS * CONFIG.num_frames}\s+\d+\s+yes", told)
    assert f"{NUM_VIDEOS + 1} are encoded, about" in told
    form.get_by_label("valid_u").uncheck()
    form.get_by_role("cell", name="valid_u").wait_for(state="hidden")

    form.get_by_role("button", name="Execute").click()
    close_report(page, f"{NUM_VIDEOS} samples imported into the dataset 'mevis'")
    assert page.url.endswith("/datasets/mevis")
    dataset = fo.load_dataset("mevis")
    modal = Modal(page, ("expressions", "frames.ground_truth"), FRAME, 24)
    modal.open()
    masklets = read_masklets(dataset.first(), "ground_truth", exact=True)
    mask = np.any([masklet.union(FRAME) for masklet in masklets], axis=0)
    assert mask.shape == (CONFIG.height, CONFIG.width)
    changed = modal.drawn("frames.ground_truth", mask)
    assert best_shift(changed, mask) == (0, 0)
    save(page, tmp_path, "mevis_in_app.png", documented=True)
    modal.close()

    form = browse_operators(page, "Export masklets", "Format")
    form.get_by_role("combobox").first.click()
    page.get_by_role("option", name="MeViS").first.click()
    form.get_by_text("Images and videos", exact=True).wait_for()  # the form has answered
    form.locator(PATH).last.fill(str(tmp_path / "out"))
    form.get_by_text(f"{NUM_VIDEOS} samples, ").wait_for()
    form.locator("button:enabled", has_text="Execute").first.wait_for()
    save(page, tmp_path, "export_form.png", documented=True)
    form.get_by_role("button", name="Execute").click()
    close_report(page, f"The masklets of 'ground_truth' are in {tmp_path / 'out'}")
    assert (tmp_path / "out" / "train" / "mask_dict.json").is_file()
    dataset.delete()


def close_report(page, text: str) -> None:
    report = page.get_by_role("dialog").filter(has_text=text)
    report.wait_for(timeout=90 * SECONDS)
    report.get_by_role("button", name="Done").click()
    page.get_by_role("dialog").wait_for(state="hidden")
