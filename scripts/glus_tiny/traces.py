"""The language model's second part: following each object from frame to frame, in layers of its own.

Attention that finds the same object in another frame begins to form by chance, after long; here it is asked for. Each
head of the two layers looks a number of frames back: the first four heads one to four, the others five to eight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from fiftyone_refvos.demo.rendered import RenderedVideo, RenderedVideos
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.batch import Collator
from fiftyone_refvos.training.learner import Forgetful
from scripts.glus_tiny.slots import SLOTS, middles, token_objects
from scripts.glus_tiny.statements import ClipPrompt

FIRST_LAYER, LAYERS = 3, 2
"""Those that follow objects."""

_ATTENTION_WEIGHT = 0.5
_LEAST_ATTENTION = 1e-4


class Ways(NamedTuple):
    """Clips of N frames, and the ways of their objects.

    Attributes:
        pixels: `(B * N, 3, S, S)` CLIP's input
        objects: `(B, N, tokens, SLOTS)` numbers of the objects that tokens stand for, -1 for none
        places: `(B, N, objects, 3)` 1 for what can be seen, and where it is, x and y in eighths
    """

    pixels: Tensor
    objects: Tensor
    places: Tensor


class TraceLearner(Forgetful):
    """A `Learner` of projector and language model; CLIP stays as it is.

    Args:
        glus: trained in place
        tokenizer: of the same checkpoint
        videos: to draw clips of
        batch_size: clips per pass
        context_frames: from segments of the whole video
    """

    def __init__(
        self,
        glus: GlusNetwork,
        tokenizer: LlamaTokenizer,
        videos: RenderedVideos,
        *,
        batch_size: int,
        context_frames: int,
    ) -> None:
        self._glus, self._videos, self._batch_size = glus, videos, batch_size
        self._collate = Collator(glus.clip.config.image_size, glus.config.clip_view).pixels
        self._prompt = ClipPrompt(glus, tokenizer, context_frames)
        self._head = trace_head(glus, context_frames)
        glus.llama.set_attn_implementation("eager")  # the others do not tell what they attend to
        heads = nn.ModuleDict({"traces": self._head})
        self._network = nn.ModuleDict({"projector": glus.projector, "llama": glus.llama, "heads": heads})

    @property
    def network(self) -> nn.Module:
        return self._network

    def draw(self, rng: np.random.Generator) -> Ways:
        pixels, objects, places = [], [], []
        for _ in range(self._batch_size):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            frames = self._prompt.draw_frames(len(video), rng)
            pixels += list(video.read(frames))
            found, where = ways(video, frames, self._glus.tokens_per_image)
            objects.append(found)
            places.append(where)
        most = max(each.shape[1] for each in places)
        padded = [np.pad(each, ((0, 0), (0, most - each.shape[1]), (0, 0))) for each in places]
        return Ways(self._collate(pixels), torch.from_numpy(np.stack(objects)), torch.from_numpy(np.stack(padded)))

    def losses(self, batch: Ways, rng: np.random.Generator) -> Mapping[str, Tensor]:
        glus = self._glus
        with torch.no_grad():
            features = glus.pool(glus.clip_features(batch.pixels))
        images = glus.projector(features).unflatten(0, (len(batch.objects), -1))
        told = glus.llama(inputs_embeds=self._prompt.embed(images), output_hidden_states=True, output_attentions=True)
        seen = self._prompt.visual(images.shape[2]).to(images.device)
        losses = following_losses(self._head, told, seen, batch.objects, batch.places)
        return losses | {"total": losses["traces"] + losses["attention"]}

    def sample_ids(self, batch: Ways) -> Sequence[str]:
        return [f"ways of objects in {len(batch.objects)} demo clips"]


def ways(video: RenderedVideo, frames: Sequence[int], tokens: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """`Ways.objects` and `Ways.places` of one clip."""
    found = np.stack([middles(video, frame) for frame in frames])
    objects = np.stack([token_objects(each, tokens)[0] for each in found])
    places = np.concatenate([~np.isnan(found[..., :1]), np.nan_to_num(found)], axis=-1)
    return objects, places.astype(np.float32)


def trace_head(glus: GlusNetwork, lags: int) -> nn.Linear:
    """Tells of a state, for each of its objects and so many frames back, whether it was seen and where."""
    return nn.Linear(glus.config.llama.hidden_size, SLOTS * lags * 3)


def following_losses(
    head: nn.Linear, told: BaseModelOutputWithPast, seen: Tensor, objects: Tensor, places: Tensor
) -> dict[str, Tensor]:
    """The losses of the layers that follow objects.

    Args:
        head: of `trace_head`
        told: by the language model, with all states and attention
        seen: `(N, tokens)` where the visual tokens are in the prompt
        objects, places: as in `Ways`
    """
    assert told.hidden_states is not None
    assert told.attentions is not None
    states = told.hidden_states[FIRST_LAYER + LAYERS][:, seen]
    attention = torch.cat(told.attentions[FIRST_LAYER : FIRST_LAYER + LAYERS], dim=1)
    return {
        "traces": trace_loss(head, states, objects, places),
        "attention": _ATTENTION_WEIGHT * attention_loss(attention, seen, objects),
    }


def trace_loss(head: nn.Linear, states: Tensor, objects: Tensor, places: Tensor) -> Tensor:
    """How wrongly the states `(B, N, tokens, D)` tell where their objects were in the frames before."""
    said = head(F.rms_norm(states, states.shape[-1:])).unflatten(-1, (SLOTS, -1, 3))
    clip, now, token, slot = (objects >= 0).nonzero(as_tuple=True)
    said, who = said[clip, now, token, slot], objects[clip, now, token, slot]  # (objects, lags, 3)
    then = now[:, None] - 1 - torch.arange(said.shape[1], device=now.device)
    true = places[clip[:, None], then.clamp(min=0), who[:, None]]
    before, shown = then >= 0, (then >= 0) & (true[..., 0] > 0)
    seen = F.binary_cross_entropy_with_logits(said[..., 0][before], true[..., 0][before])
    return seen + F.smooth_l1_loss(said[..., 1:][shown], true[..., 1:][shown], beta=0.2)


def attention_loss(attention: Tensor, seen: Tensor, objects: Tensor) -> Tensor:
    """How little each head looks at the token of the same object, one frame further back than the head before.

    Args:
        attention: `(B, heads, P, P)`
        seen: `(N, tokens)` where the visual tokens are among P
        objects: `(B, N, tokens, SLOTS)` as in `Ways`
    """
    losses = []
    for lag in range(1, min(attention.shape[1], len(seen) - 1) + 1):
        same = (objects[:, lag:, :, None, :, None] == objects[:, :-lag, None, :, None, :]) & (
            objects[:, lag:, :, None, :, None] >= 0
        )  # (B, N - lag, tokens now, tokens then, SLOTS, SLOTS)
        clip, now, token, other = same.flatten(-2).any(-1).nonzero(as_tuple=True)
        looks = attention[clip, lag - 1, seen[now + lag, token], seen[now, other]]
        losses.append(-looks.clamp(min=_LEAST_ATTENTION).log())
    return torch.cat(losses).mean()
