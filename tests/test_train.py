"""Fine-tuning on a view: what comes out, what a second call does, and what is refused before anything is trained."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import fiftyone as fo
import fiftyone.zoo as foz
import numpy as np
import pytest
import torch

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.cli import main
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.models.adapters import read_adapter
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.config import LossConfig, SamplingConfig, TrainingConfig
from fiftyone_refvos.training.conversation import ConversationWriter
from fiftyone_refvos.training.logs import METRICS, read_rows
from fiftyone_refvos.training.sampling import Mixture, known_together
from fiftyone_refvos.training.sources import TrainingExpression
from fiftyone_refvos.training.train import MissingExtraError
from fiftyone_refvos.training.views import ViewSource

DEMO = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)
CONFIG = TrainingConfig(
    steps=3, batch_size=1, accumulation=1, learning_rate=1e-3, warmup_steps=1, save_every=2, validate_every=3
)

# where the weights lie in memory decides over the last bits, and those over a pixel on the edge of a mask
PIXELS, J_AND_F = 5e-4, 2e-3


def differing(these, others):
    """The share of pixels in which masklets differ."""
    pairs = zip(these, others, strict=True)
    return np.mean([a.union(t) != b.union(t) for a, b in pairs for t in range(len(a.frames))])


@pytest.fixture(scope="module", autouse=True)
def cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory, fiftyone_home):
    """Three videos with their expressions."""
    folder = tmp_path_factory.mktemp("clips")
    dataset = rv.demo.load(num_videos=3, config=DEMO, folder=folder, name=f"test-{uuid4().hex[:12]}")
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def trained(demo, tmp_path_factory) -> rv.TrainedModel:
    """A training on two of them, validated on the third; the dataset is checked to be as it was."""
    training, validation = rv.hold_out(demo, 0.3)
    before = state(demo)
    result = rv.train(training, folder=tmp_path_factory.mktemp("run"), config=CONFIG, validation_view=validation)
    demo.reload()
    assert state(demo) == before
    return result


def state(dataset: fo.Dataset) -> list[object]:
    """All that a training could leave in a dataset."""
    schemas = [sorted(dataset.get_field_schema(flat=True)), sorted(dataset.get_frame_field_schema(flat=True))]
    changed = [dataset.values("last_modified_at"), dataset.values("frames.last_modified_at")]
    return [*schemas, *changed, dataset.list_runs(), dataset.list_evaluations(), dataset.list_saved_views()]


# --- what comes out ---


def test_everything_is_where_the_outcome_says(trained):
    assert (trained.model, trained.steps, trained.stopped_because) == ("glus-tiny", 3, "finished")
    assert {path.name for path in (trained.adapter, trained.checkpoint, trained.plot)} == {
        "adapter",
        "merged",
        "training.png",
    }
    assert trained.plot.read_bytes().startswith(b"\x89PNG")
    facts = read_adapter(trained.adapter).facts
    assert (facts["steps"], facts["validation"]) == (3, trained.validation)
    (report,) = trained.reports.values()
    assert "expressions of 2 videos" in report
    assert f"best validation: J&F {trained.validation:.4f} after step 3" in str(trained)
    assert len((trained.folder / "metrics.jsonl").read_text().splitlines()) == 3


def test_adapter_and_merged_checkpoint_segment_alike_and_as_validated(trained, demo):
    _, validation = rv.hold_out(demo, 0.3)
    models = {
        "tuned": foz.load_zoo_model("glus-tiny", device="cpu", adapter=trained.adapter),
        "merged": foz.load_zoo_model("glus-tiny", device="cpu", checkpoint=trained.checkpoint),
        "before": foz.load_zoo_model("glus-tiny", device="cpu"),
    }
    assert models["tuned"].identity["adapter"] == str(trained.adapter)
    assert models["tuned"].identity["adapter_digest"] == read_adapter(trained.adapter).digest
    for name, model in models.items():
        rv.segment(validation, model, label_field=name)
    (sample,) = validation
    tuned, merged, before = (fields.read_masklets(sample, name) for name in models)
    assert differing(tuned, merged) <= PIXELS
    assert differing(tuned, before) > PIXELS
    results = rv.evaluate(validation, "tuned", eval_key="tuned_eval")
    assert results.metrics()["J&F"] == pytest.approx(trained.validation, abs=J_AND_F)
    for name in models:
        demo.delete_frame_field(name)
    demo.delete_evaluation("tuned_eval")


def test_the_best_parameters_are_saved_and_not_the_last(demo, tmp_path):
    """A learning rate that ruins the network: the first validation is the best one."""
    training, validation = rv.hold_out(demo, 0.3)
    config = replace(CONFIG, steps=4, validate_every=1, learning_rate=0.5, warmup_steps=0, patience=2)
    trained = rv.train(training, folder=tmp_path, config=config, validation_view=validation)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: row["validation"])
    assert (trained.validation, trained.validated_step) == (best["validation"], best["step"])
    assert trained.steps > best["step"]
    rv.segment(validation, foz.load_zoo_model("glus-tiny", device="cpu", adapter=trained.adapter), label_field="best")
    assert rv.evaluate(validation, "best", eval_key="best_eval").metrics()["J&F"] == pytest.approx(
        best["validation"], abs=J_AND_F
    )
    demo.delete_frame_field("best")
    demo.delete_evaluation("best_eval")


def test_several_views_with_settings_of_their_own(demo, tmp_path):
    told: list[Progress] = []
    views = {"plain": demo.limit(1), "mine": ViewSource(demo.skip(1), name="mine", contrastive=True)}
    config = replace(CONFIG, steps=1)
    trained = rv.train(views, folder=tmp_path, config=config, rates={"plain": 1, "mine": 0}, progress=told.append)
    assert list(trained.reports) == ["plain", "mine"]
    assert trained.validation is None
    assert told == [Progress(1, 1, 1.0)]
    with pytest.raises(ValueError, match=r"the rates are of \['plain'\], the views are \['mine', 'plain'\]"):
        rv.train(views, folder=tmp_path / "other", config=config, rates={"plain": 1})


def test_the_command_learns_expressions_that_mean_nothing(demo, tmp_path, capsys):
    arguments = ["train", demo.name, str(tmp_path), "--steps", "1", "--batch-size", "1", "--accumulation", "1"]
    assert main([*arguments, "--no-target"]) == 0
    assert "without a target" not in capsys.readouterr().out
    assert main(arguments) == 1
    assert "another" in capsys.readouterr().err


# --- a second call ---


@pytest.fixture
def one_thread():
    """The order in which several threads add up numbers changes the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def said_twice(tmp_path, fiftyone_home):
    """A video in which several expressions mean one object, as the contrastive loss needs it."""
    name = f"test-{uuid4().hex[:12]}"
    dataset = rv.demo.load(num_videos=1, split="train", config=DEMO, folder=tmp_path / "clips", name=name)
    yield {"demo": ViewSource(dataset, name="demo", contrastive=True)}
    dataset.delete()


