"""The language model's part: true statements about a clip, word by word, as LLaVA learnt from descriptions.

"the small star that moves up at c m." says what is meant by an expression and where that is in the last frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fiftyone_refvos.demo.rendered import RenderedExpression, RenderedVideo, RenderedVideos
from fiftyone_refvos.models.conversation import SYSTEM
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.prompt import IMAGE, context
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID, LlamaTokenizer
from fiftyone_refvos.training.batch import Collator
from fiftyone_refvos.training.learner import Forgetful
from scripts.glus_tiny.points import FEWEST_PIXELS

COLUMNS, ROWS = "abcdefgh", "ijklmnop"
"""Names of the eighths of the width, from the left, and of the height, from the top: one for each patch of CLIP."""

NOWHERE, NOTHING = "out", "empty"
QUESTION = "What is in this frame?"

TEXT_WEIGHT = 0.1  # expressions cannot be guessed; what they mean can
_MOST_NAMED = 2  # a word that fits more objects is not worth a statement
RATES = {
    "word": 1.0,
    "name": 1.0,
    "look": 1.5,
    "attribute": 1.5,
    "relation": 1.5,
    "motion": 2.5,
    "multi": 2.0,
    "no_target": 1.0,
}


@dataclass(frozen=True, slots=True)
class Statement:
    """An expression, and what is said of it: where its objects are, from left to right, or that there are none.

    Of kind "word" is a colour or a shape alone; of kind "name" a place, and what lies there.

    Attributes:
        objects: positions of what is meant in `RenderedVideo.objects`
    """

    kind: str
    expression: str
    answer: str
    objects: tuple[int, ...]


class Statements(NamedTuple):
    """Clips, and what is said about them.

    Attributes:
        pixels: `(B * N, 3, S, S)` CLIP's input
        ids: `(B, L)` of the statements, padded with 0
        weights: `(B, L)` of their losses, 0 for padding
    """

    pixels: Tensor
    ids: Tensor
    weights: Tensor


class ClipPrompt:
    """What comes before the statements: context frames and the frame that is asked about, and words around them.

    Args:
        glus: whose embeddings are taken
        tokenizer: of the same checkpoint
        context_frames: how many
        ending: what follows the last picture
    """

    def __init__(
        self,
        glus: GlusNetwork,
        tokenizer: LlamaTokenizer,
        context_frames: int,
        ending: str = f"\n{QUESTION} ASSISTANT:",
    ) -> None:
        self._glus, self._context_frames = glus, context_frames
        prompt = tokenizer.encode(f"{SYSTEM} USER: {context(context_frames)}{IMAGE}{ending}")
        self._words = _split(prompt, IMAGE_ID)

    def draw_frames(self, length: int, rng: np.random.Generator) -> list[int]:
        """Frames of a video: one of each of as many segments, and one from anywhere, which is asked about."""
        bounds = np.linspace(0, length, self._context_frames + 1).astype(int)
        return [*(int(rng.integers(first, end)) for first, end in pairwise(bounds)), int(rng.integers(length))]

    def embed(self, images: Tensor) -> Tensor:
        """The prompt `(B, P, D)` around the visual tokens `(B, N, tokens, D)`, for all clips at once."""
        pieces = [
            self._glus.llama.embed_tokens(torch.tensor(words, device=images.device)).expand(len(images), -1, -1)
            for words in self._words
        ]
        shown = [piece for pair in zip(pieces, images.unbind(1), strict=False) for piece in pair]
        return torch.cat([*shown, pieces[-1]], dim=1)

    def visual(self, tokens: int) -> Tensor:
        """Positions of the visual tokens in the prompt, `(N, tokens)`."""
        starts = np.cumsum([len(words) for words in self._words[:-1]]) + tokens * np.arange(len(self._words) - 1)
        return torch.from_numpy(starts[:, None] + np.arange(tokens))


class StatementLearner(Forgetful):
    """A `Learner` of projector, language model and its head; CLIP stays as it is.

    Args:
        glus: trained in place
        tokenizer: of the same checkpoint
        videos: to draw clips of
        batch_size: clips per pass
        statements: most of a clip
        context_frames: from segments of the whole video, half as many as later stages see; none for statements
            that one frame can tell
    """

    def __init__(
        self,
        glus: GlusNetwork,
        tokenizer: LlamaTokenizer,
        videos: RenderedVideos,
        *,
        batch_size: int,
        statements: int = 10,
        context_frames: int = 4,
    ) -> None:
        self._glus, self._tokenizer, self._videos = glus, tokenizer, videos
        self._batch_size, self._statements = batch_size, statements
        self._collate = Collator(glus.clip.config.image_size, glus.config.clip_view).pixels
        self._prompt = ClipPrompt(glus, tokenizer, context_frames)
        self._network = nn.ModuleDict({"projector": glus.projector, "llama": glus.llama, "lm_head": glus.lm_head})

    @property
    def network(self) -> nn.Module:
        return self._network

    def draw(self, rng: np.random.Generator) -> Statements:
        frames: list[NDArray[np.uint8]] = []
        ids, weights = [], []
        for _ in range(self._batch_size):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            seen = self._prompt.draw_frames(len(video), rng)
            frames += video.read(seen)
            chosen = draw_statements(statements(video, seen[-1]), self._statements, rng)
            row_ids, row_weights, _ = encode_statements(self._tokenizer, chosen)
            ids.append(torch.tensor(row_ids))
            weights.append(torch.tensor(row_weights))
        padded = (pad_sequence(each, batch_first=True) for each in (ids, weights))
        return Statements(self._collate(frames), *padded)

    def losses(self, batch: Statements, rng: np.random.Generator) -> Mapping[str, Tensor]:
        glus, count = self._glus, len(batch.ids)
        with torch.no_grad():
            features = glus.pool(glus.clip_features(batch.pixels))
        images = glus.projector(features).unflatten(0, (count, -1))
        beginning = self._prompt.embed(images)
        words = glus.llama.embed_tokens(batch.ids)
        states = glus.llama(inputs_embeds=torch.cat([beginning, words[:, :-1]], dim=1)).last_hidden_state
        logits = glus.lm_head(states[:, beginning.shape[1] - 1 :])
        each = F.cross_entropy(logits.flatten(0, 1), batch.ids.flatten(), reduction="none")
        weights = batch.weights.flatten()
        loss = (each * weights).sum() / weights.sum()
        return {"statements": loss, "total": loss}

    def sample_ids(self, batch: Statements) -> Sequence[str]:
        return [f"statements about {len(batch.ids)} demo clips"]


def encode_statements(
    tokenizer: LlamaTokenizer, chosen: Sequence[Statement]
) -> tuple[list[int], list[float], list[int]]:
    """Their ids, the weights of these in the loss, and where the last word of each expression is."""
    ids: list[int] = []
    weights: list[float] = []
    ends: list[int] = []
    for statement in chosen:
        pieces = tokenizer.encode(statement.expression)[1:]
        ends.append(len(ids) + len(pieces) - 1)
        said = tokenizer.encode(f"{statement.answer}.")[1:]
        ids += pieces + said
        weights += [TEXT_WEIGHT] * len(pieces) + [1.0] * len(said)
    return ids, weights, ends


def statements(video: RenderedVideo, frame: int) -> list[Statement]:
    """All that can be said: what each word means, what lies where, how each object looks, and every expression."""
    said: list[Statement] = []
    meant: dict[str, list[int]] = defaultdict(list)
    for number, look in enumerate(video.objects):
        place = f"at {_place(video, frame, [number])}"
        said.append(Statement("look", " ".join(look), place, (number,)))
        if NOWHERE not in place:
            said.append(Statement("name", place, " ".join(look), (number,)))
        for word in look[1:]:  # half of all objects are small
            meant[word].append(number)
    said += [
        Statement("word", word, f"at {_place(video, frame, numbers)}", tuple(numbers))
        for word, numbers in meant.items()
        if len(numbers) <= _MOST_NAMED
    ]
    return said + [_statement(video, frame, expression) for expression in video.expressions]


def draw_statements(
    pool: Sequence[Statement], count: int, rng: np.random.Generator, *, rates: Mapping[str, float] = RATES
) -> list[Statement]:
    """At most `count` of them in random order, kinds that are hard to learn more often."""
    by_kind: dict[str, list[Statement]] = defaultdict(list)
    for statement in pool:
        by_kind[statement.kind].append(statement)
    for kind in by_kind:
        rng.shuffle(by_kind[kind])
    chosen: list[Statement] = []
    while len(chosen) < count and by_kind:
        kinds = list(by_kind)
        weights = np.array([rates[kind] for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        chosen.append(by_kind[kind].pop())
        if not by_kind[kind]:
            del by_kind[kind]
    return chosen


def _statement(video: RenderedVideo, frame: int, expression: RenderedExpression) -> Statement:
    numbers = tuple(int(identity) for identity in expression.object_ids)
    answer = f"at {_place(video, frame, numbers)}" if numbers else NOTHING
    return Statement(expression.kind, expression.text, answer, numbers)


def _place(video: RenderedVideo, frame: int, numbers: Sequence[int]) -> str:
    """Where objects are in a frame, from left to right, and last those that cannot be seen: "c m, h j, out"."""
    labels = video.labels[frame]
    places = []
    for number in numbers:
        rows, columns = np.nonzero(labels == number + 1)
        if len(rows) < FEWEST_PIXELS:
            places.append((np.inf, NOWHERE))
            continue
        x, y = columns.mean(), rows.mean()
        across, down = COLUMNS[int(x * len(COLUMNS) / len(labels))], ROWS[int(y * len(ROWS) / len(labels))]
        places.append((x, f"{across} {down}"))
    return ", ".join(place for _, place in sorted(places))


def _split(ids: Sequence[int], at: int) -> list[list[int]]:
    """The runs of ids between those that are `at`."""
    runs: list[list[int]] = [[]]
    for number in ids:
        if number == at:
            runs.append([])
        else:
            runs[-1].append(number)
    return runs
