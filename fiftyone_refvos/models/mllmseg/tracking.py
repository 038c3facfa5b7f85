"""MLLMSeg over a video with a memory: one frame is segmented, and SAM2 carries its mask in both directions.

frames -> a few candidates -> MLLMSeg -> per expression the frame where it is surest that the object is there;
its mask -> SAM2's memory -> frame by frame to the end, and from the key frame back to the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sam2.modeling.sam2_base import NO_OBJ_SCORE

from fiftyone_refvos.masklet import BoolArray, Expression, FrameResult
from fiftyone_refvos.models.mllmseg.inference import ImageResult, MllmsegSegmenter
from fiftyone_refvos.models.sam2 import ImageFeatures, masks_at_size
from fiftyone_refvos.models.sam2_tracking import TrackBank, TrackedMasks, TrackingSam2
from fiftyone_refvos.models.segmenter import Segmenter, check_key_frames, check_request
from fiftyone_refvos.sampling import context_frames
from fiftyone_refvos.video import Frame, FrameSource


@dataclass(frozen=True)
class KeyFrame:
    """Where an expression is tracked from.

    Attributes:
        frame: index in the video
        result: what was found in it
    """

    frame: int
    result: ImageResult


@dataclass
class Track:
    """Expressions of one key frame in one direction; frames are counted from the key frame, which is 0.

    SAM2 remembers in the direction in which it goes, so the way back is a way forward from the key frame, too.
    """

    frame: int
    results: list[ImageResult]
    bank: TrackBank

    @property
    def masks(self) -> BoolArray:
        """`(B, H, W) bool` in the key frame."""
        return np.stack([result.mask for result in self.results])

    def backward(self) -> Track:
        """The same expressions towards the first frame, after the key frame itself."""
        return Track(self.frame, self.results, TrackBank(self.bank.num_frames, dict(self.bank.conditioning)))


class KeyFrameSegmenter(Segmenter):
    """Segments one frame of a video per expression, and tracks its mask.

    Each direction remembers the key frame and its own frames; the stock predictor, when it goes back after it went
    forward, also remembers frames on the other side of the key frame, so that its masks depend on the order.

    Args:
        segmenter: of images
        tracker: SAM2 with its weights
        candidates: most frames that MLLMSeg looks at where no key frame is given, spread over the video
    """

    def __init__(self, segmenter: MllmsegSegmenter, tracker: TrackingSam2, *, candidates: int) -> None:
        self.images = segmenter
        self.tracker = tracker
        self.candidates = candidates

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the masks depend on, as plain values."""
        return {**self.images.identity, "over_time": "memory", "candidates": self.candidates}

    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that is empty, too long, or holds a reserved token."""
        self.images.check(expression)

    def segment(
        self,
        frames: FrameSource,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        """Streams the masks of all expressions: forward from the first key frame, then backward from the last.

        An expression that the model finds in none of the frames that it looks at is in none of the video. In a
        frame where SAM2 sees nothing there is a zero mask, and `found` is False.

        Raises:
            ValueError: for a video without frames, expressions that cannot be asked, ids given twice, or key
                frames outside of the video
        """
        check_request(frames, expressions)
        self.images.check_image(expressions)
        check_key_frames(frames, expressions, key_frames or {})
        return self._segment(frames, expressions, key_frames or {})

    def choose(
        self, frames: FrameSource, expressions: Sequence[Expression], given: Mapping[str, int]
    ) -> dict[str, KeyFrame]:
        """The key frame per expression id: the one given, or the candidate with the largest margin.

        Expressions of which nothing is found have none.
        """
        spread = [*dict.fromkeys(context_frames(len(frames), "center", self.candidates))]
        asked: dict[int, list[Expression]] = {}
        for expression in expressions:
            for index in [given[expression.id]] if expression.id in given else spread:
                asked.setdefault(index % len(frames), []).append(expression)
        best: dict[str, KeyFrame] = {}
        order = sorted(asked)
        for index, image in zip(order, frames.read(order), strict=True):
            for result in self.images.segment_image(image, asked[index]):
                former = best.get(result.expression.id)
                if result.mask.any() and (former is None or result.margin > former.result.margin):
                    best[result.expression.id] = KeyFrame(index, result)
        return best

    def _segment(
        self, frames: FrameSource, expressions: Sequence[Expression], given: Mapping[str, int]
    ) -> Iterator[FrameResult]:
        keys = self.choose(frames, expressions, given)
        for expression in expressions:
            if expression.id not in keys:
                yield from (_absent(index, expression, frames.size) for index in range(len(frames)))
        tracks = self._tracks(list(keys.values()), len(frames))
        if not tracks:
            return
        places = [track.frame for track in tracks]
        forward = range(min(places), len(frames))
        backward: list[Track] = []
        for index, image in zip(forward, frames.read(forward), strict=True):
            active = [track for track in tracks if track.frame <= index]
            yield from self._advance(active, index, image)
            backward += [track.backward() for track in active if track.frame == index]
        back = range(max(places) - 1, -1, -1)
        for index, image in zip(back, frames.read(back), strict=True):
            yield from self._advance([track for track in backward if track.frame > index], index, image)

    def _tracks(self, keys: Sequence[KeyFrame], num_frames: int) -> list[Track]:
        """Expressions of the same key frame go together, as many as fit."""
        size = self.images.settings.expression_batch
        tracks = []
        for frame in sorted({key.frame for key in keys}):
            results = [key.result for key in keys if key.frame == frame]
            parts = (results[start : start + size] for start in range(0, len(results), size))
            tracks += [Track(frame, part, TrackBank(num_frames)) for part in parts]
        return tracks

    @torch.inference_mode()
    def _advance(self, tracks: Sequence[Track], index: int, image: Frame) -> list[FrameResult]:
        """Takes all tracks to another frame, which is encoded once for all."""
        if not tracks:
            return []
        tracker = self.tracker
        pixels = tracker.preprocess(torch.tensor(image)[None])
        (features,) = tracker.encode_for(pixels, [tracker.original_decoder])
        results = []
        for track in tracks:
            results += self._start(track, features) if index == track.frame else self._go_on(track, index, features)
        return results

    def _start(self, track: Track, features: ImageFeatures) -> list[FrameResult]:
        """The key frame: its masks are those of MLLMSeg."""
        given = torch.from_numpy(track.masks).to(features.top.device)
        self.tracker.memorise(track.bank, 0, features, self.tracker.take_masks(features, given), prompted=True)
        return [
            FrameResult(track.frame, each.expression.id, each.mask[None], _scores(each.score), found=True)
            for each in track.results
        ]

    def _go_on(self, track: Track, index: int, features: ImageFeatures) -> list[FrameResult]:
        """Any other frame: what SAM2 sees of what it remembers."""
        tracker, position = self.tracker, abs(index - track.frame)
        conditioned = tracker.recall(features, position, track.bank)
        masks = _hide_absent(tracker.decode_recalled(tracker.original_decoder, conditioned, features))
        tracker.memorise(track.bank, position, features, masks, prompted=False)
        height, width = track.masks.shape[1:]
        inside = (masks_at_size(masks.low_res, (height, width)) > 0).cpu().numpy()
        confidences = masks.ious.amax(1).float().clamp(0, 1).tolist()
        return [
            FrameResult(
                index, each.expression.id, mask[None], _scores(score if mask.any() else 0.0), bool(mask.any())
            )
            for each, mask, score in zip(track.results, inside, confidences, strict=True)
        ]


def _hide_absent(masks: TrackedMasks) -> TrackedMasks:
    """No mask where SAM2 says that the object is not there: none is shown or remembered, as in its predictor."""
    there = (masks.object_score > 0)[:, None, None, None]
    return replace(masks, low_res=torch.where(there, masks.low_res, NO_OBJ_SCORE))


def _absent(index: int, expression: Expression, size: tuple[int, int]) -> FrameResult:
    return FrameResult(index, expression.id, np.zeros((1, *size), dtype=bool), _scores(0.0), found=False)


def _scores(score: float) -> Any:
    return np.array([score], dtype=np.float32)
