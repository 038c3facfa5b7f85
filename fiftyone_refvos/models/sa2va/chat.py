"""What Sa2VA does besides referring segmentation: chat about images and videos, captions with masks, and of regions.

question -> answer; each [SEG] in it -> a mask of the image, or a masklet of the video, named by its phrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fiftyone_refvos.masklet import Expression, Masklet
from fiftyone_refvos.models.conversation import check_text
from fiftyone_refvos.models.sa2va.asking import Answer
from fiftyone_refvos.models.sa2va.families import IMAGE, Turn
from fiftyone_refvos.models.sa2va.images import ImageAnswer, ask_about_image, image_first
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter, VideoAnswers
from fiftyone_refvos.models.sa2va.regions import Region, region_mask, region_masks
from fiftyone_refvos.video import Frame, FrameSource

_INTERLEAVED = "Please respond with interleaved segmentation masks for the corresponding parts of the answer."
DESCRIBE_IMAGE = f"{IMAGE}\nCould you please give me a brief description of the image? {_INTERLEAVED}"
"""The published question for a grounded caption."""
DESCRIBE_VIDEO = f"{IMAGE}\nCould you please give me a brief description of the video? {_INTERLEAVED}"
"""The same of a video, which was never published: the models learned grounded captions of images alone."""
DESCRIBE_REGION = f"{IMAGE}\nPlease give me a short description of the region in the picture marked by region1."
"""The published question for a caption of a region."""

UNNAMED = "thing"
"""The label of what a caption shows without a phrase."""


def label_without_phrase(question: str) -> str:
    """The label of what an answer shows without a phrase: the question, in images and videos alike."""
    return question.strip()


@dataclass(frozen=True)
class VideoAnswer:
    """What is said of a video, and where that is.

    Attributes:
        answer: of the language model
        key_frames: the frames that it saw, from 0
        masklets: one per [SEG]; the text of each is its phrase, or the question, or `UNNAMED` of a caption
    """

    answer: Answer
    key_frames: tuple[int, ...]
    masklets: list[Masklet]


class Sa2vaChat:
    """Asks Sa2VA about images and videos; where there is a history, the question is the next one of that chat.

    Args:
        segmenter: of any family; its settings say which frames of a video are looked at, and how long answers are
    """

    def __init__(self, segmenter: Sa2vaSegmenter) -> None:
        self._segmenter = segmenter
        self._asker = segmenter.asker

    def check(self, question: str) -> None:
        """Raises a ValueError for a question that is empty or holds a reserved token."""
        check_text(question, self._segmenter.family.tokenizer, what="the question")

    @torch.inference_mode()
    def about_nothing(self, question: str, *, history: Sequence[Turn] = ()) -> Answer:
        """Answers a question about nothing that can be seen.

        Raises:
            ValueError: for a question that cannot be asked
        """
        self.check(question)
        (answer,) = self._asker.ask([question], None, history)
        return answer

    def about_image(
        self, image: Frame, question: str, *, regions: Sequence[Region] = (), history: Sequence[Turn] = ()
    ) -> ImageAnswer:
        """Answers a question about an RGB image `(H, W, 3) uint8`.

        Args:
            image: RGB
            question: may call the regions region1, region2, …
            regions: boxes, points or masks, as `region_masks` takes them; the same in the whole chat
            history: earlier questions about this image

        Raises:
            ValueError: for a question that cannot be asked, regions that are none, and regions of a family that
                knows none
        """
        self.check(question)
        masks = region_masks(regions, image.shape[:2], self._segmenter.family.grid) if regions else None
        return ask_about_image(self._asker, image, question, regions=masks, history=history)

    def about_video(self, frames: FrameSource, question: str, *, history: Sequence[Turn] = ()) -> VideoAnswer:
        """Answers a question about a video, of which as many frames are looked at as for segmentation.

        Raises:
            ValueError: for a question that cannot be asked, and a video without frames
        """
        self.check(question)
        return self._about_video(frames, question, history, label_without_phrase(question))

    def describe_image(self, image: Frame) -> ImageAnswer:
        """A caption with a mask for each of its phrases."""
        return ask_about_image(self._asker, image, DESCRIBE_IMAGE)

    def describe_video(self, frames: FrameSource) -> VideoAnswer:
        """The same of a video, with masklets.

        Raises:
            ValueError: for a video without frames
        """
        return self._about_video(frames, DESCRIBE_VIDEO, (), UNNAMED)

    def region(self, name: str, region: Region, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask by which a region of an image of a size (H, W) is marked, itself a region.

        Raises:
            ValueError: for a region that is none, which the message calls `name`
        """
        return region_mask(name, region, size, self._segmenter.family.grid)

    @torch.inference_mode()
    def describe_regions(self, image: Frame, regions: Sequence[Region]) -> list[Answer]:
        """A caption for each region of an RGB image, which is looked at once for all of them.

        Raises:
            ValueError: for regions that are none, and in a family that knows no regions
        """
        family = self._segmenter.family
        masks = torch.from_numpy(region_masks(regions, image.shape[:2], family.grid))
        if len(masks) == 0:
            return []
        visual = family.see_image(image)
        marked = [family.mark(visual, mask[None]) for mask in masks]
        return list(self._asker.ask_of_each(DESCRIBE_REGION, visual, marked))

    @torch.inference_mode()
    def _about_video(
        self, frames: FrameSource, question: str, history: Sequence[Turn], otherwise: str
    ) -> VideoAnswer:
        if len(frames) == 0:
            raise ValueError(f"{frames.name} has no frames")
        keys, visual = self._segmenter.look(frames)
        asked, past = image_first(question, history)
        (answer,) = self._asker.ask([asked], visual, past)
        things = [Expression(str(number), label) for number, label in enumerate(answer.labels(otherwise))]
        masklets: list[Masklet] = []
        if things:
            steps = self._segmenter.track(frames, VideoAnswers(keys, [answer]))
            size, counts = frames.size, [1] * len(things)
            found = (each for step in steps for each in self._segmenter.results(step, things, counts, size))
            masklets = Masklet.collect(found, things)
        return VideoAnswer(answer, tuple(keys), masklets)