def test_a_stopped_training_goes_on_to_the_same_result(said_twice, tmp_path, one_thread):
    """Also its bank of tokens: a single step has fewer negatives than the loss needs."""
    steps: list[int] = []
    config = replace(CONFIG, sampling=SamplingConfig(expressions=12), losses=LossConfig(negatives=20))

    def should_stop() -> bool:
        return len(steps) == 1

    whole = rv.train(said_twice, folder=tmp_path / "whole", config=config)
    stopped = rv.train(
        said_twice,
        folder=tmp_path / "parts",
        config=config,
        progress=lambda progress: steps.append(progress.video),
        should_stop=should_stop,
    )
    assert (stopped.steps, stopped.stopped_because) == (1, "should_stop")
    again = rv.train(said_twice, folder=tmp_path / "parts", config=config)
    assert (again.steps, again.stopped_because) == (3, "finished")
    digests = [read_adapter(each.adapter).digest for each in (whole, again)]
    assert digests[0] == digests[1]
    losses = [[row.losses for row in read_rows(each.folder / METRICS)] for each in (whole, again)]
    assert losses[0] == losses[1]
    assert all(row["contrastive"] > 0 for row in losses[0][1:])  # of tokens from before the stop


def test_a_folder_of_another_training_is_refused(trained, demo):
    training, _ = rv.hold_out(demo, 0.3)
    with pytest.raises(CheckpointError, match=r"holds another training \(sources was .* choose another folder"):
        rv.train(demo, folder=trained.folder, config=CONFIG)
    demo.clone_frame_field("ground_truth", "copy")
    with pytest.raises(CheckpointError, match=r"\(fields was {'masklets': 'ground_truth', .* is {'masklets': 'copy'"):
        rv.train(training, folder=trained.folder, config=CONFIG, masklets_field="copy")
    demo.delete_frame_field("copy")
    with pytest.raises(CheckpointError, match=r"another configuration \(steps was 3 and is 4\)"):
        rv.train(training, folder=trained.folder, config=replace(CONFIG, steps=4))


