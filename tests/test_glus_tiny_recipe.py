"""The recipe of the shipped glus-tiny, in miniature; how good its result is, benchmarks/demo_quality.py measures."""

import shutil
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig

from fiftyone_refvos.demo import DemoConfig, generate, video_seed
from fiftyone_refvos.demo.rendered import RenderedVideos, render
from fiftyone_refvos.demo.world import COLORS, SHAPES, SIZES
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.prompt import PromptWriter, conversation
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID, LlamaTokenizer
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.training.config import SamplingConfig
from fiftyone_refvos.training.conversation import ConversationWriter, Round
from scripts.glus_tiny.asking import AskingLearner
from scripts.glus_tiny.motion import MotionLearner
from scripts.glus_tiny.network import CLIP, SIDE, deeper, write_start
from scripts.glus_tiny.patches import PatchLearner, cell_looks
from scripts.glus_tiny.points import PointLearner
from scripts.glus_tiny.recipe import train
from scripts.glus_tiny.slots import SlotLearner, looks, middles, token_objects
from scripts.glus_tiny.stages import GLUS, LANGUAGE, MASKS
from scripts.glus_tiny.statements import (
    COLUMNS,
    NOTHING,
    ROWS,
    Statement,
    StatementLearner,
    draw_statements,
    encode_statements,
    statements,
)
from scripts.glus_tiny.traces import TraceLearner, attention_loss, trace_loss
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
    pool = [Statement("motion", f"m{n}", "x", ()) for n in range(20)] + [
        Statement("look", f"l{n}", "x", ()) for n in range(20)
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
        "slots": SlotLearner(glus, videos, batch_size=4),
        "traces": TraceLearner(deeper(glus), tokenizer, videos, batch_size=2, context_frames=3),
        "motion": MotionLearner(deeper(glus), tokenizer, videos, batch_size=2, statements=3, context_frames=3),
        "asking": AskingLearner(deeper(glus), tokenizer, videos, batch_size=2, statements=3, context_frames=3),
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


def test_a_token_stands_for_the_objects_whose_middle_lies_in_its_patches(videos):
    video = videos.video(0)
    found = middles(video, 12)
    for number, (x, y) in enumerate(found):
        rows, columns = np.nonzero(video.labels[12] == number + 1)
        assert np.allclose((x, y), ((columns.mean() + 0.5) / 20, (rows.mean() + 0.5) / 20), atol=1e-4)
    places = np.array([[5.5, 0.2], [np.nan, np.nan], [4.1, 0.9], [0.0, 7.99]], np.float32)
    numbers, where = token_objects(places, 16)  # 8x8 patches, 4 of a row to a token
    assert numbers[1].tolist() == [2, 0]  # from left to right
    assert where[1].tolist() == places[[2, 0]].tolist()
    assert numbers[14].tolist() == [3, -1]
    assert (numbers >= 0).sum() == 3
    assert looks(video)[-1].tolist() == [0, 0, 0, 0]


def test_what_cannot_be_seen_has_no_middle(videos):
    video = replace(videos.video(0), labels=np.zeros_like(videos.video(0).labels))
    video.labels[0, 3, :11] = 1  # too few pixels
    video.labels[0, 5, :12] = 2
    found = middles(video, 0)
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [pytest.approx(6 / 20), pytest.approx(5.5 / 20)]


def test_motion_knows_where_objects_were_what_they_do_and_who_is_meant(glus, videos, tokenizer):
    batch = MotionLearner(glus, tokenizer, videos, batch_size=6, statements=5, context_frames=3).draw(
        np.random.default_rng(0)
    )
    assert batch.objects.shape == (6, 4, 16, 2)
    for clip in range(6):
        seen = batch.places[clip, :, :, 0] == 1
        for frame in range(4):  # every object that can be seen has its token, few tokens have more than two
            standing = set(batch.objects[clip, frame][batch.objects[clip, frame] >= 0].tolist())
            assert standing <= set(seen[frame].nonzero()[:, 0].tolist())
            assert len(standing) >= int(seen[frame].sum()) - 1
        assert not (batch.meant[clip] == 1).any(0)[~seen.any(0)].any()  # who is meant can be seen in some frame
    assert set(batch.actions.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert set(batch.meant.unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_the_words_of_an_expression_end_where_its_answer_begins(tokenizer):
    chosen = [Statement("motion", "the red star that stops", "at c m", (0,)), Statement("word", "blue", "empty", ())]
    ids, weights, ends = encode_statements(tokenizer, chosen)
    assert ids[: ends[0] + 1] == tokenizer.encode("the red star that stops")[1:]
    assert ids[ends[1]] == tokenizer.encode("blue")[-1]
    assert weights[ends[0]] == 0.1
    assert weights[ends[0] + 1] == weights[-1] == 1.0


def test_attention_is_lost_unless_heads_look_at_the_same_object_one_frame_further_back_each():
    objects = torch.full((1, 3, 4, 2), -1)
    objects[0, 0, 1, 0], objects[0, 1, 2, 0], objects[0, 2, 3, 1] = 7, 7, 7  # moves on by a token in each frame
    objects[0, 1, 0, 0] = 5  # seen once
    seen = torch.arange(12).view(3, 4) + 5
    right = torch.zeros(1, 2, 20, 20)
    right[0, 0, seen[1, 2], seen[0, 1]] = right[0, 0, seen[2, 3], seen[1, 2]] = 1.0
    right[0, 1, seen[2, 3], seen[0, 1]] = 0.5
    assert attention_loss(right, seen, objects).item() == pytest.approx(np.log(2) / 3)
    assert attention_loss(right.flip(1), seen, objects).item() > 5


def test_traces_are_asked_for_where_there_is_a_frame_before():
    objects = torch.tensor([[[[0, -1]], [[0, -1]], [[-1, -1]]]])  # one token a frame; out of sight in the last
    places = torch.tensor([[[[1.0, 2.0, 3.0]], [[1.0, 4.0, 5.0]], [[0.0, 0.0, 0.0]]]])
    head = torch.nn.Linear(4, 2 * 2 * 3)
    torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([20.0, 2.0, 3.0, -5.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    states = torch.ones(1, 3, 1, 4)
    assert trace_loss(head, states, objects, places).item() == pytest.approx(0, abs=1e-6)
    moved = places + torch.tensor([0.0, 1.0, 1.0])
    assert trace_loss(head, states, objects, moved).item() == pytest.approx(0.9)  # smooth, from 0.2 on


def test_what_moves_left_moves_right_in_the_mirror(videos):
    video, mirrored = videos.video(0), videos.video(1)
    assert mirrored.actions["right"] == video.actions["left"]
    assert mirrored.actions["up"] == video.actions["up"]


def test_more_layers_change_nothing_at_first(glus):
    words = torch.randn(2, 20, glus.config.llama.hidden_size)
    more = deeper(glus)
    assert more.config.llama.num_hidden_layers == glus.config.llama.num_hidden_layers + 3
    torch.testing.assert_close(
        more.llama(inputs_embeds=words).last_hidden_state, glus.llama(inputs_embeds=words).last_hidden_state
    )
    assert glus.config.llama.num_hidden_layers == 5


def test_the_first_question_is_that_of_inference(glus, videos, tokenizer):
    learner = AskingLearner(glus, tokenizer, videos, batch_size=1, statements=1, context_frames=4)
    chosen = [
        Statement("motion", "the red star that stops", "at c m", (0,)),
        Statement("no_target", "the blue star", NOTHING, ()),
    ]
    ids, weights, ends = learner._encode(chosen)
    prompt = tokenizer.encode(conversation("the red star that stops", 1))
    last = max(place for place, token in enumerate(prompt) if token == IMAGE_ID)
    assert ids[: ends[0] + 1] == prompt[last + 2 :]
    assert ids[ends[0] + 1] == tokenizer.token_id("[SEG]")
    writer = ConversationWriter(tokenizer, SamplingConfig(wording="inference"), tokens_per_image=16, max_length=2048)
    assert ids[ends[1] + 1] == writer.no_target_id
    assert weights[ends[0]] == 0
    assert weights[ends[0] + 1] == weights[ends[1] + 1] == 4  # GLUS reads nothing after it
    assert weights[ends[0] + 2] == 1


def _of_one(stage):
    """A learner as of the recipe, with one clip or picture per pass."""
    if stage.name in ("motion", "asking"):
        return partial(stage.learner.func, {"batch_size": 1, "statements": 2})
    return partial(stage.learner.func, 1)


def test_the_recipe_leaves_a_checkpoint_that_loads_strictly_and_goes_on_where_it_stopped(folder):
    def short(stages):
        stages = [replace(stage, config=replace(stage.config, steps=1, batch_size=1)) for stage in stages]
        return [replace(stage, learner=_of_one(stage)) if stage.name == "asking" else stage for stage in stages]

    sizes = {"num_clips": 1, "rows": 2, "num_frames": 2, "most_objects": 2}
    recipe: dict[str, Any] = {
        "num_videos": 2,
        "num_unseen": 1,
        "language": [replace(stage, learner=_of_one(stage)) for stage in short(LANGUAGE)],
        "masks": [replace(stage, learner=partial(stage.learner.func, sizes)) for stage in short(MASKS)],
    }
    assert train(folder, **recipe, together=short(GLUS[:1])) == folder / "glus-tiny"
    shutil.rmtree(folder / "glus-tiny")
    last = train(folder, **recipe, together=short(GLUS))
    assert last == folder / "glus-tiny"
    heads = [load_file(folder / name / "heads.safetensors") for name in ("motion", "sharper", "asking")]
    assert heads[0].keys() == heads[1].keys() == heads[2].keys()
    # handed on, and taken over: the rate of a first step is 0
    assert all((heads[0][name] == later[name]).all() for later in heads[1:] for name in heads[0])
    segmenter = load_segmenter("glus-tiny", checkpoint=last, device="cpu")
    assert segmenter.identity["clip_view"] == "squash"
    assert segmenter.identity["context_frames"] == 8
    trained = load_segmenter("glus-tiny", checkpoint=folder / "clips" / "network", device="cpu")
    assert isinstance(segmenter, GlusSegmenter)
    assert isinstance(trained, GlusSegmenter)
    weights = trained.network.state_dict()
    for name, tensor in segmenter.network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name].half().to(tensor.dtype))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert train(folder, **recipe, together=short(GLUS)) == last
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before
