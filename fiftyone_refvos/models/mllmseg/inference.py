"""MLLMSeg over an image: the image once, and all expressions on top of it.

image -> vision tower -> shared beginning of all prompts -> image side of the mask decoder, once per image;
expressions with their answers -> language model, batched on the shared beginning -> states before [SEG] ->
no target? and: text side of the mask decoder -> probabilities -> original size -> masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_refvos.masklet import BoolArray, Expression
from fiftyone_refvos.models.branches import Branches, run_branches, split_trunk
from fiftyone_refvos.models.internvl_tokenizer import ChatTokenizer
from fiftyone_refvos.models.mllmseg.config import RESOURCES, MllmsegInference
from fiftyone_refvos.models.mllmseg.decoder import DecodedImage
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork, Prefix
from fiftyone_refvos.models.mllmseg.prompt import Prompt, PromptWriter
from fiftyone_refvos.video import Frame

THRESHOLD = 0.5


@dataclass(frozen=True)
class Look:
    """What is known of an image before anything is asked about it.

    Attributes:
        size: (H, W) of the original
        prefix: the shared beginning of all prompts about it
        decoded: the image side of the mask decoder
    """

    size: tuple[int, int]
    prefix: Prefix
    decoded: DecodedImage


@dataclass(frozen=True)
class Answer:
    """What the networks say of one expression.

    Attributes:
        expression: what was looked for
        state: `(H,)` final-norm hidden state before [SEG]
        margin: logit of [SEG] less that of [REJ]
        found: False where [REJ] is the most likely token, whatever the margin to [SEG]
        mask_logits: `(h, w)` at the size of the network's input; there is a mask even if nothing is found
    """

    expression: Expression
    state: Tensor
    margin: float
    found: bool
    mask_logits: Tensor


@dataclass(frozen=True)
class ImageResult:
    """What is found in an image for one expression.

    Attributes:
        expression: what was looked for
        found: False where the model says that there is no such object
        mask: `(H, W) bool`, at the size of the image; zero where nothing is found, unless it is to be kept
        unrejected: `(H, W) bool`, the mask if the model had to give one; the published evaluation scores it for
            expressions that have a target
        score: mean probability inside of the mask, in [0, 1]; 0 for an empty one
        margin: by how much the logit of "there is one" is above that of "there is none"
        box: x0, y0, x1, y1 of the mask in pixels, the last ones included; None for an empty one
    """

    expression: Expression
    found: bool
    mask: BoolArray
    unrejected: BoolArray
    score: float
    margin: float
    box: tuple[int, int, int, int] | None


class MllmsegSegmenter:
    """Referring segmentation of images with MLLMSeg, no target and many targets included.

    Args:
        network: with its weights
        tokenizer: of the same checkpoint
        settings: how to run it
    """

    def __init__(self, network: MllmsegNetwork, tokenizer: ChatTokenizer, settings: MllmsegInference) -> None:
        self.network = network
        self.settings = settings
        self.prompts = PromptWriter(
            tokenizer,
            tokens_per_image=network.tokens_per_image,
            max_length=network.config.internvl.text_config.max_position_embeddings,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the masks depend on, as plain values; batch sizes are none of them."""
        return {name: value for name, value in asdict(self.settings).items() if name not in RESOURCES}

    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that is empty, too long, or holds a reserved token."""
        self.prompts.check(expression)

    def check_image(self, expressions: Sequence[Expression]) -> None:
        """Raises a ValueError for expressions that cannot be asked about one image."""
        for expression in expressions:
            self.check(expression)
        if self.settings.prompting == "joint" and expressions:
            self.prompts.check_length(expressions)

    def segment_image(self, image: Frame, expressions: Sequence[Expression]) -> Iterator[ImageResult]:
        """Streams one result per expression, in their order; without expressions nothing is computed.

        Args:
            image: `(H, W, 3) uint8` RGB of any size
            expressions: what to look for

        Raises:
            ValueError: for an image of another form, or expressions that the model cannot take
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"an image must be RGB, (H, W, 3) uint8; got {image.shape} {image.dtype}")
        self.check_image(expressions)
        return self._results(image, expressions)

    def _results(self, image: Frame, expressions: Sequence[Expression]) -> Iterator[ImageResult]:
        if not expressions:
            return
        look = self.look(image)
        for answer in self.answers(look, expressions):
            yield image_result(answer, look.size, keep=self.settings.rejected == "kept")

    @torch.inference_mode()
    def look(self, image: Frame) -> Look:
        """Computes all that depends on an image alone."""
        network = self.network
        features = network.look(network.pixels(image))
        prefix = network.prefill(self.prompts.prefix, features)
        return Look((image.shape[0], image.shape[1]), prefix, network.decode_image(features, prefix))

    def answers(self, look: Look, expressions: Sequence[Expression]) -> Iterator[Answer]:
        """Streams what the networks say of each expression, in their order."""
        size = self.settings.expression_batch
        if self.settings.prompting == "joint":
            states = self.states(look, self.prompts.write([expression.text for expression in expressions]))
        for start in range(0, len(expressions), size):
            batch = expressions[start : start + size]
            if self.settings.prompting == "single":
                own = self.single_states(look, [self.prompts.write([expression.text]) for expression in batch])
            else:
                own = states[start : start + size]
            yield from self._decide(look, batch, own)

    @torch.inference_mode()
    def states(self, look: Look, prompt: Prompt) -> Tensor:
        """`(E, H)` states before each [SEG] or [REJ] of one prompt about E expressions."""
        return self.run(look, prompt.read)[[place - 1 for place in prompt.decisions]]

    @torch.inference_mode()
    def run(self, look: Look, ids: Sequence[int]) -> Tensor:
        """`(length, H)` final-norm hidden states of ids after the shared beginning."""
        embeds = self.network.embed(ids)
        branches = Branches(embeds[None], [embeds[:0]])
        return run_branches(self.network.language_model, look.prefix.cache, branches)[-1][0]

    @torch.inference_mode()
    def single_states(self, look: Look, prompts: Sequence[Prompt]) -> Tensor:
        """`(E, H)` states before [SEG] of E prompts about one expression each, in one run."""
        trunk, leaves = split_trunk([prompt.read for prompt in prompts])
        embed = self.network.embed
        branches = Branches(embed(trunk)[None], [embed(leaf) for leaf in leaves])
        states = run_branches(self.network.language_model, look.prefix.cache, branches)[-1][0]
        return states[branches.places()[2].to(states.device)]

    @torch.inference_mode()
    def _decide(self, look: Look, expressions: Sequence[Expression], states: Tensor) -> list[Answer]:
        logits = self.network.logits(states).float()
        seg, rej = self.prompts.seg_id, self.prompts.rej_id
        margins = (logits[:, seg] - logits[:, rej]).tolist()
        found = (logits.argmax(-1) != rej).tolist()
        masks = self.network.mask_decoder.masks(look.decoded, states)
        return [
            Answer(expression, states[n], margins[n], found[n], masks[n]) for n, expression in enumerate(expressions)
        ]


