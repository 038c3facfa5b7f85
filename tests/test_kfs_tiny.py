"""The selector that ships: it is the one of the committed figures, and they can be measured again."""

from __future__ import annotations

import json
from dataclasses import replace

import fiftyone.zoo as foz
import pytest
import torch

from benchmarks.key_frames import OURS, RESULTS, check_mean, target_video
from fiftyone_refvos.demo.quality import measure_video
from fiftyone_refvos.demo.quality_card import weights_digest
from fiftyone_refvos.masklet import Expression, Masklet
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.registry import SHIPPED, shipped_size
from fiftyone_refvos.models.selector.loading import load_named_selector
from fiftyone_refvos.zoo import SelectorModel

FIGURES = json.loads((RESULTS / "key_frames.json").read_text(encoding="utf-8"))


def test_it_is_small_and_the_figures_are_of_its_weights() -> None:
    assert shipped_size(OURS) < 15e6
    for name in ("glus-tiny", OURS):
        assert FIGURES["weights"][name] == weights_digest(SHIPPED / name)


def test_it_loads_from_the_zoo_without_a_folder() -> None:
    model = foz.load_zoo_model(OURS, device="cpu")
    assert isinstance(model, SelectorModel)
    assert model.selector.network.config.words == "glus"


def test_key_frames_and_masks_of_a_test_video_are_those_of_the_committed_figures() -> None:
    rows = {row["id"]: row for row in FIGURES["expressions"] if row["video"] == 0}
    video = target_video(0)
    asked = [Expression(each.id, each.text) for each in video.expressions]
    keys = load_named_selector(OURS, device="cpu", dtype="float32").select(video, asked)
    assert keys == {id_: row["keys"][OURS] for id_, row in rows.items()}
    (motion,) = (each for each in video.expressions if each.kind == "motion")
    part, where = replace(video, expressions=(motion,)), {motion.id: keys[motion.id]}
    some = [Expression(motion.id, motion.text)]
    segmenter = load_segmenter("glus-tiny", device="cpu", dtype="float32")
    masklets = Masklet.collect(segmenter.segment(part, some, key_frames=where), some, key_frames=where)
    (measured,) = measure_video(part, 0, masklets)
    assert pytest.approx(rows[motion.id]["JF"][OURS], abs=0.01) == measured.JF


def test_a_checkpoint_that_is_not_the_mean_of_the_trainings_is_refused() -> None:
    first, second = ({"weight": torch.tensor(values)} for values in ([1.0, -2.0], [3.0, 2.0]))
    check_mean([{"weight": torch.tensor([2.0, 0.001])}, first, second])
    check_mean([first])  # nothing is said of a single one
    with pytest.raises(SystemExit, match="'weight' of the checkpoint is not the mean of those of the 2 trainings"):
        check_mean([{"weight": torch.tensor([2.0, 0.1])}, first, second])
