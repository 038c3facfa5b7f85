"""The recipe of the shipped glus-tiny, in miniature; how good its result is, benchmarks/demo_quality.py measures."""

import shutil
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig

from fiftyone_refvos.demo import DemoConfig, generate, video_seed
from fiftyone_refvos.demo.rendered import RenderedVideos, render
from fiftyone_refvos.demo.world import COLORS, SHAPES, SIZES
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.prompt import PromptWriter, conversation
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.training.config import SamplingConfig
from fiftyone_refvos.training.conversation import ConversationWriter, Round
from scripts.glus_tiny.network import CLIP, SIDE, write_start
from scripts.glus_tiny.patches import PatchLearner, cell_looks
from scripts.glus_tiny.points import PointLearner
from scripts.glus_tiny.recipe import train
from scripts.glus_tiny.stages import GLUS, LANGUAGE, MASKS
from scripts.glus_tiny.statements import (
    COLUMNS,
    NOTHING,
    ROWS,
    Statement,
    StatementLearner,
    draw_statements,
    statements,
)
from scripts.glus_tiny.words import WORDS, WordLearner, describe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    render(folder / "videos", 2, side=SIDE)
    write_start(folder / "start", seed=0)
    return folder


@pytest.fixture(scope="module")
def videos(folder):
    return RenderedVideos(folder / "videos")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return LlamaTokenizer(folder / "start")


@pytest.fixture
def glus(folder):
    torch.manual_seed(0)
    return GlusNetwork(GlusConfig.read(folder / "start"), CLIPVisionConfig(**CLIP)).train()


