"""What a chat model is shown of an object: cut out, outlined in one frame, outlined over the video."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter
from pycocotools import mask as coco_mask

from fiftyone_refvos.masklet import BoolArray, Masklet
from fiftyone_refvos.overlay import contour_width, draw_masks
from fiftyone_refvos.sampling import uniform_frames
from fiftyone_refvos.video import Frame, FrameSource

YELLOW = (255, 255, 0)
GREY = 128  # in place of the background: white and black are colours of objects more often
MARGIN = 0.1  # around a cut-out, as a part of its longer side
MIN_SIDE = 224  # to which small cut-outs are enlarged: the input of common vision towers


class VideoPictures:
    """The frames that all objects of a video are shown in; decoded once, when the first object needs them.

    Args:
        source: the frames of the video
        frames: indices from 0 of the annotated ones
        count: how many of them at most, spread evenly
    """

    def __init__(self, source: FrameSource, frames: tuple[int, ...], count: int) -> None:
        self.source = source
        self.indices = [frames[position] for position in uniform_frames(len(frames), count)]

    @cached_property
    def frames(self) -> list[Frame]:
        """These frames, as they are."""
        return list(self.source.read(self.indices))


class ObjectPictures:
    """The pictures of one object, made when they are asked for.

    Args:
        video: the frames of its video
        masklet: its masks, one object

    Raises:
        ValueError: if no mask has a pixel
    """

    def __init__(self, video: VideoPictures, masklet: Masklet) -> None:
        self._video = video
        self._masklet = masklet
        areas = [int(coco_mask.area(rles[0])) for rles in masklet.masks]
        if not any(areas):
            raise ValueError("the object has no pixel in any frame: there is nothing to describe")
        self.best_frame = masklet.frames[int(np.argmax(areas))]
        """The index of the frame in which its mask is largest, the first of equals."""

    @cached_property
    def full(self) -> Frame:
        """That frame, as it is."""
        (frame,) = self._video.source.read([self.best_frame])
        return frame

    @cached_property
    def crop(self) -> Frame:
        """The object cut out of that frame, with a little room around it; small ones are enlarged."""
        mask = self._best_mask
        top, bottom, left, right = _box(mask)
        room = round(MARGIN * max(bottom - top, right - left)) + 1
        part = np.s_[max(0, top - room) : bottom + room, max(0, left - room) : right + room]
        cut = np.where(mask[part][..., None], self.full[part], np.uint8(GREY))
        height, width = cut.shape[:2]
        if (scale := MIN_SIDE / max(height, width)) <= 1:
            return cut
        size = max(1, round(scale * width)), max(1, round(scale * height))
        return np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC))

    @property
    def place(self) -> str:
        """Where the object is in that frame, in words."""
        mask = self._best_mask
        top, bottom, left, right = _box(mask)
        height, width = mask.shape
        return (
            f"from {round(100 * left / width)} % to {round(100 * right / width)} % of its width, from the left, and "
            f"from {round(100 * top / height)} % to {round(100 * bottom / height)} % of its height, from the top"
        )

    @cached_property
    def outlined(self) -> Frame:
        """That frame, with the object outlined."""
        return outline(self.full, self._best_mask)

    @property
    def video(self) -> list[Frame]:
        """The frames of the video, with the object outlined where it is visible."""
        pairs = zip(self._video.indices, self._video.frames, strict=True)
        return [outline(frame, self._masklet.mask(index)[0]) for index, frame in pairs]

    @cached_property
    def _best_mask(self) -> BoolArray:
        mask: BoolArray = self._masklet.mask(self.best_frame)[0]
        return mask


def outline(frame: Frame, mask: BoolArray) -> Frame:
    """A frame with a yellow line around a mask, outside of it, so that no pixel of a small object is covered."""
    wider = ImageFilter.MaxFilter(2 * contour_width(mask.shape) + 1)
    around = np.asarray(Image.fromarray(mask.astype(np.uint8)).filter(wider)) > 0
    drawn = draw_masks(frame, around[None], [YELLOW], alpha=0)
    drawn[mask] = frame[mask]
    return drawn


def _box(mask: BoolArray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a mask that is not empty; bottom and right are not part of it."""
    rows, columns = np.nonzero(mask)
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
