"""GLUS in the key frame alone, and SAM2's own memory from there: the comparison of the GLUS paper, table 6."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from fiftyone_refvos.masklet import Expression, FrameResult
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.sam2 import masks_at_size
from fiftyone_refvos.models.sam2_propagation import ImageMaps, Sam2Track, masks_for_sam2, precision
from fiftyone_refvos.video import FrameSource


@dataclass
class _Group:
    """Expressions with one key frame, and what GLUS found of them there."""

    key_frame: int
    found: list[Expression]
    logits: Tensor  # (N, 1, h, w) of those that were found
    results: list[FrameResult]  # of all, in the key frame


class Sam2PropagationSegmenter(GlusSegmenter):
    """Segments the key frame by GLUS, without a memory, and all other frames by SAM2's own memory of it.

    Nothing is asked about the other frames: what is not found in the key frame is found nowhere. SAM2 runs as its
    video predictor does, with its conditioning frame, object pointers and temporal positions.
    """

    def segment(
        self,
        frames: FrameSource,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        """Streams the masks of all expressions: forward from the first key frame, then backward from the last.

        Raises:
            ValueError: as `GlusSegmenter.segment`
        """
        keys = self._checked_key_frames(frames, expressions, key_frames or {})
        return self._propagated(frames, expressions, keys)

    @torch.inference_mode()
    def _propagated(
        self, frames: FrameSource, expressions: Sequence[Expression], keys: Mapping[str, int]
    ) -> Iterator[FrameResult]:
        groups = []
        for key in sorted(set(keys.values())):
            group = self._in_key_frame(frames, [each for each in expressions if keys[each.id] == key], key)
            groups.append(group)
            yield from group.results
        nothing = [(each, keys[each.id]) for each in expressions if not any(each in group.found for group in groups)]
        yield from self._empty(frames, nothing)
        groups = [group for group in groups if group.found]
        if groups:
            yield from self._walk(frames, groups, range(groups[0].key_frame, len(frames)))
            yield from self._walk(frames, groups, range(groups[-1].key_frame, -1, -1))

    def _in_key_frame(self, frames: FrameSource, expressions: Sequence[Expression], key: int) -> _Group:
        every = self.steps(frames, expressions, key_frames=dict.fromkeys((each.id for each in expressions), key))
        steps = list(islice(every, len(expressions)))  # those in the key frame come first
        found = [step for step in steps if step.masks is not None]
        logits = torch.cat([step.masks.low_res for step in found if step.masks]) if found else torch.empty(0)
        return _Group(key, [step.expression for step in found], logits, list(self._results(frames, steps)))

    def _empty(self, frames: FrameSource, expressions: Sequence[tuple[Expression, int]]) -> Iterator[FrameResult]:
        for expression, key in expressions:
            for frame in range(len(frames)):
                if frame != key:
                    mask = np.zeros((1, *frames.size), dtype=bool)
                    yield FrameResult(frame, expression.id, mask, np.zeros(1, dtype=np.float32), False)

    def _walk(self, frames: FrameSource, groups: Sequence[_Group], indices: range) -> Iterator[FrameResult]:
        """Tracks all groups in one direction; each frame is encoded once."""
        sam2, side = self.network.sam.sam2, self.network.sam.image_size
        tracks = {group.key_frame: Sam2Track(sam2, len(frames), reverse=indices.step < 0) for group in groups}
        for frame, pixels in zip(indices, frames.read(indices), strict=True):
            with precision(self.network.device, self.network.dtype):
                maps = ImageMaps(sam2, self.network.sam_pixels(pixels))
                for group in groups:
                    if group.key_frame == frame:
                        tracks[frame].begin(frame, maps, masks_for_sam2(group.logits, side))
                    elif (frame - group.key_frame) * indices.step > 0:
                        logits, present = tracks[group.key_frame].advance(frame, maps)
                        masks = (masks_at_size(logits, frames.size) > 0).cpu().numpy()
                        scores = present.float().sigmoid().cpu().numpy()
                        for expression, mask, score in zip(group.found, masks, scores, strict=True):
                            yield FrameResult(frame, expression.id, mask[None], score[None], bool(mask.any()))
