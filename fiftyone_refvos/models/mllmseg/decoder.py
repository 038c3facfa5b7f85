"""The light-weight mask decoder of MLLMSeg (paper, section 3.2), split into what an image and what a text decides.

Modules carry their published names. Shapes: P patches (32x32), W the width of the vision tower, H that of the
language model, n texts about one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 8
GROUPS = 4  # of channels that are up-sampled with offsets of their own
SCALE = 2  # from the grid of image tokens to that of patches
OFFSET_SCALE = 0.25
DROPOUT = 0.1


@dataclass(frozen=True)
class DecodedImage:
    """What the decoder makes of an image alone.

    Attributes:
        grid: (height, width) of the patches
        fused: `(P, W)` patches, with the language model's view of them
        attended: `(P, W)` the same after the self-attention that comes before the text; None in a training, where
            dropout makes it another one for each text
    """

    grid: tuple[int, int]
    fused: Tensor
    attended: Tensor | None


class CrossAttention(nn.Module):
    """One post-norm decoder layer of stock torch and a last norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(width, HEADS, dim_feedforward=width, dropout=DROPOUT, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, num_layers=1, norm=nn.LayerNorm(width))

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """`(B, Q, W)` queries after attention to themselves and to the memory `(B, M, W)`."""
        return self.decoder(queries, memory)

    def attend(self, queries: Tensor) -> Tensor:
        """The first third of the layer, which knows no memory: `(B, Q, W)` to `(B, Q, W)`."""
        layer = self.decoder.layers[0]
        return layer.norm1(queries + layer.self_attn(queries, queries, queries, need_weights=False)[0])

    def finish(self, attended: Tensor, memory: Tensor) -> Tensor:
        """The rest of the layer for B memories of a single token each, without dropout.

        The softmax over one key is 1, so every query gets the same: the projected value of that token.

        Args:
            attended: `(1, Q, W)` of `attend`
            memory: `(B, W)`

        Returns:
            `(B, Q, W)`
        """
        layer = self.decoder.layers[0]
        attention = layer.multihead_attn
        width = memory.shape[-1]
        value = F.linear(memory, attention.in_proj_weight[-width:], attention.in_proj_bias[-width:])
        states = layer.norm2(attended + attention.out_proj(value)[:, None])
        states = layer.norm3(states + layer.linear2(layer.activation(layer.linear1(states))))
        assert self.decoder.norm is not None  # it was given above
        return self.decoder.norm(states)


class ContentAwareUpsampler(nn.Module):
    """Up-samples maps at points that it finds by their contents (DySample, style "lp").

    Attributes:
        offset: gives channels [axis, x first][group][sub-position, row by row]
        init_pos: `(1, channels, 1, 1)` where the sub-positions of a cell are without any offset, in cells
    """

    init_pos: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(width, 2 * GROUPS * SCALE**2, kernel_size=1)
        places = (torch.arange(SCALE) + 0.5) / SCALE - 0.5
        y, x = torch.meshgrid(places, places, indexing="ij")
        initial = torch.stack([x, y])[:, None].expand(-1, GROUPS, -1, -1)
        self.register_buffer("init_pos", initial.reshape(1, -1, 1, 1).clone())

    def forward(self, maps: Tensor) -> Tensor:
        """`(B, W, h, w)` to `(B, W, 2h, 2w)`; points are computed in float32, whatever the type of the maps."""
        batch, _, height, width = maps.shape
        offsets = (self.offset(maps) * OFFSET_SCALE + self.init_pos).float()
        offsets = offsets.unflatten(1, (2, GROUPS, SCALE, SCALE))
        centres = [torch.arange(size, device=maps.device) + 0.5 for size in (height, width)]
        y, x = torch.meshgrid(*centres, indexing="ij")
        points = offsets + torch.stack([x, y]).view(1, 2, 1, 1, 1, height, width)
        sizes = torch.tensor([width, height], device=maps.device)
        # (batch, axis, group, sub-row, sub-column, row, column) to one grid per group
        grid = points.permute(0, 2, 5, 3, 6, 4, 1).flatten(0, 1).flatten(1, 2).flatten(2, 3) * 2 / sizes - 1
        grouped = maps.float().unflatten(1, (GROUPS, -1)).flatten(0, 1)
        sampled = F.grid_sample(grouped, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return sampled.unflatten(0, (batch, GROUPS)).flatten(1, 2).to(maps.dtype)


class MaskDecoder(nn.Module):
    """Mask logits of an image and the states that predict [SEG].

    Args:
        width: W of the vision tower
        hidden: H of the language model
        patch_size: side of a patch in pixels; a cell of the last map has one channel for each of its pixels
    """

    def __init__(self, width: int, hidden: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.img_llm_down = nn.Linear(hidden, width)
        self.text_down = nn.Linear(hidden, width)
        self.text_out_adapter = nn.Linear(3 * width, width)
        self.ca_layer_v2l = CrossAttention(width)
        self.upsample_adapter_l = ContentAwareUpsampler(width)
        self.ca_layer_vl = CrossAttention(width)
        channels = patch_size**2
        self.conv1 = nn.Sequential(
            nn.Conv2d(width, channels, kernel_size=3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.conv2 = nn.Conv2d(1, 1, kernel_size=5, padding=2)

    def forward(self, detail: Tensor, rows: Tensor, grid: tuple[int, int], states: Tensor) -> Tensor:
        """Mask logits `(n, h, w)` at the size of the network's input; arguments as of `image` and `masks`."""
        return self.masks(self.image(detail, rows, grid), states)

    def image(self, detail: Tensor, rows: Tensor, grid: tuple[int, int]) -> DecodedImage:
        """What depends on the image alone: about four fifths of the work for one text.

        Args:
            detail: `(P, W)` patches of the vision tower
            rows: `(P / 4, H)` states of the language model, one per image token
            grid: (height, width) of the patches
        """
        coarse = self.img_llm_down(rows)[None]
        seen = self.ca_layer_v2l(detail[None], coarse)
        fine = self.upsample(coarse, grid).flatten(2).transpose(1, 2)
        fused = self.text_out_adapter(torch.cat([seen, detail[None], fine], dim=-1))
        return DecodedImage(grid, fused[0], None if self.training else self.ca_layer_vl.attend(fused)[0])

    def upsample(self, coarse: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens `(B, P / 4, W)` as maps on the grid of patches, `(B, W, height, width)`."""
        size = (grid[0] // SCALE, grid[1] // SCALE)
        return self.upsample_adapter_l(coarse.transpose(1, 2).unflatten(2, size))

    def masks(self, image: DecodedImage, states: Tensor) -> Tensor:
        """Mask logits `(n, h, w)` of n texts, of which `states` `(n, H)` are those before [SEG]."""
        return self.draw(self.join(image, self.text_down(states)), image.grid)

    def join(self, image: DecodedImage, texts: Tensor) -> Tensor:
        """`(n, P, W)` patches that know what is looked for; texts are `(n, W)`."""
        if image.attended is not None:
            return self.ca_layer_vl.finish(image.attended[None], texts)
        return self.ca_layer_vl(image.fused.expand(len(texts), -1, -1), texts[:, None])

    def draw(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mask logits `(n, h, w)` of `(n, P, W)` patches."""
        cells = self.conv1(patches.transpose(1, 2).unflatten(2, grid))
        return self.conv2(F.pixel_shuffle(cells, self.patch_size))[:, 0]
