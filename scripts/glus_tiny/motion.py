"""The language model's third part: what each object does, and statements about it.

Statements alone teach that slowly: they say only in the end whether an action was seen rightly. Here the states of
the visual tokens, too, are asked what their objects do, and those of words which objects they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fiftyone_refvos.demo.rendered import RenderedVideo, RenderedVideos
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.batch import Collator
from fiftyone_refvos.training.learner import Forgetful
from scripts.glus_tiny.slots import SLOTS
from scripts.glus_tiny.statements import (
    RATES,
    ClipPrompt,
    Statement,
    draw_statements,
    encode_statements,
    statements,
)
from scripts.glus_tiny.traces import FIRST_LAYER, LAYERS, following_losses, trace_head, ways

ACTION_LAYER = FIRST_LAYER + LAYERS + 1
"""After how many layers actions are asked for; the layers that are left can match them with words."""

_WIDTH = 64  # of the vectors that match words with objects
_UNKNOWN = -1.0


class Motions(NamedTuple):
    """Clips of N frames, the last of which is asked about, and what happens in them.

    Attributes:
        pixels: `(B * N, 3, S, S)` CLIP's input
        ids: `(B, L)` of the statements, padded with 0
        weights: `(B, L)` of their losses, 0 for padding
        objects: `(B, N, tokens, SLOTS)` numbers of the objects that tokens stand for, -1 for none
        places: `(B, N, objects, 3)` 1 for what can be seen, and where it is, x and y in eighths
        actions: `(B, objects, actions)` 1 for what it does, 0 for what it does not, else unknown
        ends: `(B, statements)` where in `ids` the last word of each expression is
        meant: `(B, statements, objects)` 1 for what an expression means, 0 for what it does not, else no statement
    """

    pixels: Tensor
    ids: Tensor
    weights: Tensor
    objects: Tensor
    places: Tensor
    actions: Tensor
    ends: Tensor
    meant: Tensor


class MotionLearner(Forgetful):
    """A `Learner` of projector, language model and its head; CLIP stays as it is.

    Args:
        glus: trained in place
        tokenizer: of the same checkpoint
        videos: to draw clips of
        batch_size: clips per pass
        statements: most of a clip
        context_frames: from segments of the whole video
    """

    _rates: Mapping[str, float] = RATES | {"motion": 5.0, "multi": 2.5, "no_target": 2.0}

    def __init__(
        self,
        glus: GlusNetwork,
        tokenizer: LlamaTokenizer,
        videos: RenderedVideos,
        *,
        batch_size: int,
        statements: int,
        context_frames: int,
    ) -> None:
        self._glus, self._tokenizer, self._videos = glus, tokenizer, videos
        self._batch_size, self._statements = batch_size, statements
        self._collate = Collator(glus.clip.config.image_size, glus.config.clip_view).pixels
        self._prompt = ClipPrompt(glus, tokenizer, context_frames)
        width = glus.config.llama.hidden_size
        self._traces = trace_head(glus, context_frames)
        self._heads = nn.ModuleDict(
            {
                "traces": self._traces,
                "actions": nn.Linear(width, SLOTS * len(videos.video(0).actions)),
                "words": nn.Linear(width, _WIDTH),
                "things": nn.Linear(width, SLOTS * _WIDTH),
            }
        )
        parts = {"projector": glus.projector, "llama": glus.llama, "lm_head": glus.lm_head, "heads": self._heads}
        self._network = nn.ModuleDict(parts)
        glus.llama.set_attn_implementation("eager")  # the others do not tell what they attend to

    @property
    def network(self) -> nn.Module:
        return self._network

    def draw(self, rng: np.random.Generator) -> Motions:
        pixels, rows, tokens = [], [], self._glus.tokens_per_image
        for _ in range(self._batch_size):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            frames = self._prompt.draw_frames(len(video), rng)
            pixels += list(video.read(frames))
            rows.append([*self._draw_statements(video, frames[-1], rng), *happening(video, frames, tokens)])
        ids, weights, ends, meant, objects, places, actions = (list(each) for each in zip(*rows, strict=True))
        most = max(len(each) for each in actions)
        return Motions(
            pixels=self._collate(pixels),
            ids=pad_sequence(ids, batch_first=True),
            weights=pad_sequence(weights, batch_first=True),
            objects=torch.stack(objects),
            places=torch.stack([F.pad(each, (0, 0, 0, most - each.shape[1])) for each in places]),
            actions=torch.stack([F.pad(each, (0, 0, 0, most - len(each)), value=_UNKNOWN) for each in actions]),
            ends=pad_sequence(ends, batch_first=True),
            meant=pad_sequence(
                [F.pad(each, (0, most - each.shape[1])) for each in meant], batch_first=True, padding_value=_UNKNOWN
            ),
        )

    def _draw_statements(self, video: RenderedVideo, shown: int, rng: np.random.Generator) -> list[Tensor]:
        pool = [each for each in statements(video, shown) if each.kind in self._rates]
        chosen = draw_statements(pool, self._statements, rng, rates=self._rates)
        ids, weights, ends = self._encode(chosen)
        meant = np.zeros((len(chosen), len(video.objects)), np.float32)
        for number, statement in enumerate(chosen):
            meant[number, list(statement.objects)] = 1
        return [torch.tensor(ids), torch.tensor(weights), torch.tensor(ends), torch.from_numpy(meant)]

    def _encode(self, chosen: Sequence[Statement]) -> tuple[list[int], list[float], list[int]]:
        """As of `encode_statements`."""
        return encode_statements(self._tokenizer, chosen)

    def losses(self, batch: Motions, rng: np.random.Generator) -> Mapping[str, Tensor]:
        glus, count = self._glus, len(batch.ids)
        with torch.no_grad():
            features = glus.pool(glus.clip_features(batch.pixels))
        images = glus.projector(features).unflatten(0, (count, -1))
        beginning = self._prompt.embed(images)
        words = glus.llama.embed_tokens(batch.ids)
        told = glus.llama(
            inputs_embeds=torch.cat([beginning, words], dim=1), output_hidden_states=True, output_attentions=True
        )
        states = told.last_hidden_state
        logits = glus.lm_head(states[:, beginning.shape[1] - 1 : -1])
        each = F.cross_entropy(logits.flatten(0, 1), batch.ids.flatten(), reduction="none")
        weights = batch.weights.flatten()
        seen = self._prompt.visual(images.shape[2]).to(images.device)
        losses = {
            "statements": (each * weights).sum() / weights.sum(),
            **following_losses(self._traces, told, seen, batch.objects, batch.places),
            "actions": self._action_loss(told.hidden_states[ACTION_LAYER][:, seen[-1]], batch),
            **self._word_losses(states[:, beginning.shape[1] :], states[:, seen[-1]], batch),
        }
        return losses | {"total": torch.stack(list(losses.values())).sum()}

    def sample_ids(self, batch: Motions) -> Sequence[str]:
        return [f"what happens in {len(batch.ids)} demo clips"]

    def _action_loss(self, states: Tensor, batch: Motions) -> Tensor:
        """Of the states `(B, tokens, D)` of the frame that is asked about."""
        said = self._heads["actions"](F.rms_norm(states, states.shape[-1:])).unflatten(-1, (SLOTS, -1))
        clip, token, slot = (batch.objects[:, -1] >= 0).nonzero(as_tuple=True)
        true = batch.actions[clip, batch.objects[clip, -1, token, slot]]
        known = true != _UNKNOWN
        return F.binary_cross_entropy_with_logits(said[clip, token, slot][known], true[known])

    def _word_losses(self, words: Tensor, things: Tensor, batch: Motions) -> dict[str, Tensor]:
        """Of the states of the statements `(B, L, D)`, and of the visual tokens `(B, tokens, D)`."""
        return {"meant": self._match_loss(at_ends(words, batch), things, batch)}

    def _match_loss(self, ends: Tensor, things: Tensor, batch: Motions) -> Tensor:
        """How wrongly the states `(B, statements, D)` and those of the visual tokens tell who is meant."""
        asked, there = self._heads["words"](ends), self._heads["things"](things).unflatten(-1, (SLOTS, -1))
        said = torch.einsum("bew,btsw->bets", asked, there) * _WIDTH**-0.5
        clip, token, slot = (batch.objects[:, -1] >= 0).nonzero(as_tuple=True)
        true = batch.meant[clip, :, batch.objects[clip, -1, token, slot]]  # (objects, statements)
        known = true != _UNKNOWN
        return F.binary_cross_entropy_with_logits(said[clip, :, token, slot][known], true[known])


def at_ends(words: Tensor, batch: Motions) -> Tensor:
    """The states `(B, statements, D)` of those of all words, `(B, L, D)`, that end an expression."""
    return words.gather(1, batch.ends[..., None].expand(-1, -1, words.shape[-1]))


def happening(video: RenderedVideo, frames: Sequence[int], tokens: int) -> list[Tensor]:
    """`Motions.objects`, `places` and `actions` of one clip."""
    objects, places = ways(video, frames, tokens)
    return [torch.from_numpy(objects), torch.from_numpy(places), torch.from_numpy(_known(video))]


def _known(video: RenderedVideo) -> NDArray[np.float32]:
    """`(objects, actions)` as in `Motions.actions`."""
    truths = [[_UNKNOWN if truth is None else float(truth) for truth in each] for each in video.actions.values()]
    return np.array(truths, dtype=np.float32).T
