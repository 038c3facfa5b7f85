"""What GLUS computes from the video alone: each frame's visual tokens and SAM2 features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fiftyone_refvos.models.clip_tower import ClipView
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.sam2 import ImageFeatures
from fiftyone_refvos.video import Frame, FrameSource

_HOST = torch.device("cpu")


class FrameEncoder:
    """Walks over the frames of a video, and encodes each one no more often than needed.

    Visual tokens are computed once per frame of the video. SAM2 features are computed once, too, as long as
    those that the backward walk reads again fit into `cache_bytes` of host memory; beyond it once per
    direction. They are not computed at all for a frame in which nothing is found.

    Args:
        network: with its weights
        frames: of one video
        context: indices of the context frames, none of which has to be there
        clip_view: what CLIP sees of a frame
        last_key: the walk goes forward to the end, and then backward from the frame before this one
        cache_bytes: most bytes of SAM2 features that are kept for the backward walk
    """

    def __init__(
        self,
        network: GlusNetwork,
        frames: FrameSource,
        *,
        context: Sequence[int],
        clip_view: ClipView,
        last_key: int,
        cache_bytes: int,
    ) -> None:
        self.clip_encodes = 0
        self.sam_encodes = 0
        self._network = network
        self._frames = frames
        self._clip_view: ClipView = clip_view
        self._context = frozenset(context)
        self._last_key = last_key
        self._budget = cache_bytes
        self._features: dict[int, ImageFeatures] = {}
        self._current: ImageFeatures | None = None
        self._pixels: Frame | None = None
        self._index = -1
        self._forward = True
        unique = sorted(self._context)
        pixels = list(frames.read(unique))
        encoded = self._encode_clip(pixels) if pixels else ()
        self._tokens: dict[int, Tensor] = dict(zip(unique, encoded, strict=True))
        self.context_tokens = [self._tokens[index] for index in context]

    def walk(self, indices: range) -> Iterator[int]:
        """Makes each frame of `indices` the current one, in order; a range that descends is the backward walk."""
        self._forward = indices.step > 0
        wanted = [index for index in indices if self._needs_pixels(index)]
        to_read = set(wanted)  # decided now, because taking a frame's tokens or features changes the answer
        reader = self._frames.read(wanted)
        for index in indices:
            self._index = index
            self._pixels = next(reader) if index in to_read else None
            self._current = None if self._forward else self._take_features(index)
            self.tokens = self._take_tokens(index)
            yield index

    def features(self) -> ImageFeatures:
        """SAM2 features of the current frame."""
        if self._current is None:
            assert self._pixels is not None  # walk() reads the pixels of every frame without features
            self._current = self._network.sam.encode_image(self._network.sam_pixels(self._pixels))
            self.sam_encodes += 1
            self._keep_features(self._index, self._current)
        return self._current

    def _needs_pixels(self, index: int) -> bool:
        return index not in self._tokens or index not in self._features

    def _read_again(self, index: int) -> bool:
        return self._forward and index < self._last_key

    def _encode_clip(self, pixels: Sequence[Frame]) -> Tensor:
        self.clip_encodes += len(pixels)
        return self._network.visual_tokens(pixels, self._clip_view)

    def _take_tokens(self, index: int) -> Tensor:
        tokens = self._tokens.get(index)
        if tokens is None:
            assert self._pixels is not None
            tokens = self._encode_clip([self._pixels])[0]
            if self._read_again(index):
                self._tokens[index] = tokens.to(_HOST)
        elif not self._read_again(index) and index not in self._context:
            del self._tokens[index]
        return tokens.to(self._network.device)

    def _take_features(self, index: int) -> ImageFeatures | None:
        features = self._features.pop(index, None)
        if features is None:
            return None
        self._budget += features.nbytes
        return features.to(self._network.device)

    def _keep_features(self, index: int, features: ImageFeatures) -> None:
        if self._read_again(index) and features.nbytes <= self._budget:
            self._budget -= features.nbytes
            self._features[index] = features.to(_HOST)
