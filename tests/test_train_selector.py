"""Training of the selector: what is drawn, what a step does, and `rv.train_selector` from a view to a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.glus.prompt import OPEN_ANSWER
from fiftyone_refvos.models.glus.prompt import conversation as glus_conversation
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.models.selector.base import Trainee, load_trainee
from fiftyone_refvos.models.selector.loading import load_selector
from fiftyone_refvos.models.selector.prompt import PromptWriter
from fiftyone_refvos.training.config import LoraConfig, LossConfig, SamplingConfig
from fiftyone_refvos.training.conversation import IGNORED
from fiftyone_refvos.training.optimization import Optimization
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig
from fiftyone_refvos.training.selector.conversation import ScoreConversationWriter, Turn, draw_turn
from fiftyone_refvos.training.selector.learner import SelectorLearner
from fiftyone_refvos.training.selector.sampling import draw_context, known_together
from fiftyone_refvos.training.selector.sources import LabelledExpression
from fiftyone_refvos.training.selector.validation import RankValidation
from fiftyone_refvos.video import Frame
from scripts.make_kfs_base import main as make_base

DEMO = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)
CONFIG = SelectorTrainingConfig(
    steps=2, accumulation=1, warmup_steps=1, context_frames=(2, 3), gradient_checkpointing=False
)
LABELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.fixture(scope="module", autouse=True)
def cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "base"
    make_base(folder, SHIPPED / "glus-tiny")
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def demo(clips, fiftyone_home):
    """Two videos of 8 frames whose expressions have pseudo-labels, under the name `ious`."""
    dataset = rv.demo.load(num_videos=2, config=DEMO, folder=clips, name=f"test-{uuid4().hex[:12]}")
    fields.declare_frame_list(dataset, "labels", "ious")
    for sample in dataset:
        lists = {each.id: (*LABELS, 0.5, 0.5) for each in fields.read_expressions(sample)}
        fields.write_frame_list(sample, "labels", "ious", lists)
    yield dataset
    dataset.delete()


@dataclass(frozen=True)
class MemoryVideo:
    """Grey frames, the brighter the later."""

    name: str
    expressions: tuple[LabelledExpression, ...]
    num_frames: int = 6
    size: tuple[int, int] = (48, 64)

    def __len__(self) -> int:
        return self.num_frames

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return (np.full((*self.size, 3), 40 * index, dtype=np.uint8) for index in indices)


@dataclass(frozen=True)
class MemorySource:
    videos: tuple[MemoryVideo, ...]
    name: str = "memory"

    def __len__(self) -> int:
        return len(self.videos)

    def video(self, index: int) -> MemoryVideo:
        return self.videos[index]


DOG, CAT = LabelledExpression("0", "The dog", LABELS), LabelledExpression("1", "which cat jumps?", LABELS[::-1])
SOURCE = MemorySource((MemoryVideo("a", (DOG, CAT)), MemoryVideo("b", (DOG,))))


def trainee(base: Path) -> Trainee:
    return load_trainee(base, base / "clip", score_dim=16)


def learner(base: Path, config: SelectorTrainingConfig = CONFIG) -> SelectorLearner:
    begun = trainee(base)
    return SelectorLearner(begun.network, begun.tokenizer, config, [SOURCE], [1.0])


# --- what is drawn ---


def test_context_frames_are_one_of_each_segment_and_all_of_a_short_video() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_context(14, 8, rng) for _ in range(200)])
    bounds = [0, 1, 3, 5, 7, 8, 10, 12, 14]
    assert all(set(column) == set(range(*pair)) for column, pair in zip(drawn.T, pairwise(bounds), strict=True))
    for count in (1, 2, 3):
        assert draw_context(count, 8, rng) == list(range(count))


def test_the_target_is_a_context_frame_that_all_kept_expressions_know() -> None:
    rng = np.random.default_rng(0)
    early = LabelledExpression("0", "x", (0.5, 0.5, None, None, None, None))
    late = LabelledExpression("1", "y", (None, None, None, None, 0.5, 0.5))
    kept, context, target = known_together([early, late, DOG], [1, 3, 5], rng)
    assert ([each.id for each in kept], context, context[target]) == (["0", "0"], [1, 3, 5], 1)
    kept, context, target = known_together([early], [3, 5], rng)
    assert context[target] in (0, 1)
    assert context == [context[target], 5]


def test_wording_is_drawn_as_published_or_that_of_inference() -> None:
    rng = np.random.default_rng(0)
    turns = {draw_turn(rng, "the dog", "random") for _ in range(200)}
    assert len(turns) == 2 * 4
    assert {draw_turn(rng, "Which dog? ", "random").request[:13] for _ in range(9)} == {"Please decide"}
    assert draw_turn(rng, "the dog", "inference").answer == "It is [SCORE]."


def test_the_answer_and_its_end_are_supervised(base: Path) -> None:
    begun = trainee(base)
    writer = ScoreConversationWriter(begun.tokenizer, "random", tokens_per_image=28, max_length=2048)
    written = writer.write(" The dog ", Turn("find the {}."), 2, what="it")
    assert (
        "(0)<image>, (1)<image> \nTarget Image: <image> \nfind the The dog. ASSISTANT: It is [SCORE].</s>"
        in written.text
    )
    score = begun.tokenizer.token_id("[SCORE]")
    supervised = [label for label in written.labels if label != IGNORED]
    assert supervised == written.ids[-len(supervised) :]
    assert (supervised.count(score), supervised[-1]) == (1, 2)
    assert written.ids[written.score_index] == score
    short = ScoreConversationWriter(begun.tokenizer, "random", tokens_per_image=28, max_length=50)
    with pytest.raises(ValueError, match="it is too long: its conversation has .* train with fewer context frames"):
        short.write("The dog", Turn("find the {}."), 2, what="it")
    with pytest.raises(ValueError, match=r"it holds '\[SCORE\]'"):
        writer.write("a [SCORE]", Turn("find the {}."), 2, what="it")


def test_a_base_that_is_made_of_glus_is_asked_as_glus(base: Path) -> None:
    begun = trainee(base)
    assert begun.network.config.words == "glus"
    sizes: dict[str, Any] = {"tokens_per_image": 28, "max_length": 2048, "words": "glus"}
    prompt = PromptWriter(begun.tokenizer, max_images=5, **sizes).write("The dog", 2)
    score = begun.tokenizer.token_id("[SCORE]")
    assert prompt.ids == [*begun.tokenizer.encode(glus_conversation("the dog", 1, 2)), score]
    assert prompt.read == prompt.suffix[:-1]
    written = ScoreConversationWriter(begun.tokenizer, "random", **sizes).write("The dog", Turn("{}"), 2, what="it")
    assert written.ids[: written.score_index + 1] == prompt.ids
    assert written.text.endswith(
        "Can you segment the the dog in this frame? ASSISTANT: " + OPEN_ANSWER + "[SCORE].</s>"
    )
    assert written.labels.count(score) == 1


def test_a_batch_follows_from_its_generator_alone(base: Path) -> None:
    made = learner(base)
    first, again = (made.draw(np.random.default_rng(3)) for _ in range(2))
    assert first.names == again.names
    assert torch.equal(first.input_ids, again.input_ids)
    assert torch.equal(first.clip_pixels, again.clip_pixels)
    for name, label in zip(first.names, first.scores.tolist(), strict=True):
        expression = {"0": DOG, "1": CAT}[name.rpartition("/")[2]]
        assert label in [pytest.approx(each) for each in expression.labels]


# --- a step ---


def test_lora_words_and_head_train_and_all_else_stays(base: Path) -> None:
    made = learner(base)
    names = {name for name, each in made.network.named_parameters() if each.requires_grad}
    assert {name.split(".")[1] for name in names} == {"llama", "lm_head", "score_head"}
    assert all(".lora_" in name or "embed_tokens" in name for name in names if name.startswith("selector.llama"))
    everything = learner(base, replace(CONFIG, trainable="all", lora=None))
    assert all(each.requires_grad for each in everything.network.parameters())
    losses = everything.losses(everything.draw(np.random.default_rng(0)), np.random.default_rng(0))
    losses["total"].backward()
    patches = next(p for n, p in everything.network.named_parameters() if "clip" in n and "patch_embedding" in n)
    assert patches.grad is not None
    assert patches.grad.abs().sum() > 0  # through the merging of tokens, too


def test_losses_are_weighted_and_fall_on_one_batch(base: Path) -> None:
    config = replace(CONFIG, lora=LoraConfig(dropout=0.0), learning_rate=3e-3)
    made = learner(base, config)
    batch, rng = made.draw(np.random.default_rng(1)), np.random.default_rng(0)
    weighted = learner(base, replace(config, losses=LossConfig(ce=0.5), score_weight=2.0))
    plain, other = made.losses(batch, rng), weighted.losses(batch, rng)
    assert other["ce"].item() == pytest.approx(0.5 * plain["ce"].item(), rel=1e-5)
    assert other["score"].item() == pytest.approx(2 * plain["score"].item(), rel=1e-5)
    assert other["total"].item() == pytest.approx(other["ce"].item() + other["score"].item(), rel=1e-5)
    optimizer = torch.optim.AdamW([p for p in made.network.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        loss = made.losses(batch, rng)
        loss["total"].backward()
        optimizer.step()
    assert loss["score"] < 0.5 * plain["score"]
    assert loss["ce"] < plain["ce"]


def test_gradient_checkpointing_changes_no_gradient(base: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        made = learner(base, replace(CONFIG, gradient_checkpointing=checkpointing, lora=LoraConfig(dropout=0.0)))
        batch = made.draw(np.random.default_rng(1))
        made.losses(batch, np.random.default_rng(0))["total"].backward()
        gradients.append({n: p.grad for n, p in made.network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_the_learner_fits_the_training_loop(base: Path) -> None:
    made = learner(base)
    optimization = Optimization(made, CONFIG)
    assert set(optimization.parameters) == {n for n, p in made.network.named_parameters() if p.requires_grad}
    assert made.state() == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score_weight": -1.0}, "score_weight is -1.0"),
        ({"context_frames": (0, 3)}, r"context_frames are \(0, 3\)"),
        ({"context_frames": (4, 3)}, "give the fewest and the most"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_wrong_configurations_are_named(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        SelectorTrainingConfig(**values)


def test_the_rank_validation_is_the_mean_over_expressions_with_an_order(base: Path) -> None:
    flat = LabelledExpression("2", "a bird", (0.5,) * 6)
    begun = trainee(base)
    source = MemorySource((MemoryVideo("a", (DOG, CAT, flat)),))
    value = RankValidation(begun.network, begun.tokenizer, source)()
    assert -1 <= value <= 1
    # the two have opposite labels: if the scores did not depend on the words they would cancel
    only = MemorySource((MemoryVideo("a", (DOG,)),))
    assert RankValidation(begun.network, begun.tokenizer, only)() != value
    with pytest.raises(ValueError, match="nothing to validate on in 'memory'"):
        RankValidation(begun.network, begun.tokenizer, MemorySource((MemoryVideo("a", (flat,)),)))


# --- rv.train_selector ---


def test_a_view_with_pseudo_labels_makes_a_selector_that_loads_and_goes_on(demo, base: Path, tmp_path: Path) -> None:
    calls: list[int] = []
    folder = tmp_path / "run"
    config = replace(CONFIG, sampling=SamplingConfig(wording="inference"))
    trained = rv.train_selector(
        demo.limit(1),
        base,
        field="labels",
        folder=folder,
        config=config,
        validation_view=demo.skip(1),
        progress=lambda progress: calls.append(progress.video),
    )
    assert (trained.steps, trained.stopped_because, calls) == (2, "finished", [1, 2])
    assert set(trained.losses) == {"ce", "score", "total"}
    assert -1 <= (trained.validation or 0) <= 1
    assert "expressions of 1 videos" in str(trained)
    selector = load_selector(trained.checkpoint, device="cpu")  # its CLIP is with it, as with the base
    sample = demo.first()
    scores = selector.scores(fields.frame_source(sample), fields.read_expressions(sample))
    assert all(values.shape == (8,) for values in scores.values())
    added = json.loads((trained.checkpoint / "added_tokens.json").read_text())
    config_json = json.loads((trained.checkpoint / "config.json").read_text())
    assert added["[SCORE]"] == config_json["vocab_size"] - 1
    report = rv.select_key_frames(demo, "glus-kfs", field="kfs", checkpoint=trained.checkpoint, device="cpu")
    assert (report.num_videos, report.failures) == (2, [])
    # a selector can be trained further; another view is another training
    further = rv.train_selector(demo, trained.checkpoint, field="labels", folder=tmp_path / "more", config=CONFIG)
    assert further.steps == 2
    with pytest.raises(CheckpointError, match="holds another training"):
        rv.train_selector(demo, base, field="labels", folder=folder, config=config)


def test_views_without_labels_or_with_too_few_are_refused(demo, base: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"folder": tmp_path / "run", "config": CONFIG}
    with pytest.raises(FieldError, match=r"no expression of 2 videos has pseudo-labels in 'other_ious'"):
        rv.train_selector(demo, base, field="other", **options)
    sample = demo.first()
    first = fields.read_expressions(sample)[0]
    fields.write_frame_list(sample, "labels", "ious", {first.id: LABELS[:4]})
    with pytest.raises(FieldError, match=rf"{sample.id}.*expression '{first.id}' has 4 pseudo-labels .* 8 frames"):
        rv.train_selector(demo, base, field="labels", **options)
    with pytest.raises(FieldError, match="learns from whole videos"):
        rv.train_selector(demo.to_clips("expressions"), base, field="labels", **options)
    assert not (tmp_path / "run").exists()