def trains(learner, steps=6, rate=1e-3):
    """The losses of one batch, seen again and again."""
    torch.manual_seed(0)
    batch = learner.draw(np.random.default_rng(0))
    optimizer = torch.optim.AdamW([p for p in learner.network.parameters() if p.requires_grad], lr=rate)
    totals = []
    for _ in range(steps):
        total = learner.losses(batch, np.random.default_rng(0))["total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    return totals


def test_the_tokenizer_has_a_piece_for_every_word_of_a_prompt(tokenizer):
    ids = tokenizer.encode(conversation("small red star", 1))
    words = conversation("small red star", 1).split()
    assert len(ids) < 1.5 * len(words)
    # [SEG] is predicted from the same token, whether the answer is open or goes on
    opened = tokenizer.encode("the segmentation result is ")
    assert tokenizer.encode("the segmentation result is [SEG].")[: len(opened)] == opened


def test_every_seg_is_predicted_from_the_prompt_of_inference(tokenizer):
    lengths = {"tokens_per_image": 16, "max_length": 2048}
    training = ConversationWriter(tokenizer, SamplingConfig(wording="inference"), **lengths)
    inference = PromptWriter(tokenizer, window=4, context_frames=4, **lengths)
    said = training.write("the red star", [Round()] * 4, what="it")
    assert not said.open_answers  # there is no token to be hidden
    for count, position in enumerate(said.seg_positions, start=1):
        assert said.ids[:position] == inference.write(Expression("0", "the red star"), count).ids


def test_cells_hold_the_object_that_covers_most_of_them(videos):
    video = videos.video(0)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[:20, :20] = 2  # the whole of the first cell
    labels[20:40, 20:27] = 1  # a third of a cell in the second row
    labels[40:60, 40:43] = 1  # too little
    looks = cell_looks(video, labels, 8).reshape(8, 8, 4)
    size, color, shape = video.objects[1]
    assert looks[0, 0].tolist() == [1, COLORS.index(color), SHAPES.index(shape), SIZES.index(size)]
    assert looks[1, 1, 0] == 1
    assert looks[..., 0].sum() == 2


def test_statements_are_true(videos):
    video = videos.video(2)  # drawn for video 1 of the train split
    source = generate(video_seed("train", 1), DemoConfig(height=160, width=284, max_per_kind=8))
    said = {statement.expression: statement.answer for statement in statements(video, 9)}
    for expression in source.expressions:
        if expression.kind == "no_target":
            assert said[expression.text] == NOTHING
        if len(expression.object_ids) == 1:
            mask = source.targets(expression, 9)[0]
            rows, columns = np.nonzero(mask)
            across, down = (columns.mean() + 0.5) / 284, (rows.mean() + 0.5) / 160
            near = {
                f"at {COLUMNS[int((across + dx) * 8)]} {ROWS[int((down + dy) * 8)]}"
                for dx in (-0.01, 0.01)
                for dy in (-0.01, 0.01)
            }
            assert said[expression.text] in near, expression.text


def test_words_and_places_are_said_of_the_objects_that_are_there(videos):
    video = videos.video(0)
    said = {(each.kind, each.expression): each.answer for each in statements(video, 12)}
    for size, color, shape in video.objects:
        place = said["look", f"{size} {color} {shape}"]
        if "out" not in place:
            assert said["name", place] in {" ".join(look) for look in video.objects}
        twins = [look for look in video.objects if look[1] == color]
        assert (("word", color) in said) == (len(twins) <= 2)


def test_each_word_is_one_piece_and_describes_the_tokens_of_its_objects(tokenizer):
    assert all(len(tokenizer.encode(word)) == 2 for word in WORDS)
    looks = np.zeros((64, 4), np.int64)
    looks[8 * 3 + 5] = 1, COLORS.index("blue"), SHAPES.index("moon"), SIZES.index("large")
    words = describe(looks, 8)
    assert words.sum() == 5
    token = (8 * 3 + 5) // 4
    assert {WORDS[n] for n in np.flatnonzero(words[token])} == {"blue", "moon", "large", "f", "l"}


def test_every_statement_is_drawn_at_most_once_and_motion_more_often():
    pool = [Statement("motion", f"m{n}", "x") for n in range(20)] + [
        Statement("look", f"l{n}", "x") for n in range(20)
    ]
    drawn = [draw_statements(pool, 10, np.random.default_rng(seed)) for seed in range(50)]
    assert all(len(set(each)) == 10 for each in drawn)
    share = np.mean([statement.kind == "motion" for each in drawn for statement in each])
    assert 0.65 < share < 0.78  # 2.5 to 1
    assert len(draw_statements(pool, 99, np.random.default_rng(0))) == 40


def test_each_part_learns_a_batch_by_heart(glus, videos, tokenizer):
    learners = {
        "patches": PatchLearner(glus, videos, batch_size=4),
        "points": PointLearner(glus.sam, videos, num_clips=1, rows=2, num_frames=2, most_objects=2),
        "words": WordLearner(glus, tokenizer, videos, batch_size=4),
        "statements": StatementLearner(glus, tokenizer, videos, batch_size=1, statements=3),
    }
    for name, learner in learners.items():
        totals = trains(learner)
        assert totals[-1] < 0.95 * totals[0], (name, totals)


def test_points_lie_on_their_objects(glus, videos):
    learner = PointLearner(glus.sam, videos, num_clips=2, rows=3, num_frames=2, most_objects=2)
    batch = learner.draw(np.random.default_rng(1))
    hits = []
    for row in range(6):
        for frame in range(2):
            for x, y, there in batch.points[row, frame].tolist():
                if there:
                    hits.append(bool(batch.targets[row, frame, int(y * SIDE), int(x * SIDE)]))
    assert len(hits) >= 12
    assert all(hits)


def test_the_recipe_leaves_a_checkpoint_that_loads_strictly_and_goes_on_where_it_stopped(folder):
    def short(stages):
        return tuple(replace(stage, config=replace(stage.config, steps=1, batch_size=1)) for stage in stages)

    sizes = {"num_clips": 1, "rows": 2, "num_frames": 2, "most_objects": 2}
    recipe: dict[str, Any] = {
        "num_videos": 2,
        "num_unseen": 1,
        "language": [replace(stage, learner=partial(stage.learner.func, 1)) for stage in short(LANGUAGE)],
        "masks": [replace(stage, learner=partial(stage.learner.func, sizes)) for stage in short(MASKS)],
    }
    assert train(folder, **recipe, together=short(GLUS[:1])) == folder / "glus-tiny"
    shutil.rmtree(folder / "glus-tiny")
    last = train(folder, **recipe, together=short(GLUS))
    assert last == folder / "glus-tiny"
    segmenter = load_segmenter("glus-tiny", checkpoint=last, device="cpu")
    assert segmenter.identity["clip_view"] == "squash"
    trained = load_segmenter("glus-tiny", checkpoint=folder / "clips" / "network", device="cpu")
    assert isinstance(segmenter, GlusSegmenter)
    assert isinstance(trained, GlusSegmenter)
    weights = trained.network.state_dict()
    for name, tensor in segmenter.network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name].half().to(tensor.dtype))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert train(folder, **recipe, together=short(GLUS)) == last
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before
