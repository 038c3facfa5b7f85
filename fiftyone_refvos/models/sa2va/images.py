"""Sa2VA on a single image: an answer, a mask for each [SEG] in it, and masks of expressions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fiftyone_refvos.masklet import Expression, FrameResult
from fiftyone_refvos.models.conversation import check_length, check_text
from fiftyone_refvos.models.sa2va.asking import Answer, Asker
from fiftyone_refvos.models.sa2va.config import Sa2vaInference
from fiftyone_refvos.models.sa2va.families import IMAGE, Turn
from fiftyone_refvos.models.sa2va.tracking import FrameFeatures, encode_frame
from fiftyone_refvos.models.sam2_tracking import TrackedMasks, masks_through_image
from fiftyone_refvos.models.segmenter import Segmenter, check_request
from fiftyone_refvos.video import Frame, FrameSource


@dataclass(frozen=True)
class ImageAnswer:
    """What is said of an image, and where that is.

    Attributes:
        answer: of the language model
        masks: `(S, H, W) bool`, one per [SEG]
        scores: `(S,)` predicted IoU of each
    """

    answer: Answer
    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]


@torch.inference_mode()
def ask_about_image(
    asker: Asker,
    image: Frame,
    question: str,
    *,
    regions: NDArray[np.bool_] | None = None,
    history: Sequence[Turn] = (),
) -> ImageAnswer:
    """Asks one question about an RGB image.

    Args:
        asker: with its family
        image: `(H, W, 3) uint8`
        question: in which `<image>` says where the image comes; without it the image comes first. In a chat this
            holds for its first question, and later ones are about the same image
        regions: `(n, H, W)` masks that the question may call region1, region2, …
        history: earlier questions about this image, and their answers

    Raises:
        ValueError: for regions in a family that knows none, masks of another size, and `<image>` in a later question
    """
    family = asker.family
    visual = family.see_image(image)
    if regions is not None:
        if regions.ndim != 3 or regions.shape[1:] != image.shape[:2]:
            raise ValueError(f"regions are {regions.shape}, the image is {image.shape[:2]}; pass masks of its size")
        visual = family.mark(visual, torch.from_numpy(regions))
    asked, past = image_first(question, history)
    (answer,) = asker.ask([asked], visual, past)
    if len(answer.prompt_embeddings) == 0:
        empty = np.zeros((0, *image.shape[:2]), dtype=bool)
        return ImageAnswer(answer, empty, np.zeros(0, dtype=np.float32))
    _, masks = decode_image(asker, image, answer.prompt_embeddings)
    found = masks_through_image(masks.low_res, family.network.sam.image_size, image.shape[:2])
    return ImageAnswer(answer, found.cpu().numpy(), masks.ious.amax(dim=1).float().cpu().numpy())


def image_first(question: str, history: Sequence[Turn]) -> tuple[str, list[Turn]]:
    """A question and what came before it, with `<image>` before the first of all questions unless it says where."""
    past = list(history)
    if past and IMAGE not in past[0].question:
        past[0] = Turn(f"{IMAGE}{past[0].question}", past[0].answer)
    return question if past or IMAGE in question else f"{IMAGE}{question}", past


def decode_image(asker: Asker, image: Frame, prompts: Tensor) -> tuple[FrameFeatures, TrackedMasks]:
    """Decodes the objects of text embeddings `(S, d)` in an image."""
    sam = asker.family.network.sam
    features = encode_frame(sam, image)
    return features, sam.decode_alone(sam.language_decoder, features.language, prompts)


class Sa2vaImageSegmenter(Segmenter):
    """Referring segmentation of images, each as a video of one frame, with the published question about images.

    Args:
        asker: with its family
        settings: how long answers are, and how many expressions go through a network together
    """

    def __init__(self, asker: Asker, settings: Sa2vaInference) -> None:
        self._asker = asker
        self._settings = settings

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the masks depend on, as plain values; modes are of videos."""
        return {"max_new_tokens": self._settings.max_new_tokens}

    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that is empty or holds a reserved token."""
        check_text(expression.text, self._asker.family.tokenizer, what=f"expression {expression.id!r}")

    def segment(
        self,
        frames: FrameSource,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        """Streams the masks of all expressions of each image: one per [SEG], and `found=False` without any.

        Raises:
            ValueError: without an image, for expressions that cannot be asked, ids given twice, or key frames
        """
        check_request(frames, expressions)
        if key_frames:
            raise ValueError("key frames are of videos: an image has none")
        for expression in expressions:
            self.check(expression)
        return self._segment(frames, expressions)

    @torch.inference_mode()
    def _segment(self, frames: FrameSource, expressions: Sequence[Expression]) -> Iterator[FrameResult]:
        for index, image in enumerate(frames.read(range(len(frames)))):
            answers = self._ask(image, expressions)
            counts = [len(answer.prompt_embeddings) for answer in answers]
            masks, scores = self._decode(image, torch.cat([answer.prompt_embeddings for answer in answers]))
            start = 0
            for expression, count in zip(expressions, counts, strict=True):
                own = slice(start, start + count)
                start += count
                if count:
                    yield FrameResult(index, expression.id, masks[own], scores[own], True)
                else:
                    nothing = np.zeros((1, *image.shape[:2]), dtype=bool)
                    yield FrameResult(index, expression.id, nothing, np.zeros(1, dtype=np.float32), False)

    def _ask(self, image: Frame, expressions: Sequence[Expression]) -> list[Answer]:
        family = self._asker.family
        visual, most = family.see_image(image), family.network.config.text.max_position_embeddings
        questions = [f"{IMAGE}\n Please segment {expression.text} in this image." for expression in expressions]
        for expression, question in zip(expressions, questions, strict=True):
            check_length(expression, len(family.encode(question, visual)), max_length=most)
        return list(self._asker.ask(questions, visual))

    def _decode(self, image: Frame, prompts: Tensor) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Masks `(S, H, W)` and their predicted IoU, of text embeddings `(S, d)`."""
        sam, size = self._asker.family.network.sam, image.shape[:2]
        if len(prompts) == 0:
            return np.zeros((0, *size), dtype=bool), np.zeros(0, dtype=np.float32)
        features = encode_frame(sam, image).language
        parts = [
            sam.decode_alone(sam.language_decoder, features, chunk)
            for chunk in prompts.split(self._settings.expression_batch)
        ]
        masks = torch.cat([masks_through_image(part.low_res, sam.image_size, size) for part in parts])
        scores = torch.cat([part.ious.amax(dim=1) for part in parts])
        return masks.cpu().numpy(), scores.float().cpu().numpy()