def probabilities_at_size(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities `(..., h, w)` of mask logits at the size (H, W) of an image, `(..., H, W) float32`.

    Probabilities are resized, not logits, as the published program does; the masks of the two differ.
    """
    maps = mask_logits.float().sigmoid()
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return resized.view(*maps.shape[:-2], *size)


def box_of(probabilities: Tensor) -> tuple[int, int, int, int] | None:
    """The box x0, y0, x1, y1 of all pixels above one half, the last ones included; None if there are none."""
    inside = probabilities > THRESHOLD
    rows, columns = (inside.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    return (columns[0], rows[0], columns[-1], rows[-1]) if rows else None


@torch.inference_mode()
def image_result(answer: Answer, size: tuple[int, int], *, keep: bool = False) -> ImageResult:
    """The mask of an answer at the size (H, W) of its image.

    Args:
        answer: of the networks
        size: of the image
        keep: whether there is a mask also where the model says that there is no such object
    """
    probabilities = probabilities_at_size(answer.mask_logits, size)
    inside = probabilities >= THRESHOLD
    unrejected = inside.cpu().numpy()
    area = int(unrejected.sum())
    used = answer.found or keep
    shown = used and area > 0
    return ImageResult(
        expression=answer.expression,
        found=answer.found,
        mask=unrejected if used else np.zeros(size, dtype=bool),
        unrejected=unrejected,
        score=float(probabilities[inside].mean()) if shown else 0.0,
        margin=answer.margin,
        box=box_of(probabilities) if shown else None,
    )
