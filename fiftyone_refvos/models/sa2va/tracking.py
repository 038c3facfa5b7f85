"""Carrying the objects of Sa2VA through a video: prompted in the key frames, followed in the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_refvos.models.sa2va.pixels import sam_pixels
from fiftyone_refvos.models.sam2 import ImageFeatures, masks_at_size
from fiftyone_refvos.models.sam2_tracking import TrackBank, TrackedMasks, TrackingSam2, inside
from fiftyone_refvos.video import Frame, FrameSource


@dataclass(frozen=True)
class FrameFeatures:
    """SAM2 features of one frame, as each of the two decoders takes them; the same where there is one decoder.

    Attributes:
        language: for the decoder that was tuned for text embeddings
        original: for the decoder that follows
    """

    language: ImageFeatures
    original: ImageFeatures


@dataclass(frozen=True)
class TrackStep:
    """What SAM2 made of B objects in one frame.

    Attributes:
        decoded: what a decoder found
        masks: what is returned and remembered: the same, or the certain masks that were made of it
        conditioned: `(B, d, h, w)` top map after memory; None in key frames, which are decoded without
    """

    decoded: TrackedMasks
    masks: TrackedMasks
    conditioned: Tensor | None = None


@dataclass(frozen=True)
class VideoStep:
    """What SAM2 made of all objects in one frame.

    Attributes:
        frame: index from 0
        features: of the frame
        parts: the objects in batches, in their order
    """

    frame: int
    features: FrameFeatures
    parts: list[TrackStep]

    @property
    def low_res(self) -> Tensor:
        """Mask logits `(B, 1, 4h, 4w)` of all objects."""
        return torch.cat([part.masks.low_res for part in self.parts])

    @property
    def scores(self) -> Tensor:
        """`(B,)` predicted IoU of each mask, by the decoder that found it."""
        return torch.cat([part.decoded.ious.amax(dim=1) for part in self.parts])


class ObjectTracks:
    """B objects of one video, that go through SAM2 together.

    Args:
        sam: with its weights
        num_frames: length of the video
        size: (H, W) of its frames
    """

    def __init__(self, sam: TrackingSam2, num_frames: int, size: tuple[int, int]) -> None:
        self.bank = TrackBank(num_frames)
        self._sam = sam
        self._size = size

    def prompt(self, frame: int, features: FrameFeatures, prompts: Tensor) -> TrackStep:
        """Decodes the objects of text embeddings `(B, d)` in a key frame, and remembers them."""
        decoded = self._sam.decode_alone(self._sam.language_decoder, features.language, prompts)
        self._sam.memorise(self.bank, frame, features.language, decoded, prompted=True)
        return TrackStep(decoded, decoded)

    def prompt_certainly(self, frame: int, features: FrameFeatures, prompts: Tensor) -> TrackStep:
        """Decodes them likewise, and remembers their outlines as if they were given (Sa2VA-i)."""
        decoded = self._sam.decode_alone(self._sam.language_decoder, features.language, prompts)
        outlines = inside(masks_at_size(decoded.low_res, self._size))
        return TrackStep(decoded, self.give(frame, features, outlines))

    def give(self, frame: int, features: FrameFeatures, masks: Tensor) -> TrackedMasks:
        """Remembers given masks `(B, H, W) bool` of a key frame."""
        taken = self._sam.take_masks(features.original, masks)
        self._sam.memorise(self.bank, frame, features.original, taken, prompted=True)
        return taken

    def follow(self, frame: int, features: FrameFeatures, *, certain: bool, remember: bool) -> TrackStep:
        """Finds the objects in a frame without prompts.

        Args:
            frame: index from 0; frames must come in order
            features: of the frame
            certain: whether the key frames were `prompt_certainly`, after which the original decoder follows
            remember: whether a later frame will attend to this one
        """
        decoder, chosen = self._sam.language_decoder, features.language
        if certain:
            decoder, chosen = self._sam.original_decoder, features.original
        conditioned = self._sam.recall(chosen, frame, self.bank)
        masks = self._sam.decode_recalled(decoder, conditioned, chosen)
        if remember:
            self._sam.memorise(self.bank, frame, chosen, masks, prompted=False)
        return TrackStep(masks, masks, conditioned)


def encode_frame(sam: TrackingSam2, frame: Frame) -> FrameFeatures:
    """SAM2 features of an RGB frame; the image encoder runs once, whatever the number of decoders."""
    pixels = sam_pixels(frame, sam.image_size).to(sam.parameter.device, sam.parameter.dtype)
    if sam.tuned_decoder is None:
        (features,) = sam.encode_for(pixels, [sam.original_decoder])
        return FrameFeatures(features, features)
    return FrameFeatures(*sam.encode_for(pixels, [sam.language_decoder, sam.original_decoder]))


def track_video(
    sam: TrackingSam2,
    frames: FrameSource,
    key_frames: dict[int, Frame],
    prompts: Tensor,
    *,
    certain: bool,
    batch: int,
) -> Iterator[VideoStep]:
    """Carries objects through a video: first all key frames, then the others in order; each is encoded once.

    Args:
        sam: with its weights
        frames: of the video
        key_frames: RGB frames by index, ascending
        prompts: `(B, d)` one text embedding per object
        certain: whether key masks are given on as certain outlines to the original SAM2, as in Sa2VA-i
        batch: most objects that go through SAM2 together
    """
    chunks: Sequence[Tensor] = prompts.split(batch)
    tracks = [ObjectTracks(sam, len(frames), frames.size) for _ in chunks]
    for index, pixels in key_frames.items():
        features = encode_frame(sam, pixels)
        yield VideoStep(
            index,
            features,
            [
                (track.prompt_certainly if certain else track.prompt)(index, features, chunk)
                for track, chunk in zip(tracks, chunks, strict=True)
            ],
        )
    rest = [index for index in range(len(frames)) if index not in key_frames]
    for index, pixels in zip(rest, frames.read(rest), strict=True):
        features = encode_frame(sam, pixels)
        parts = [track.follow(index, features, certain=certain, remember=index != rest[-1]) for track in tracks]
        yield VideoStep(index, features, parts)
