"""What differs between the families of Sa2VA: how images become visual tokens, and how prompts are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.sa2va.language import PromptInputs
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.models.sa2va.pixels import QWEN_PIXELS, internvl_frames, internvl_image, qwen_image
from fiftyone_refvos.models.sa2va.tokens import FastTokenizer, Sa2vaTokenizer
from fiftyone_refvos.video import Frame

IMAGE = "<image>"
"""Where the visual tokens come in a question."""

# Per template: what comes before and after a question, and which texts end an answer.
_CHATS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "qwen_chat": (
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "internlm2_chat": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", ("<|im_end|>",)),
    "phi3_chat": ("<|user|>\n", "<|end|>\n<|assistant|>\n", ("<|end|>",)),
}


@dataclass(frozen=True)
class Visual:
    """What the language model gets to see.

    Attributes:
        tokens: `(T, D)` visual tokens of all images
        runs: how many of them each image has, in the order of the prompt
        grids: `(images, 3)` patches in time, height and width, where positions depend on them
        deepstack: `(T, D)` for each of the first layers, what is added after it
        regions: text about marked regions, whose tokens are the last ones of `tokens`
    """

    tokens: Tensor
    runs: tuple[int, ...]
    grids: Tensor | None = None
    deepstack: tuple[Tensor, ...] = ()
    regions: str = ""


class Family(ABC):
    """How one family sees images and is asked about them.

    Args:
        network: with its weights
        tokenizer: of the same checkpoint
        image_token: that stands for one visual token
    """

    stop_words: tuple[str, ...] = ()
    states_before_norm = False

    def __init__(self, network: Sa2vaNetwork, tokenizer: Sa2vaTokenizer, image_token: str) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.image_id = tokenizer.token_id(image_token)

    @abstractmethod
    def see_video(self, frames: Sequence[Frame]) -> Visual:
        """The visual tokens of some frames of a video."""

    @abstractmethod
    def see_image(self, image: Frame) -> Visual:
        """The visual tokens of a single image."""

    @abstractmethod
    def write(self, question: str, visual: Visual | None) -> str:
        """The prompt text of one question, in which images stand where it says `<image>`."""

    @abstractmethod
    def positions(self, ids: Tensor, visual: Visual | None) -> Tensor:
        """Rotary positions `(axes, L)` of a prompt."""

    def mark(self, visual: Visual, masks: Tensor) -> Visual:
        """Visual tokens with the regions of `(n, H, W) bool` masks marked.

        Raises:
            ValueError: in families that know no regions
        """
        raise ValueError(f"regions cannot be marked for {self.network.config.family}: only InternVL bases know them")

    def encode(self, question: str, visual: Visual | None) -> list[int]:
        """Ids of one prompt."""
        return [*self.tokenizer.start, *self.tokenizer.encode(self.write(question, visual))]

    def cut(self, ids: Sequence[int]) -> int:
        """Where the part of a prompt ends that every prompt about the same images shares: after the last of them."""
        return max((n + 1 for n, each in enumerate(ids) if each == self.image_id), default=0)

    def inputs(self, ids: Sequence[int], visual: Visual | None) -> PromptInputs:
        """A prompt, or the beginning of one up to its cut, as the language model takes it."""
        tensor = torch.tensor(ids, dtype=torch.long, device=self.network.device)
        places = tensor == self.image_id
        embeds = self.network.embed_words(tensor)
        if visual is not None:
            if int(places.sum()) != len(visual.tokens):
                raise ValueError(f"the prompt has {int(places.sum())} places for {len(visual.tokens)} visual tokens")
            embeds[places] = visual.tokens.to(embeds)
        deepstack = () if visual is None else visual.deepstack
        return PromptInputs(embeds, self.positions(tensor, visual), places, deepstack)


class InternVl(Family):
    """InternVL 2.5 and 3: square tiles of 256 tokens, and templates by name.

    Args:
        network: with its weights
        tokenizer: of the same checkpoint
    """

    def __init__(self, network: Sa2vaNetwork, tokenizer: Sa2vaTokenizer) -> None:
        super().__init__(network, tokenizer, "<IMG_CONTEXT>")
        self._before, self._after, self.stop_words = _CHATS[network.config.template]
        self._tiling = network.config.tiling
        side = round(
            self._tiling.side / network.config.mllm.vision_config.patch_size[0] * network.config.mllm.downsample_ratio
        )
        self._grid = (side, side)  # of the visual tokens of a tile: 16 in all published checkpoints

    def see_video(self, frames: Sequence[Frame]) -> Visual:
        """One tile per frame."""
        tokens = self.tile_tokens(internvl_frames(frames, self._tiling.side))
        return Visual(tokens.flatten(0, 1), (tokens.shape[1],) * len(frames))

    def see_image(self, image: Frame) -> Visual:
        """The tiles of an image, which are one run of tokens."""
        tokens = self.tile_tokens(internvl_image(image, self._tiling)).flatten(0, 1)
        return Visual(tokens, (len(tokens),))

    def tile_states(self, tiles: Tensor) -> Tensor:
        """States `(F, 1 + patches, width)` of the vision tower, the class token first."""
        return self.network.mllm.model.vision_tower(
            tiles.to(self.network.device, self.network.dtype)
        ).last_hidden_state

    def tile_tokens(self, tiles: Tensor) -> Tensor:
        """Visual tokens `(F, 256, D)` of normalised tiles `(F, 3, S, S)`."""
        tiles = tiles.to(self.network.device, self.network.dtype)
        return self.network.mllm.model.get_image_features(tiles, return_dict=True).pooler_output

    def mark(self, visual: Visual, masks: Tensor) -> Visual:
        """Adds the tokens of the last tile, which shows the whole image, that lie in each mask."""
        cells = F.interpolate(masks[None].float(), size=self._grid, mode="nearest")[0].flatten(1).bool()
        whole = visual.tokens[-(self._grid[0] * self._grid[1]) :]
        chosen = [whole[each.to(whole.device)] for each in cells]
        text = region_text([len(each) for each in chosen])
        return replace(visual, tokens=torch.cat([visual.tokens, *chosen]), regions=text)

    def write(self, question: str, visual: Visual | None) -> str:
        """The question in the chat template; `<image>` becomes the images and what is said of their regions."""
        if visual is not None:
            images = "\n".join(f"<img>{'<IMG_CONTEXT>' * count}</img>" for count in visual.runs)
            question = question.replace(IMAGE, images + visual.regions)
        return f"{self._before}{question}{self._after}"

    def positions(self, ids: Tensor, visual: Visual | None) -> Tensor:
        """One after the other."""
        return torch.arange(len(ids), device=ids.device)[None]


class QwenVl(Family):
    """Qwen2.5-VL and Qwen3-VL: images at about their own size, and the checkpoint's own chat template.

    Args:
        network: with its weights
        tokenizer: of the same checkpoint
        folder: with preprocessor_config.json

    Raises:
        CheckpointError: if that file is missing or damaged
    """

    def __init__(self, network: Sa2vaNetwork, tokenizer: FastTokenizer, folder: Path) -> None:
        super().__init__(network, tokenizer, "<|image_pad|>")
        self._chat = tokenizer.chat
        # Qwen3-VL was trained with a transformers whose last hidden state was that before the last norm
        self.states_before_norm = network.config.family == "qwen3_vl"
        try:
            self._processor = Qwen2VLImageProcessor.from_pretrained(folder)
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{folder} has no usable preprocessor_config.json: {error}") from error

    def see_video(self, frames: Sequence[Frame]) -> Visual:
        """Each frame is an image of its own."""
        pixels, grids = self.patches(frames)
        seen = self.network.mllm.model.get_image_features(pixels, grids, return_dict=True)
        levels = getattr(seen, "deepstack_features", None) or ()
        return Visual(
            tokens=torch.cat(seen.pooler_output),
            runs=tuple(len(each) for each in seen.pooler_output),
            grids=grids,
            deepstack=tuple(torch.cat(level) for level in levels),
        )

    def see_image(self, image: Frame) -> Visual:
        """As one frame."""
        return self.see_video([image])

    def patches(self, frames: Sequence[Frame]) -> tuple[Tensor, Tensor]:
        """Flattened patches `(patches, values)` of images, and how many of them each has, `(images, 3)`."""
        images = [qwen_image(frame) for frame in frames]
        batch = self._processor(images=images, size=QWEN_PIXELS, return_tensors="pt")
        device = self.network.device
        return batch["pixel_values"].to(device, self.network.dtype), batch["image_grid_thw"].to(device)

    def write(self, question: str, visual: Visual | None) -> str:
        """The images first, and then the question without `<image>`."""
        runs = () if visual is None else visual.runs
        content = [{"type": "image"} for _ in runs] + [{"type": "text", "text": question.replace(IMAGE, "")}]
        parts = self._chat(content).split("<|image_pad|>")
        if len(parts) != len(runs) + 1:
            raise ValueError(f"the chat template has {len(parts) - 1} places for {len(runs)} images")
        return parts[0] + "".join("<|image_pad|>" * run + part for run, part in zip(runs, parts[1:], strict=True))

    def positions(self, ids: Tensor, visual: Visual | None) -> Tensor:
        """Time, height and width; outside of images all three count on together."""
        if visual is None:
            return torch.arange(len(ids), device=ids.device).expand(3, -1)
        kinds = (ids == self.image_id).int()[None]
        found, _ = self.network.mllm.model.get_rope_index(ids[None], kinds, image_grid_thw=visual.grids)
        return found[:, 0]


def region_text(counts: Sequence[int]) -> str:
    """What comes after an image in which regions of so many visual tokens are marked."""
    parts = [f"region{n}<vp>{'<IMG_CONTEXT>' * count}</vp>" for n, count in enumerate(counts, start=1)]
    return f"\nThere are {len(parts)} part regions in the picture: {', '.join(parts)}.\n"


def open_family(network: Sa2vaNetwork, tokenizer: Sa2vaTokenizer, folder: Path) -> Family:
    """The family of a network that is loaded from a folder.

    Raises:
        CheckpointError: if a file of its own is missing, damaged or that of another family
    """
    if network.config.family == "internvl":
        return InternVl(network, tokenizer)
    if not isinstance(tokenizer, FastTokenizer):
        raise CheckpointError(f"{folder} holds the tokenizer of InternLM2; Qwen-VL has tokenizer.json or vocab.json")
    return QwenVl(network, tokenizer, folder)