# --- what is refused before anything is trained ---


def test_what_cannot_be_trained_is_refused(demo, tmp_path):
    with pytest.raises(ValueError, match="'glus-huge' cannot be trained here; the models that can be are glus, "):
        rv.train(demo, "glus-huge", folder=tmp_path)
    with pytest.raises(FieldError, match=r"no field 'frames.gone'"):
        rv.train(demo, folder=tmp_path, masklets_field="gone")
    assert list(tmp_path.iterdir()) == []


def test_a_validation_view_without_truth_is_refused(demo, tmp_path):
    clone = demo.clone()
    clone.set_values("frames.ground_truth", [[None] * 8] * 3)
    with pytest.raises(FieldError, match=r"nothing to validate on: no expression of the 3 videos is annotated"):
        rv.train(demo, folder=tmp_path, config=CONFIG, validation_view=clone)
    clone.delete()
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_command_is_named(demo, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    with pytest.raises(MissingExtraError, match=r"packages peft: run `pip install 'fiftyone-refvos\[training\]'`"):
        rv.train(demo, folder=tmp_path)


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_a_share_leaves_videos_on_both_sides(demo, share):
    with pytest.raises(ValueError, match="both sides need a video"):
        rv.hold_out(demo, share)


def test_videos_are_held_out_the_same_way_every_time(demo):
    training, validation = rv.hold_out(demo, 0.5, seed=1)
    assert (len(training), len(validation)) == (1, 2)
    assert not set(training.values("id")) & set(validation.values("id"))
    assert rv.hold_out(demo, 0.5, seed=1)[1].values("id") == validation.values("id")
    assert [len(view) for view in rv.hold_out(demo, 0.01)] == [2, 1]
    assert [len(view) for view in rv.hold_out(demo, 0.99)] == [1, 2]


# --- what is drawn ---


def test_only_annotated_frames_are_query_frames(demo):
    clone = demo.clone()
    truth = clone.values("frames.ground_truth")
    for of_video in truth:
        of_video[2] = None
    clone.set_values("frames.ground_truth", truth)
    sampling = SamplingConfig()
    tokenizer = LlamaTokenizer(SHIPPED / "glus-tiny")
    writer = ConversationWriter(tokenizer, sampling, tokens_per_image=16, max_length=2048)
    mixture = Mixture([ViewSource(clone)], [1], writer)
    rng = np.random.default_rng(0)
    clips = [mixture.draw(rng) for _ in range(20)]
    names = {clip.frame_names for clip in clips}
    assert names == {("00003", "00004", "00005", "00006"), ("00004", "00005", "00006", "00007")}
    assert all(clip.targets.any() for clip in clips)
    clone.delete()


def expression(name: str, *frames: int) -> TrainingExpression:
    return TrainingExpression(name, name, ("1",), frozenset(frames) or None)


def test_expressions_that_are_known_in_other_frames_are_left_out():
    a, b, c = expression("a", *range(6)), expression("b", *range(6, 12)), expression("c")
    assert known_together([a, b, c], 12, 4) == ([a, c], [0, 1, 2])
    assert known_together([b, a, c], 12, 4) == ([b, c], [6, 7, 8])
    assert known_together([c], 5, 4) == ([c], [0, 1])
    with pytest.raises(ValueError, match="the target of expression 'd' is not known in 4 frames in a row"):
        known_together([expression("d", 0, 1, 2, 4)], 12, 4)


# --- the command line ---


def test_the_command_line_trains_and_segments_with_the_adapter(demo, tmp_path: Path, capsys):
    folder = str(tmp_path / "run")
    command = ["train", demo.name, folder, "--steps", "2", "--batch-size", "1", "--accumulation", "1"]
    assert main([*command, "--validation-share", "0.3"]) == 0
    out = capsys.readouterr().out
    assert "glus-tiny trained for 2 steps (finished)" in out
    assert "best validation: J&F" in out
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert rates == [0, 3e-4]  # two steps are no warm-up of a hundred
    adapter = f"{folder}/adapter"
    assert main(["segment", demo.name, "--label-field", "cli", "--adapter", adapter, "--device", "cpu"]) == 0
    assert "3 videos written to 'frames.cli'" in capsys.readouterr().out
    demo.reload()
    assert demo.get_run_info("segment_cli").config.model["adapter"] == adapter
    demo.delete_frame_field("cli")
    assert main([*command, "--steps", "3", "--validation-share", "0.3"]) == 1
    assert "refvos train: " in capsys.readouterr().err
